"""What `import tfbn` offers. TensorFlow starts here, and Keras learns the names of our classes."""

from importlib.util import find_spec

if find_spec("tensorflow") is None:
    raise ImportError(
        "tfbn runs on TensorFlow, and none is installed: pip install tensorflow, or tensorflow-cpu, "
        "which has no GPU in it."
    )

import keras

if keras.backend.backend() != "tensorflow":
    raise ImportError(
        f"tfbn needs Keras' TensorFlow backend, and Keras runs on {keras.backend.backend()!r}. Set the "
        "environment variable KERAS_BACKEND=tensorflow before the first import of keras."
    )

# As type checkers find it in a checkout, too, where compat lies beside tfbn.
import tfbn.compat as compat  # noqa: PLR0402

# Its classes are registered in the command, too, where compat waits for the first name.
import tfbn.compat.public  # noqa: F401

from . import callbacks, functional
from .batch_norms import batch_norm_at_inference, batch_norms
from .convert import convert
from .diagnosis import Diagnosis, Inspection, diagnose, inspect
from .export import ExportError, ExportReport, export
from .folding import FoldReport, fold
from .layer import BatchNorm
from .population import (
    Measurement,
    PopulationStatistics,
    Statistics,
    measure,
    population_statistics,
    recalibrate,
)
from .renorm import BatchRenorm

__all__ = [
    "BatchNorm",
    "BatchRenorm",
    "Diagnosis",
    "ExportError",
    "ExportReport",
    "FoldReport",
    "Inspection",
    "Measurement",
    "PopulationStatistics",
    "Statistics",
    "batch_norm_at_inference",
    "batch_norms",
    "callbacks",
    "compat",
    "convert",
    "diagnose",
    "export",
    "fold",
    "functional",
    "inspect",
    "measure",
    "population_statistics",
    "recalibrate",
]
