"""Channel axes: which axes of a tensor keep statistics of their own, and how those line up with it."""

from __future__ import annotations

from collections.abc import Sequence

Axis = int | Sequence[int]


def channel_axes(axis: Axis, rank: int) -> tuple[int, ...]:
    """The channel axes of a tensor of `rank`, non-negative and ascending.

    Raises:
        ValueError: an axis lies outside the tensor, is named twice, or none is named.
    """
    if rank == 0:
        raise ValueError("A scalar has no channel axis. Pass a tensor with at least one axis.")
    axes = tuple(axis) if isinstance(axis, Sequence) else (axis,)
    for one in axes:
        if not -rank <= one < rank:
            raise ValueError(
                f"axis {one} is outside an input of rank {rank} (received axis={axis!r}). "
                f"Choose it between {-rank} and {rank - 1}."
            )
    canonical = tuple(sorted(one % rank for one in axes))
    if not canonical or len(set(canonical)) < len(canonical):
        raise ValueError(
            f"axis must name at least one axis and none twice, received axis={axis!r} "
            f"for an input of rank {rank}. Name each channel axis once."
        )
    return canonical


def reduction_axes(axis: Axis, rank: int) -> tuple[int, ...]:
    """The other axes of a tensor of `rank`: those that statistics are taken over."""
    kept = channel_axes(axis, rank)
    return tuple(one for one in range(rank) if one not in kept)


def per_channel_shape(shape: Sequence[int], axis: Axis) -> tuple[int, ...]:
    """The shape in which one number for each channel broadcasts along an array of `shape`.

    Several axes count the channels together, the last one fastest.
    """
    axes = channel_axes(axis, len(shape))
    return tuple(size if own in axes else 1 for own, size in enumerate(shape))


def bias_may_be_misplaced(shape: Sequence[int | None]) -> bool:
    """Whether Keras may add the bias of a channels-first convolution along the last axis of its output.

    Keras guesses a bias's axis by its length, and takes the last one where that is as long as the
    channels, or may be.
    """
    return shape[-1] is None or shape[-1] == shape[1]


def bias_is_misplaced(shape: Sequence[int | None]) -> bool:
    """Whether Keras adds it there for certain: more than one number, and the last axis is as long."""
    return len(shape) > 2 and 1 != shape[1] == shape[-1]
