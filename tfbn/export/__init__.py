"""SavedModels that are known to compute what the model computes.

`savedmodel` folds, writes, reloads and compares; `signature` names what goes in and out; `freezing`
makes the weights constants; `samples` makes the inputs to compare on; `staging` puts the result in place
in one step; `report` says what was written.
"""

from .report import ExportError, ExportReport
from .savedmodel import export

__all__ = ["ExportError", "ExportReport", "export"]
