"""TF1-style code as a Keras layer."""

from .variable_scope import VariableScopeLayer

__all__ = ["VariableScopeLayer"]
