"""What takes affine maps up, and what is still to be taken up."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from .affine import Affine, CannotFoldError
from .graph import Call


@dataclass(frozen=True)
class PendingFold:
    """What an operation is still to take up: a map of its input, and a map of its output."""

    input_map: Affine | None = None
    output_map: Affine | None = None

    def with_input_map(self, new: Affine) -> PendingFold:
        return PendingFold(self.input_map.compose(new) if self.input_map else new, self.output_map)

    def with_output_map(self, new: Affine) -> PendingFold:
        return PendingFold(self.input_map, new.compose(self.output_map) if self.output_map else new)

    def applied_to(self, own: Affine) -> Affine:
        """What an operation becomes that is itself a map. All are flat; a size of 1 broadcasts."""
        whole = own.compose(self.input_map) if self.input_map else own
        return self.output_map.compose(whole) if self.output_map else whole


class FoldTarget(ABC):
    """How operations of one class take maps up. It answers two questions, and changes nothing.

    May a call's output be replaced by `scale · output + offset` (`output`)? May the call be given `x`
    where it was given `scale · x + offset` (`input`)? Both return the map as one number per channel,
    unless the class says otherwise, or raise `CannotFoldError`.
    """

    # Whether the target is itself a batch norm. Batch norms are merged only when no other move is left.
    merges = False

    @abstractmethod
    def output(self, call: Call, affine: Affine) -> Affine:
        """The map of the call's output in the operation's form, or CannotFoldError."""

    @abstractmethod
    def input(self, call: Call, affine: Affine) -> Affine:
        """The map of the call's input in the operation's form, or CannotFoldError."""

    def inputs(self, call: Call, maps: Sequence[Affine | None]) -> Affine:
        """The maps of all that the call is given, likewise: of its first input alone, as a rule."""
        first, *others = maps
        if first is None or any(affine is not None for affine in others):  # as of the states of an LSTM
            raise CannotFoldError(f"{call.op} can take it up for its first input alone")
        return self.input(call, first)


def per_channel_map(
    name: str, affine: Affine, axes: Sequence[int], shape: Sequence[int | None]
) -> Affine:
    """The map of a tensor of `shape`, flat, along its channel `axes`.

    Args:
        name: of the operation, for messages.

    Raises:
        CannotFoldError: it varies along another axis, or a size is not known.
    """
    others = [axis + 1 for axis in affine.axes if axis + 1 not in axes]
    if others:
        raise CannotFoldError(
            f"it varies along axis {_listed(others)}, which is not the channel axis {_listed(axes)} of "
            f"{name!r}; normalise that one"
        )
    sizes = [shape[axis] for axis in axes]
    if affine.axes and None in sizes:
        raise CannotFoldError(f"the size of axis {_listed(axes)} at {name!r} is not known")
    full = [size if axis in axes and size else 1 for axis, size in enumerate(shape)][1:]
    return Affine(*(np.broadcast_to(array, full).reshape(-1) for array in (affine.scale, affine.offset)))


def _listed(axes: Sequence[int]) -> str:
    return ", ".join(map(str, axes))
