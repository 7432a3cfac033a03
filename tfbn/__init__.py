"""Batch normalisation for TensorFlow 2 and Keras 3: exact, measured, and folded away to serve.

`BatchNorm` is the layer; `population_statistics` and `recalibrate` measure what inference needs;
`convert` swaps Keras' layers for it and back;
`fold` writes batch norms into the layers next to them; `export` writes a SavedModel that was compared
with the model;
`functional` holds the mathematics as pure functions.
"""

from importlib.util import find_spec

from . import quiet

if find_spec("tensorflow") is None:
    raise (SystemExit if quiet.is_command() else ImportError)(
        "tfbn runs on TensorFlow, and none is installed: pip install tensorflow, or tensorflow-cpu, "
        "which has no GPU in it."
    )

if quiet.is_command():
    # Here, because Python runs this file before the command's own module.
    quiet.import_tensorflow()

import keras

if keras.backend.backend() != "tensorflow":
    raise ImportError(
        f"tfbn needs Keras' TensorFlow backend, and Keras runs on {keras.backend.backend()!r}. Set the "
        "environment variable KERAS_BACKEND=tensorflow before the first import of keras."
    )

from . import functional
from .batch_norms import batch_norm_at_inference
from .convert import convert
from .export import ExportError, ExportReport, export
from .folding import FoldReport, fold
from .layer import BatchNorm
from .population import Measurement, PopulationStatistics, population_statistics, recalibrate
from .renorm import BatchRenorm

__version__ = "0.1.0"

__all__ = [
    "BatchNorm",
    "BatchRenorm",
    "ExportError",
    "ExportReport",
    "FoldReport",
    "Measurement",
    "PopulationStatistics",
    "batch_norm_at_inference",
    "convert",
    "export",
    "fold",
    "functional",
    "population_statistics",
    "recalibrate",
]
