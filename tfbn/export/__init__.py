"""SavedModels that are known to compute what the model computes.

`target` says where; `savedmodel` folds, writes and reloads; `signature` names what goes in and out;
`freezing` makes the weights constants; `samples` makes the inputs to compare on, `comparison` compares;
`staging` puts the result in place in one step; `report` says what was written.
"""

from .report import ExportError, ExportReport
from .savedmodel import export

__all__ = ["ExportError", "ExportReport", "export"]
