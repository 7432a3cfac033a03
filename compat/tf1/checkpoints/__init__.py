"""TF1 checkpoints into Keras models, by name."""

from .load import CheckpointError, CheckpointReport, load_checkpoint

__all__ = ["CheckpointError", "CheckpointReport", "load_checkpoint"]
