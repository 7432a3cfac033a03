"""Affine maps of one sample: what a batch norm is at inference, and what moves through the graph."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

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
    """The map on a sample of shape `after`, where a batch of samples of shape `before` keeps its order.

    The last axes have to agree, from the first one on along which the map varies. An element's place
    among them is its place in the batch modulo their sizes' product, whatever becomes of other axes.

    Raises:
        CannotFoldError: it varies, and the last axes are unknown or do not agree.
    """
    first = min(affine.axes, default=len(before))
    for start in range(first, -1, -1):
        for end in range(len(after), -1, -1):
            size = _product(before[start:])
            if size is not None and size == _product(after[end:]):
                return affine.map(partial(_reshape_last, before[start:], after[end:], len(after)))
    raise CannotFoldError("a reshape on the way puts other values together, or its sizes are not known")


def _reshape_last(
    before: Sequence[Any], after: Sequence[Any], rank: int, array: np.ndarray
) -> np.ndarray:
    """An array that varies along the last axes, which are `before`, reshaped to `after` behind ones."""
    last = array.reshape(array.shape[array.ndim - len(before) :])
    return np.broadcast_to(last, before).reshape((*[1] * (rank - len(after)), *after))


def _product(sizes: Sequence[int | None]) -> int | None:
    known = [size for size in sizes if size is not None]
    return math.prod(known) if len(known) == len(sizes) else None


def _squeeze_constant_axes(array: np.ndarray) -> np.ndarray:
    for axis, size in enumerate(array.shape):
        if size > 1 and (array == (first := array.take([0], axis))).all():
            array = first
    return array
