"""What `from tfbn import compat` offers. Keras learns the names of its classes here."""

from .keras1 import BatchNormalization
from .model_files import LegacyModelError, UnsupportedLayerError, load_model
from .tf1.arg_scope import add_arg_scope, arg_scope
from .tf1.checkpoints import CheckpointError, CheckpointReport, load_checkpoint
from .tf1.contrib_batch_norm import batch_norm
from .tf1.layer import VariableScopeLayer
from .tf1.namespace.install import install_contrib
from .tf1.slim import slim
from .tf1.tf_layers import batch_normalization

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
    "install_contrib",
    "load_checkpoint",
    "load_model",
    "slim",
]
