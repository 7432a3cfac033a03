"""Channel axes: those that keep statistics of their own, the ones reduced over, and broadcasting."""

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
    for number in axes:
        if not -rank <= number < rank:
            raise ValueError(
                f"axis {number} is outside an input of rank {rank} (received axis={axis!r}). "
                f"Choose it between {-rank} and {rank - 1}."
            )
    canonical = tuple(sorted(number % rank for number in axes))
    if not canonical or len(set(canonical)) < len(canonical):
        raise ValueError(
            f"axis must name at least one axis and none twice, received axis={axis!r} "
            f"for an input of rank {rank}. Name each channel axis once."
        )
    return canonical


def reduction_axes(axis: Axis, rank: int) -> tuple[int, ...]:
    """The axes of a tensor of `rank` that statistics are taken over: all but the channel axes."""
    kept = channel_axes(axis, rank)
    return tuple(number for number in range(rank) if number not in kept)


def per_channel_shape(shape: Sequence[int], axis: Axis) -> tuple[int, ...]:
    """The shape in which one number for each channel broadcasts along an array of `shape`.

    Several axes count the channels together, the last one fastest.
    """
    axes = channel_axes(axis, len(shape))
    return tuple(size if number in axes else 1 for number, size in enumerate(shape))


def known_shape(sizes: Sequence[int | None]) -> list[int] | None:
    """A shape as `tf.reshape` takes it, which finds out one size; `None` where it cannot.

    In a graph that takes an operation less than `tf.shape`, and a batch of known shape keeps it.
    """
    if None in sizes and (sizes.count(None) > 1 or 0 in sizes):
        return None
    return [-1 if size is None else size for size in sizes]


def bias_may_be_misplaced(shape: Sequence[int | None]) -> bool:
    """Whether Keras may add the bias of a channels-first convolution along the last axis of its output.

    Keras recognises the axis of a bias by its length. It takes the last axis where that is as long as
    the channel axis; where the last axis is of unknown size, it may turn out to be so.
    """
    return shape[-1] is None or shape[-1] == shape[1]


def bias_is_misplaced(shape: Sequence[int | None]) -> bool:
    """Whether Keras certainly does: there are several channels, and the last axis is as long."""
    return len(shape) > 2 and 1 != shape[1] == shape[-1]
