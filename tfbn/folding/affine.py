"""Affine maps of one sample: what a batch norm is at inference, and what moves through the graph."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

BLOCK = 2**20  # numbers

# How much larger than the values that come out, or than before, numbers may be that cancel: rounding of
# them then adds up to four times what was there (tests/folding/test_digits.py).
MOST_CANCELLED = 3.0


class CannotFoldError(Exception):
    """A batch norm cannot be folded this way, for the reason given."""


@dataclass(frozen=True)
class Affine:
    """`scale · x + offset` with a scale and an offset that broadcast along one sample (no batch axis).

    Both are float64, of the sample's rank, and of size 1 along each axis on which they do not vary:
    `(1, 1, C)` for channels last. Two equal maps are therefore equal arrays. Made by `Affine.of`.
    """

    scale: np.ndarray
    offset: np.ndarray

    @classmethod
    def of(cls, scale: np.ndarray, offset: np.ndarray) -> Affine:
        return cls(
            _squeeze_constant_axes(np.asarray(scale, "float64")),
            _squeeze_constant_axes(np.asarray(offset, "float64")),
        )

    @classmethod
    def identity(cls, rank: int) -> Affine:
        return cls(np.ones((1,) * rank), np.zeros((1,) * rank))

    @property
    def rank(self) -> int:
        return self.scale.ndim

    @property
    def axes(self) -> tuple[int, ...]:
        """The axes along which it varies."""
        shape = np.broadcast_shapes(self.scale.shape, self.offset.shape)
        return tuple(axis for axis, size in enumerate(shape) if size > 1)

    def equals(self, other: Affine) -> bool:
        return np.array_equal(self.scale, other.scale) and np.array_equal(self.offset, other.offset)

    def compose(self, first: Affine) -> Affine:
        """The map that does `first`, and then this."""
        return Affine.of(self.scale * first.scale, self.scale * first.offset + self.offset)

    def without_offset(self) -> Affine:
        return Affine(self.scale, np.zeros((1,) * self.rank))

    def map(self, function: Callable[[np.ndarray], np.ndarray]) -> Affine:
        """The map with `function` (which rearranges a sample) applied to scale and offset."""
        return Affine.of(function(self.scale), function(self.offset))


def reshaped(affine: Affine, before: Sequence[int | None], after: Sequence[int | None]) -> Affine:
    """The map on a sample of shape `after`, which is one of shape `before` with its elements in order.

    Raises:
        CannotFoldError: it varies, and one of the shapes is not wholly known or the sizes differ.
    """
    if not affine.axes:
        return affine.map(lambda one: one.reshape((1,) * len(after)))
    if None in before or None in after or np.prod(before) != np.prod(after):  # type: ignore[arg-type]
        raise CannotFoldError(
            "a reshape on the way puts other values together, or its sizes are not known"
        )
    return affine.map(lambda one: np.broadcast_to(one, before).reshape(after))  # type: ignore[arg-type]


@dataclass(frozen=True)
class ScaledKernel:
    """A kernel of any type times float64 factors that broadcast along it; multiplied when rounded."""

    kernel: np.ndarray
    factors: tuple[np.ndarray, ...] = ()

    def times(self, factor: np.ndarray) -> ScaledKernel:
        return ScaledKernel(self.kernel, (*self.factors, factor))

    def round_to(self, dtype: str) -> np.ndarray:
        """The product in float64, rounded once, in blocks: no float64 kernel is ever held whole."""
        result = np.empty(self.kernel.shape, dtype)
        rows = max(1, BLOCK * len(result) // max(1, result.size))
        for start in range(0, len(result), rows):
            block = slice(start, start + rows)
            product = self.kernel[block].astype("float64")
            for factor in self.factors:
                product *= factor[block] if len(factor) > 1 else factor
            result[block] = round_to(product, dtype)
        return result


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


def _squeeze_constant_axes(array: np.ndarray) -> np.ndarray:
    for axis, size in enumerate(array.shape):
        if size > 1 and (array == (first := array.take([0], axis))).all():
            array = first
    return array
