"""A model written in a format to serve, and checked against the model on sample inputs.

`export` is the list of steps. `servable` examines a model: from there on it is a function of named
tensors; `samples` makes what to run it on, `signature` names what goes in and out. `formats` write and
reload, with `freezing` where weights become constants. `checks` compares, by as much as `tolerance`
allows; `report` says what was written.
"""

from .export import export
from .report import ExportError, ExportReport

__all__ = ["ExportError", "ExportReport", "export"]
