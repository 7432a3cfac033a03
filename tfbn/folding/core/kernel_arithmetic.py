"""The arithmetic of kernels that take maps up: which factors, along which axes, rounded once."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from ...axes import per_channel_shape
from .targets import PendingFold

BLOCK = 2**20  # numbers


@dataclass(frozen=True)
class ScaledKernel:
    """A kernel of any type times float64 factors that broadcast along it; computed when rounded.

    Attributes:
        kernel: as it was.
        factors: each of the kernel's rank.
        term: added to the product, one row for all.
    """

    kernel: np.ndarray
    factors: tuple[np.ndarray, ...] = ()
    term: np.ndarray | float = 0.0

    def times(self, factor: np.ndarray) -> ScaledKernel:
        term = self.term * factor if np.any(self.term) else 0.0  # or zeros as large as the kernel
        return ScaledKernel(self.kernel, (*self.factors, factor), term)

    def round_to(self, dtype: str) -> np.ndarray:
        """Computed in float64, rounded once, in blocks: no float64 kernel is ever held whole."""
        result = np.empty(self.kernel.shape, dtype)
        rows = max(1, BLOCK * len(result) // max(1, result.size))
        for start in range(0, len(result), rows):
            block = slice(start, start + rows)
            product = self.kernel[block].astype("float64")
            for factor in self.factors:
                product *= _rows(factor, block)
            product += _rows(self.term, block)
            result[block] = round_to(product, dtype)
        return result


def _rows(array: np.ndarray | float, block: slice) -> np.ndarray | float:
    """Those rows of an array, which may have one for all."""
    return array[block] if isinstance(array, np.ndarray) and len(array) > 1 else array


@dataclass(frozen=True)
class KernelLayout:
    """Where a linear operation's kernels count its channels.

    Attributes:
        kernel: the weight with an output-channel axis.
        output_axes: that axis, from the end, or several that count the channels together.
        input_axis: the weight that counts the input channels (of one group), and its axis that does.
    """

    kernel: str
    output_axes: tuple[int, ...]
    input_axis: tuple[str, int]

    def fold(
        self, kernels: Mapping[str, np.ndarray], bias: np.ndarray, pending: PendingFold, groups: int = 1
    ) -> tuple[dict[str, ScaledKernel], np.ndarray]:
        """The kernels and the bias that do what the given ones do between the pending maps.

        Args:
            kernels: by name.
            bias: one number for each output channel, or one for all, float64.
            pending: its maps flat, one number for each channel.
            groups: of the channels.
        """
        scaled = {name: ScaledKernel(array) for name, array in kernels.items()}
        if (before := pending.input_map) is not None:
            name, axis = self.input_axis
            if before.offset.any():
                bias = bias + self._response(kernels, before.offset, groups)
            factor = _along_inputs(kernels[name], axis, before.scale, groups)
            scaled[name] = scaled[name].times(factor)
        if (after := pending.output_map) is not None:
            shape = per_channel_shape(kernels[self.kernel].shape, self.output_axes)
            scale = np.broadcast_to(after.scale, math.prod(shape)).reshape(shape)
            scaled[self.kernel] = scaled[self.kernel].times(scale)
            bias = after.scale * bias + after.offset
        return scaled, bias

    def _response(
        self, kernels: Mapping[str, np.ndarray], offset: np.ndarray, groups: int
    ) -> np.ndarray:
        """What the kernels make of a constant input: one number for each output channel."""
        name, axis = self.input_axis
        kernel = kernels[name]
        spatial = tuple(range(kernel.ndim - 2))
        taps = kernel.sum(spatial, dtype="float64", keepdims=True)
        sums = (taps * _along_inputs(kernel, axis, offset, groups)).reshape(taps.shape[-2:])
        if name != self.kernel:
            return sums.reshape(-1) @ kernels[self.kernel].reshape(sums.size, -1)
        return sums.reshape(-1) if len(self.output_axes) > 1 else sums.sum(axis)


def _along_inputs(kernel: np.ndarray, axis: int, channels: np.ndarray, groups: int) -> np.ndarray:
    """Numbers of the input channels, shaped to broadcast along a kernel that counts them on `axis`."""
    size = kernel.shape[axis]
    channels = np.broadcast_to(channels, size * groups).reshape(groups, size)
    if groups == 1:
        return channels[0].reshape(per_channel_shape(kernel.shape, (axis,)))
    # Output channel o is of group o // (out / groups), and sees that group's inputs only.
    pairs = np.repeat(channels, kernel.shape[-1] // groups, axis=0).T
    return pairs.reshape((1,) * (kernel.ndim - 2) + pairs.shape)


def round_to(array: np.ndarray, dtype: str) -> np.ndarray:
    """A float64 array rounded once, to the nearest value of `dtype`.

    NumPy rounds to bfloat16 via float32, so ties can round twice. Round-to-odd in float32 (Boldo &
    Melquiond 2008) avoids that.
    """
    with np.errstate(over="ignore"):  # the caller looks for infinities
        if dtype != "bfloat16":
            return array.astype(dtype)
        single = array.astype("float32")
        wide = single.astype("float64")
        odd = single.view("uint32") & 1
        nearer = np.nextafter(single, np.where(array > wide, np.inf, -np.inf).astype("float32"))
        return np.where((wide != array) & (odd == 0) & np.isfinite(single), nearer, single).astype(dtype)
