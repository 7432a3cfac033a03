"""What is no Keras model: SavedModels, frozen graphs, functions and modules of TensorFlow.

`sources` opens each kind as `Signatures`, functions of named tensors; `graph` makes weights constants of
one and folds it, `writing` writes what comes of all of them, and `exporting` compares. `leftover` does
so for what is left in a Keras model.
"""

from .exporting import export_graph
from .leftover import in_its_graph
from .signatures import chosen
from .sources import is_source, open_source

__all__ = ["chosen", "export_graph", "in_its_graph", "is_source", "open_source"]
