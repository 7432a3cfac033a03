"""Algorithm 2, line 11, on a whole model: batch norms written into the layers before them.

`graph` reads which layer feeds which, `rules` knows how each linear layer absorbs a scale and an
offset, `rewrite` decides and builds the new model, `report` says what happened.
"""

from .report import Folded, FoldReport
from .rewrite import fold

__all__ = ["FoldReport", "Folded", "fold"]
