"""Layouts: the order of the axes of a transposed tensor.

A layout is a tuple. `layout[i]` is the axis of the original tensor that is axis i of the transposed one.
The batch axis stays first. `(0, 2, 3, 1)` is a channels-first image held channels last.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

Layout = tuple[int, ...]
Shape = tuple[int | None, ...]


def natural(rank: int) -> Layout:
    """The layout of a tensor that is not transposed."""
    return tuple(range(rank))


def channels_last(rank: int, channel: int = 1) -> Layout:
    """The layout in which the axis `channel` comes last."""
    return (*(axis for axis in range(rank) if axis != channel), channel)


def permutation(held: Layout, wanted: Layout) -> tuple[int, ...]:
    """The axes by which to transpose a tensor from the layout `held` to the layout `wanted`."""
    return tuple(held.index(axis) for axis in wanted)


def transposed(per_axis: Sequence[Any], layout: Layout) -> tuple[Any, ...]:
    """A sequence with an element for each axis of the original tensor, in the order of the layout."""
    return tuple(per_axis[axis] for axis in layout)


def original(per_axis: Sequence[Any], layout: Layout) -> tuple[Any, ...]:
    """The inverse of `transposed`."""
    return tuple(per_axis[layout.index(axis)] for axis in range(len(layout)))


def moved(axis: int, layout: Layout) -> int:
    """The index of an axis of the original tensor in the layout; -1 if it is the last."""
    rank = len(layout)
    place = layout.index(axis % rank)
    return -1 if place == rank - 1 else place


def reads_alike(shape: Shape, layout: Layout) -> bool:
    """Whether the elements of a sample are in the same order in memory: only axes of size 1 have moved.

    Args:
        shape: that of the original tensor.
    """
    long = [axis for axis in layout if axis and shape[axis] != 1]
    return long == sorted(long)
