"""Channels first and channels last: a model turned from the one to the other, and what can run here.

`layouts` is the arithmetic of axes, `rules` says how a layer follows its tensors when these are
transposed, `tables` which layer follows which rule, `turning` rebuilds a model by them. `support`
tells what TensorFlow has no kernel for on this machine.
"""

from .support import check_kernels, explained
from .turning import has_channels_first, to_channels_last

__all__ = ["check_kernels", "explained", "has_channels_first", "to_channels_last"]
