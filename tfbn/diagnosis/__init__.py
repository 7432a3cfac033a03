"""What is wrong with a model's batch norms, in words, numbers and pictures.

`layers` reads a model's batch norms as plain numbers; `weights` looks at these alone, for `inspect`.
"""

from .inspect import inspect
from .inspection import Inspection, LayerInspection

__all__ = ["Inspection", "LayerInspection", "inspect"]
