"""What an affine map moves across: operations of one tensor that commute with it, exactly.

`backward` returns alternatives, each a list of input maps that together give the output map; `None`
means identity. `forward` computes the output map from the input maps. A rule reads nothing of a call but
its tensors, constants and attributes.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from .affine import Affine, CannotFoldError, reshaped
from .graph import Call, Op

Maps = Sequence[Affine | None]
Condition = Callable[[Call, Affine], None]


def check_no_offset(op: Op, affine: Affine) -> None:
    if affine.offset.any():
        raise CannotFoldError(f"an offset does not pass {op} ({op.kind}), only a scale does")


def check_not_negative(op: Op, affine: Affine) -> None:
    if (affine.scale < 0).any():
        raise CannotFoldError(
            f"a negative scale does not pass {op} ({op.kind}), and some channels have one: their gamma "
            "is negative"
        )


def no_offset(call: Call, affine: Affine) -> None:
    check_no_offset(call.op, affine)


def not_negative(call: Call, affine: Affine) -> None:
    check_not_negative(call.op, affine)


def per_channel(call: Call, affine: Affine) -> None:
    """Refuse a map that varies along the axes that a pooling or resizing layer mixes."""
    channel = 0 if call.attributes.get("data_format") == "channels_first" else affine.rank - 1
    if others := [axis + 1 for axis in affine.axes if axis != channel]:
        raise CannotFoldError(
            f"{call.op} ({call.op.kind}) mixes what lies along axis {', '.join(map(str, others))}, "
            "where the batch norm varies; normalise channels only"
        )


def not_in_training(call: Call, affine: Affine) -> None:
    if call.attributes.get("training"):
        raise CannotFoldError(f"{call.op} is called with training=True and drops values at random")


def same_type(call: Call, affine: Affine) -> None:
    before, after = call.inputs[0].dtype, call.outputs[0].dtype
    if before != after:
        raise CannotFoldError(f"{call.op} makes {after} of {before}")


def interpolated(call: Call, affine: Affine) -> None:
    """Refuse what may weigh its samples by numbers that do not sum to 1."""
    method = call.attributes.get("interpolation", "nearest")
    if method not in ("nearest", "bilinear"):
        raise CannotFoldError(
            f"{call.op} interpolates by {method!r}; nearest and bilinear can be crossed"
        )
    if call.attributes.get("antialias") or call.attributes.get("pad_to_aspect_ratio"):
        raise CannotFoldError(
            f"{call.op} does more than to interpolate (antialias, pad_to_aspect_ratio)"
        )


class PropagationRule(ABC):
    """The rule of one class of operations."""

    @abstractmethod
    def backward(self, call: Call, affine: Affine) -> list[Maps]:
        """Maps of the inputs that together map the output by `affine`; or CannotFoldError."""

    @abstractmethod
    def forward(self, call: Call, maps: Maps) -> Affine:
        """The map of the output where the inputs are mapped; or CannotFoldError."""

    def takes_nothing(self, call: Call, affine: Affine) -> bool:
        """Whether the output stays as it is where the one input is mapped: it is another part of it."""
        return False


class UnaryRule(PropagationRule):
    """The rule of a class of operations of one tensor."""

    @abstractmethod
    def map_backward(self, call: Call, output_map: Affine) -> Affine:
        """The map of the input that maps the output by `output_map`; or CannotFoldError."""

    @abstractmethod
    def map_forward(self, call: Call, input_map: Affine) -> Affine:
        """The map of the output where the input is mapped by `input_map`; or CannotFoldError."""

    def backward(self, call: Call, affine: Affine) -> list[Maps]:
        self._check_unary(call)
        return [[self.map_backward(call, affine)]]

    def forward(self, call: Call, maps: Maps) -> Affine:
        self._check_unary(call)
        (input_map,) = filter(None, maps)
        return self.map_forward(call, input_map)

    def _check_unary(self, call: Call) -> None:
        # As Identity may be; which of its outputs belongs to which is not known.
        if len(call.inputs) > 1:
            raise CannotFoldError(
                f"{call.op} ({call.op.kind}) is called on several tensors at once; call it on each"
            )


class PassThrough(UnaryRule):
    """The same map on both sides, under conditions."""

    def __init__(self, *conditions: Condition) -> None:
        self.conditions = conditions

    def map_backward(self, call: Call, output_map: Affine) -> Affine:
        for condition in self.conditions:
            condition(call, output_map)
        return output_map

    def map_forward(self, call: Call, input_map: Affine) -> Affine:
        return self.map_backward(call, input_map)


class NegativeRule(UnaryRule):
    """The offset changes its sign."""

    def map_backward(self, call: Call, output_map: Affine) -> Affine:
        return Affine.of(output_map.scale, -output_map.offset)

    def map_forward(self, call: Call, input_map: Affine) -> Affine:
        return self.map_backward(call, input_map)


@dataclass(frozen=True)
class PermuteRule(UnaryRule):
    """The axes of a sample in another order.

    Attributes:
        order: which axis of the input each axis of the output is, the batch axis included.
    """

    order: Callable[[Call], Sequence[int]]

    def map_backward(self, call: Call, output_map: Affine) -> Affine:
        return output_map.map(lambda array: array.transpose(np.argsort(self._order(call))))

    def map_forward(self, call: Call, input_map: Affine) -> Affine:
        return input_map.map(lambda array: array.transpose(self._order(call)))

    def _order(self, call: Call) -> list[int]:
        rank = len(call.inputs[0].shape)
        first, *others = (axis % rank for axis in self.order(call))
        if first != 0:
            raise CannotFoldError(f"{call.op} takes the samples' axis from the first place")
        return [axis - 1 for axis in others]


def permuted(call: Call) -> Sequence[int]:
    return (0, *call.attributes["dims"])


def transposed(call: Call) -> Sequence[int]:
    """The axes of `transpose`; without any, in reverse."""
    return call.attributes["axes"] or _numbered(call).shape[::-1]


def swapped(call: Call) -> Sequence[int]:
    return np.swapaxes(_numbered(call), call.attributes["axis1"], call.attributes["axis2"]).shape


def moved(call: Call) -> Sequence[int]:
    return np.moveaxis(_numbered(call), call.attributes["source"], call.attributes["destination"]).shape


def _numbered(call: Call) -> np.ndarray:
    """An array whose axes are as long as their numbers are, as many as the input has."""
    return np.empty(range(len(call.inputs[0].shape)))


@dataclass(frozen=True)
class ReshapeRule(UnaryRule):
    """The elements of a sample in another shape: Flatten, Reshape.

    Attributes:
        order: the order in which the operation reads the axes of a sample.
    """

    order: Callable[[Call], tuple[int, ...]]

    def map_backward(self, call: Call, output_map: Affine) -> Affine:
        order, before = self.order(call), call.inputs[0].shape[1:]
        ordered = reshaped(output_map, call.outputs[0].shape[1:], [before[axis] for axis in order])
        return ordered.map(lambda array: array.transpose(np.argsort(order)))

    def map_forward(self, call: Call, input_map: Affine) -> Affine:
        order, before = self.order(call), call.inputs[0].shape[1:]
        ordered = input_map.map(lambda array: array.transpose(order))
        return reshaped(ordered, [before[axis] for axis in order], call.outputs[0].shape[1:])


def in_order(call: Call) -> tuple[int, ...]:
    return tuple(range(len(call.inputs[0].shape) - 1))


def channels_last(call: Call) -> tuple[int, ...]:
    """Flatten moves the channels to the end first."""
    axes = in_order(call)
    first = call.attributes["data_format"] == "channels_first" and len(axes) > 1
    return (*axes[1:], 0) if first else axes


class GlobalPoolRule(UnaryRule):
    """Whole images pooled to one value a channel."""

    def __init__(self, *conditions: Condition) -> None:
        self.conditions = (per_channel, *conditions)

    def map_backward(self, call: Call, output_map: Affine) -> Affine:
        rank = len(call.inputs[0].shape) - 1
        if not call.attributes["keepdims"]:
            first = call.attributes["data_format"] == "channels_first"
            shape = (-1, *[1] * (rank - 1)) if first else (*[1] * (rank - 1), -1)
            output_map = output_map.map(lambda array: array.reshape(shape))
        for condition in self.conditions:
            condition(call, output_map)
        return output_map

    def map_forward(self, call: Call, input_map: Affine) -> Affine:
        for condition in self.conditions:
            condition(call, input_map)
        if call.attributes["keepdims"]:
            return input_map
        return input_map.map(lambda array: array.reshape(-1))


class RepeatVectorRule(UnaryRule):
    """RepeatVector: a new axis along which nothing varies."""

    def map_backward(self, call: Call, output_map: Affine) -> Affine:
        return _without_first_axis(output_map, f"it varies along the axis that {call.op} repeats")

    def map_forward(self, call: Call, input_map: Affine) -> Affine:
        return _with_first_axis(input_map)


class TimeStepRule(UnaryRule):
    """A step taken out of a sequence (`into`), or put back: along the axis of time nothing may vary."""

    def map_backward(self, call: Call, output_map: Affine) -> Affine:
        into = call.attributes["into"]
        return _with_first_axis(output_map) if into else self._without_time(call, output_map)

    def map_forward(self, call: Call, input_map: Affine) -> Affine:
        into = call.attributes["into"]
        return self._without_time(call, input_map) if into else _with_first_axis(input_map)

    def _without_time(self, call: Call, affine: Affine) -> Affine:
        return _without_first_axis(affine, f"it varies along the steps that {call.op} takes one by one")


def _with_first_axis(affine: Affine) -> Affine:
    return affine.map(lambda array: array[np.newaxis])


def _without_first_axis(affine: Affine, refusal: str) -> Affine:
    if 0 in affine.axes:
        raise CannotFoldError(refusal)
    return affine.map(lambda array: array[0])
