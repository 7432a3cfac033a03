"""What is no Keras model: SavedModels, frozen graphs, functions and modules of TensorFlow.

`sources` opens each kind as `Signatures`, functions of named tensors; `graph` makes weights constants of
one and folds it, `writing` writes what comes of all of them, and `exporting` compares.
"""

from .exporting import export_graph
from .sources import is_source, open_source

__all__ = ["export_graph", "is_source", "open_source"]
