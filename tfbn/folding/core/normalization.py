"""What a batch norm is to the algorithm: an affine map of its channels, and how it rounds."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from ...axes import Axis, channel_axes
from .affine import Affine, CannotFoldError
from .graph import Call
from .targets import PendingFold


@dataclass(frozen=True)
class Normalization:
    """A batch norm at inference.

    Attributes:
        affine: its map, flat: one number per channel.
        gamma, beta: flat, float64; 1 and 0 where it has none.
        axis: the axes of its input that count the channels; negative ones from the end.
        sizes: how many channels along each of them, in the order of the tensor's axes.
        centers_first: whether it takes the mean off its inputs before it scales them, so that inputs far
            from 0 keep their digits.
    """

    affine: Affine
    gamma: np.ndarray
    beta: np.ndarray
    axis: Axis
    sizes: tuple[int, ...]
    centers_first: bool

    def sample_map(self, call: Call, pending: PendingFold) -> Affine:
        """The map of a sample in one call, with all that the batch norm has taken up itself.

        Raises:
            CannotFoldError: it is not finite.
        """
        rank = len(call.inputs[0].shape)
        axes, sizes = channel_axes(self.axis, rank), iter(self.sizes)
        shape = [next(sizes) if axis in axes else 1 for axis in range(rank)][1:]
        flat = pending.applied_to(self.affine)
        affine = flat.map(lambda array: np.broadcast_to(array, math.prod(shape)).reshape(shape))
        if not (np.isfinite(affine.scale).all() and np.isfinite(affine.offset).all()):
            raise CannotFoldError(f"the scale or offset of {call.op} is not finite; mend its weights")
        return affine

    def cancellation(self, pending: PendingFold) -> float:
        """How large `scale · mean` is beside the outputs, in the worst channel.

        An operation that takes the batch norm up adds and takes off numbers of that size, and rounds
        them. A batch norm that centers first takes the mean off its inputs, which loses no digits. 0 for
        one that does not center first: it rounds like the operation that takes it up.
        """
        if not self.centers_first:
            return 0.0
        after = pending.output_map or Affine.identity(1)
        at_mean = after.scale * self.beta + after.offset
        size = np.abs(at_mean) + np.abs(after.scale * self.gamma)
        cancelled = np.abs(pending.applied_to(self.affine).offset - at_mean)
        return float(np.max(cancelled / np.where(size > 0, size, 1)))
