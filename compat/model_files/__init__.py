"""Models that Keras 1 and 2 saved, as models of Keras 3."""

from .errors import LegacyModelError, UnsupportedLayerError
from .layers.legacy_wrappers import InTraining
from .load import load, load_model
from .report import LegacyBatchNorm, LegacyReport

__all__ = [
    "InTraining",
    "LegacyBatchNorm",
    "LegacyModelError",
    "LegacyReport",
    "UnsupportedLayerError",
    "load",
    "load_model",
]
