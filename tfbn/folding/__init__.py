"""Algorithm 2, line 11, on a whole model: batch norms moved to where a layer takes them up.

`graph` reads which call feeds which; `affine` is what a batch norm is at inference; `propagation` and
`combining` know what it moves across and `targets`, `einsum` and `normalizing` what takes it up, by the
tables of `rules`; `plan` decides where each one goes, `rewrite` builds the new model, `report` says what
happened.
"""

from .report import FoldEntry, FoldReport
from .rewrite import fold

__all__ = ["FoldEntry", "FoldReport", "fold"]
