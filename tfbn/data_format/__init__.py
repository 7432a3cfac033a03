"""Channels first and channels last: a model turned from the one to the other, and what can run here.

`layouts` is the arithmetic of axes, `rules` says how a layer follows its tensors when these are
transposed, `tables` which layer follows which rule, `turning` rebuilds a model by them. `support`
tells what TensorFlow has no kernel for on this machine.
"""

from .support import channels_first, check_kernels, explained, misplaced_biases
from .turning import to_channels_last

__all__ = ["channels_first", "check_kernels", "explained", "misplaced_biases", "to_channels_last"]
