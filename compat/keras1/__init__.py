"""Keras 1's BatchNormalization."""

from .layer import BatchNormalization

__all__ = ["BatchNormalization"]
