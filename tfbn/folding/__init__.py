"""Algorithm 2, line 11, on a whole model: batch norms moved to where a layer takes them up.

`graph` reads which call feeds which; `affine` is what a batch norm is at inference; `crossing` knows
what it moves across and `absorbing`, `einsum` and `normalizing` what takes it up, by the tables of
`rules`; `plan` decides where each one goes, `rewrite` builds the new model, `report` says what happened.
"""

from .report import Folded, FoldReport
from .rewrite import fold

__all__ = ["FoldReport", "Folded", "fold"]
