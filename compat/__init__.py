"""Batch normalisation as TensorFlow 1 and Keras 1 spelled it, on Keras 3."""

from .arg_scope import add_arg_scope, arg_scope
from .checkpoints import CheckpointError, CheckpointReport, load_checkpoint
from .contrib import batch_norm
from .keras1 import BatchNormalization
from .legacy import LegacyModelError, UnsupportedLayerError, load_model
from .slim import slim
from .tf_layers import batch_normalization
from .variable_scope import VariableScopeLayer

__all__ = [
    "BatchNormalization",
    "CheckpointError",
    "CheckpointReport",
    "LegacyModelError",
    "UnsupportedLayerError",
    "VariableScopeLayer",
    "add_arg_scope",
    "arg_scope",
    "batch_norm",
    "batch_normalization",
    "load_checkpoint",
    "load_model",
    "slim",
]
