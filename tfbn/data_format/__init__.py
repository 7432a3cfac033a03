"""Rebuild a channels-first model as a channels-last one, and tell what this machine can run.

`layouts` is the arithmetic of axes, `rules` says how a layer changes when its tensors are transposed,
`tables` which class of layers follows which rule, and `turning` rebuilds a model by them. `support`
tells which layers TensorFlow has no kernel for on this machine.
"""

from .support import channels_first, check_kernels, explained, misplaced_biases
from .turning import to_channels_last

__all__ = ["channels_first", "check_kernels", "explained", "misplaced_biases", "to_channels_last"]
