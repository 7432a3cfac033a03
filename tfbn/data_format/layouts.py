"""In which order a transposed tensor has its axes.

A layout is a tuple: `layout[i]` is the axis that axis i of the tensor was in the original model. The
batch axis stays first. `(0, 2, 3, 1)` is a channels-first image held channels last.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

Layout = tuple[int, ...]
Shape = tuple[int | None, ...]


def natural(rank: int) -> Layout:
    """The layout of a tensor that is as it was."""
    return tuple(range(rank))


def channels_last(rank: int, channel: int = 1) -> Layout:
    """The layout in which the axis `channel` has moved behind all others."""
    return (*(axis for axis in range(rank) if axis != channel), channel)


def permutation(held: Layout, wanted: Layout) -> tuple[int, ...]:
    """The axes by which to transpose a tensor that is held in one layout and wanted in another."""
    return tuple(held.index(axis) for axis in wanted)


def transposed(per_axis: Sequence[Any], layout: Layout) -> tuple[Any, ...]:
    """What belongs to each axis of the original tensor, in the order of the layout."""
    return tuple(per_axis[axis] for axis in layout)


def original(per_axis: Sequence[Any], layout: Layout) -> tuple[Any, ...]:
    """The inverse of `transposed`."""
    return tuple(per_axis[layout.index(axis)] for axis in range(len(layout)))


def moved(axis: int, layout: Layout) -> int:
    """Where an axis of the original tensor is now; -1 if that is the last place."""
    rank = len(layout)
    place = layout.index(axis % rank)
    return -1 if place == rank - 1 else place


def reads_alike(shape: Shape, layout: Layout) -> bool:
    """Whether the elements of a sample come in the same order: only axes of size 1 have moved.

    Args:
        shape: of the original tensor.
    """
    long = [axis for axis in layout if axis and shape[axis] != 1]
    return long == sorted(long)
