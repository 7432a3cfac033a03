"""Algorithm 2, line 11, on a whole model: batch norms moved to where a layer takes them up.

`core` is the algorithm, on a graph that holds nothing of Keras. `keras` reads a model into such a graph
with the rules for its layers, computes each changed layer, and builds the new model. `report` says what
became of each batch norm.
"""

from .keras.build import fold
from .report import FoldEntry, FoldReport

__all__ = ["FoldEntry", "FoldReport", "fold"]
