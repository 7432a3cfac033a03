"""What an affine map moves across: operations that commute with it, exactly.

`backward` returns alternatives, each a list of input maps that together give the output map; `None`
means identity. `forward` computes the output map from the input maps.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from .affine import Affine, CannotFoldError, reshaped
from .graph import Call

Maps = Sequence[Affine | None]
Condition = Callable[[Call, Affine], None]


def check_no_offset(layer: Any, affine: Affine) -> None:
    if affine.offset.any():
        raise CannotFoldError(
            f"an offset does not pass {layer.name!r} ({type(layer).__name__}), only a scale does"
        )


def check_not_negative(layer: Any, affine: Affine) -> None:
    if (affine.scale < 0).any():
        raise CannotFoldError(
            f"a negative scale does not pass {layer.name!r} ({type(layer).__name__}), and some "
            "channels have one: their gamma is negative"
        )


def no_offset(call: Call, affine: Affine) -> None:
    check_no_offset(call.layer, affine)


def not_negative(call: Call, affine: Affine) -> None:
    check_not_negative(call.layer, affine)


def per_channel(call: Call, affine: Affine) -> None:
    """Refuse a map that varies along the axes that a pooling or resizing layer mixes."""
    first = getattr(call.layer, "data_format", None) == "channels_first"
    channel = 0 if first else affine.rank - 1
    if others := [axis + 1 for axis in affine.axes if axis != channel]:
        raise CannotFoldError(
            f"{call.layer.name!r} ({type(call.layer).__name__}) mixes what lies along axis "
            f"{', '.join(map(str, others))}, where the batch norm varies; normalise channels only"
        )


def not_in_training(call: Call, affine: Affine) -> None:
    if call.training:
        raise CannotFoldError(
            f"{call.layer.name!r} is called with training=True and drops values at random"
        )


def interpolated(call: Call, affine: Affine) -> None:
    """Refuse what may weigh its samples by numbers that do not sum to 1."""
    method = getattr(call.layer, "interpolation", "nearest")
    if method not in ("nearest", "bilinear"):
        raise CannotFoldError(
            f"{call.layer.name!r} interpolates by {method!r}; nearest and bilinear can be crossed"
        )


class PropagationRule(ABC):
    """The rule of one class of operations."""

    @abstractmethod
    def backward(self, call: Call, affine: Affine) -> list[Maps]:
        """Maps of the inputs that together map the output by `affine`; or CannotFoldError."""

    @abstractmethod
    def forward(self, call: Call, maps: Maps) -> Affine:
        """The map of the output where the inputs are mapped; or CannotFoldError."""


class PassThrough(PropagationRule):
    """The same map on both sides of one tensor, under conditions."""

    def __init__(self, *conditions: Condition) -> None:
        self.conditions = conditions

    def backward(self, call: Call, affine: Affine) -> list[Maps]:
        # As Identity may be; which of its outputs belongs to which is not known.
        if len(call.inputs) > 1:
            raise CannotFoldError(
                f"{call.layer.name!r} ({type(call.layer).__name__}) is called on several tensors at "
                "once; call it on each"
            )
        for condition in self.conditions:
            condition(call, affine)
        return [[affine]]

    def forward(self, call: Call, maps: Maps) -> Affine:
        return self.backward(call, maps[0])[0][0]  # type: ignore[arg-type, return-value]


@dataclass(frozen=True)
class ReshapeRule(PropagationRule):
    """The elements of a sample in another order: Flatten, Reshape, Permute.

    Attributes:
        order: the order in which the operation reads the axes of a sample.
    """

    order: Callable[[Call], tuple[int, ...]]

    def backward(self, call: Call, affine: Affine) -> list[Maps]:
        order, before = self.order(call), call.inputs[0].shape[1:]
        ordered = reshaped(affine, call.outputs[0].shape[1:], [before[axis] for axis in order])
        return [[ordered.map(lambda one: one.transpose(np.argsort(order)))]]

    def forward(self, call: Call, maps: Maps) -> Affine:
        order, before = self.order(call), call.inputs[0].shape[1:]
        ordered = maps[0].map(lambda one: one.transpose(order))  # type: ignore[union-attr]
        return reshaped(ordered, [before[axis] for axis in order], call.outputs[0].shape[1:])


def in_order(call: Call) -> tuple[int, ...]:
    return tuple(range(len(call.inputs[0].shape) - 1))


def channels_last(call: Call) -> tuple[int, ...]:
    """Flatten moves the channels to the end first."""
    axes = in_order(call)
    first = call.layer.data_format == "channels_first" and len(axes) > 1
    return (*axes[1:], 0) if first else axes


class GlobalPoolRule(PropagationRule):
    """Whole images pooled to one value a channel."""

    def __init__(self, *conditions: Condition) -> None:
        self.conditions = conditions

    def backward(self, call: Call, affine: Affine) -> list[Maps]:
        rank = len(call.inputs[0].shape) - 1
        if not call.layer.keepdims:
            first = call.layer.data_format == "channels_first"
            shape = (-1, *[1] * (rank - 1)) if first else (*[1] * (rank - 1), -1)
            affine = affine.map(lambda one: one.reshape(shape))
        for condition in (per_channel, *self.conditions):
            condition(call, affine)
        return [[affine]]

    def forward(self, call: Call, maps: Maps) -> Affine:
        affine: Affine = maps[0]  # type: ignore[assignment]
        for condition in (per_channel, *self.conditions):
            condition(call, affine)
        return affine if call.layer.keepdims else affine.map(lambda one: one.reshape(-1))


class RepeatVectorRule(PropagationRule):
    """RepeatVector: a new axis along which nothing varies."""

    def backward(self, call: Call, affine: Affine) -> list[Maps]:
        if 0 in affine.axes:
            raise CannotFoldError(f"it varies along the axis that {call.layer.name!r} repeats")
        return [[affine.map(lambda one: one[0])]]

    def forward(self, call: Call, maps: Maps) -> Affine:
        return maps[0].map(lambda one: one[np.newaxis])  # type: ignore[union-attr]


class TimeStepRule(PropagationRule):
    """A step taken out of a sequence, or put back: the axis of time, along which nothing may vary."""

    def backward(self, call: Call, affine: Affine) -> list[Maps]:
        return [[_with_time(affine) if call.layer.into else _without_time(call, affine)]]

    def forward(self, call: Call, maps: Maps) -> Affine:
        affine: Affine = maps[0]  # type: ignore[assignment]
        return _without_time(call, affine) if call.layer.into else _with_time(affine)


def _with_time(affine: Affine) -> Affine:
    return affine.map(lambda one: one[np.newaxis])


def _without_time(call: Call, affine: Affine) -> Affine:
    if 0 in affine.axes:
        raise CannotFoldError(f"it varies along the steps that {call.layer.name!r} takes one by one")
    return affine.map(lambda one: one[0])
