"""What an affine map moves across: operations that commute with it, exactly.

A rule says how a map of the output becomes maps of the inputs (`backward`, one possibility or several,
with `None` for an input left alone), and how maps of the inputs become one of the output (`forward`).
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from .affine import Affine, StaysError, reshaped
from .graph import Call, Tensor

Maps = Sequence[Affine | None]
Condition = Callable[[Call, Affine], None]


def check_no_offset(layer: Any, affine: Affine) -> None:
    if affine.offset.any():
        raise StaysError(
            f"an offset does not pass {layer.name!r} ({type(layer).__name__}), only a scale does"
        )


def check_not_negative(layer: Any, affine: Affine) -> None:
    if (affine.scale < 0).any():
        raise StaysError(
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
        raise StaysError(
            f"{call.layer.name!r} ({type(call.layer).__name__}) mixes what lies along axis "
            f"{', '.join(map(str, others))}, where the batch norm varies; normalise channels only"
        )


def not_in_training(call: Call, affine: Affine) -> None:
    if call.training:
        raise StaysError(f"{call.layer.name!r} is called with training=True and drops values at random")


def interpolated(call: Call, affine: Affine) -> None:
    """Refuse what may weigh its samples by numbers that do not sum to 1."""
    method = getattr(call.layer, "interpolation", "nearest")
    if method not in ("nearest", "bilinear"):
        raise StaysError(
            f"{call.layer.name!r} interpolates by {method!r}; nearest and bilinear can be crossed"
        )


class Crossing(ABC):
    """The rule of one class of operations."""

    @abstractmethod
    def backward(self, call: Call, affine: Affine) -> list[Maps]:
        """Maps of the inputs that together map the output by `affine`; or StaysError."""

    @abstractmethod
    def forward(self, call: Call, maps: Maps) -> Affine:
        """The map of the output where the inputs are mapped; or StaysError."""


class Unchanged(Crossing):
    """The same map on both sides, under conditions."""

    def __init__(self, *conditions: Condition) -> None:
        self.conditions = conditions

    def backward(self, call: Call, affine: Affine) -> list[Maps]:
        for condition in self.conditions:
            condition(call, affine)
        return [[affine]]

    def forward(self, call: Call, maps: Maps) -> Affine:
        return self.backward(call, maps[0])[0][0]  # type: ignore[arg-type, return-value]


@dataclass(frozen=True)
class Rearranged(Crossing):
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


class Pooled(Crossing):
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


class Repeated(Crossing):
    """RepeatVector: a new axis along which nothing varies."""

    def backward(self, call: Call, affine: Affine) -> list[Maps]:
        if 0 in affine.axes:
            raise StaysError(f"it varies along the axis that {call.layer.name!r} repeats")
        return [[affine.map(lambda one: one[0])]]

    def forward(self, call: Call, maps: Maps) -> Affine:
        return maps[0].map(lambda one: one[np.newaxis])  # type: ignore[union-attr]


def whole(call: Call, maps: Maps) -> list[Affine]:
    """The maps, with the identity for inputs left alone; all arguments are tensors of one rank."""
    if len(call.arguments) > len(call.inputs):
        raise StaysError(f"{call.layer.name!r} ({type(call.layer).__name__}) takes a constant")
    ranks = {len(tensor.shape) for tensor in call.inputs}
    if len(ranks) > 1:
        raise StaysError(f"the inputs of {call.layer.name!r} have different ranks")
    (rank,) = ranks
    return [one or Affine.identity(rank - 1) for one in maps]


def same(call: Call, affines: Sequence[Affine], what: str = "scale") -> np.ndarray:
    """The scale (or offset) that all inputs have."""
    arrays = [getattr(one, what) for one in affines]
    if not all(np.array_equal(one, arrays[0]) for one in arrays):
        raise StaysError(f"it would {what} some inputs of {call.layer.name!r} and not others alike")
    return arrays[0]


class Alike(Crossing):
    """Inputs that must all have the same map: Average, and Maximum and Minimum under a condition."""

    def __init__(self, *conditions: Condition) -> None:
        self.conditions = conditions

    def backward(self, call: Call, affine: Affine) -> list[Maps]:
        whole(call, [affine] * len(call.inputs))
        for condition in self.conditions:
            condition(call, affine)
        return [[affine] * len(call.inputs)]

    def forward(self, call: Call, maps: Maps) -> Affine:
        affines = whole(call, maps)
        same(call, affines), same(call, affines, "offset")
        for condition in self.conditions:
            condition(call, affines[0])
        return affines[0]


class Sum(Crossing):
    """Add and Subtract: the scale into every input, the offset into any one."""

    def __init__(self, *signs: int) -> None:
        self.signs = signs

    def backward(self, call: Call, affine: Affine) -> list[Maps]:
        signs = self._signs(call)
        scale_only = whole(call, [affine.scaled_only()] * len(signs))
        if not affine.offset.any():
            return [scale_only]
        return [
            [*scale_only[:one], Affine(affine.scale, sign * affine.offset), *scale_only[one + 1 :]]
            for one, sign in enumerate(signs)
        ]

    def forward(self, call: Call, maps: Maps) -> Affine:
        affines = whole(call, maps)
        signed = zip(self._signs(call), affines, strict=True)
        offsets = [sign * one.offset for sign, one in signed]
        return Affine.of(same(call, affines), sum(offsets[1:], offsets[0]))

    def _signs(self, call: Call) -> Sequence[int]:
        return self.signs or [1] * len(call.inputs)


class Product(Crossing):
    """Multiply: a scale without an offset, into any one input."""

    def backward(self, call: Call, affine: Affine) -> list[Maps]:
        no_offset(call, affine)
        count = len(call.inputs)
        whole(call, [None] * count)
        return [[affine if one == chosen else None for one in range(count)] for chosen in range(count)]

    def forward(self, call: Call, maps: Maps) -> Affine:
        affines = whole(call, maps)
        for one in affines:
            no_offset(call, one)
        scale = math.prod((one.scale for one in affines[1:]), start=affines[0].scale)
        return Affine.of(scale, affines[0].offset)


class Slices(Crossing):
    """Concatenate: each input its slice."""

    def backward(self, call: Call, affine: Affine) -> list[Maps]:
        axis, sizes = self._layout(call)
        if axis not in affine.axes:
            return [[affine] * len(sizes)]
        if None in sizes:
            raise StaysError(f"the sizes that {call.layer.name!r} puts together are not known")
        ends: Any = np.cumsum(sizes)  # type: ignore[arg-type]

        def slices(array: np.ndarray) -> list[np.ndarray]:
            if array.shape[axis] == 1:
                return [array] * len(sizes)
            return np.split(array, ends[:-1], axis)

        pairs = zip(slices(affine.scale), slices(affine.offset), strict=True)
        return [[Affine.of(*pair) for pair in pairs]]

    def forward(self, call: Call, maps: Maps) -> Affine:
        affines = whole(call, maps)
        axis, sizes = self._layout(call)
        if all(one.equals(affines[0]) and axis not in one.axes for one in affines):
            return affines[0]
        if None in sizes:
            raise StaysError(f"the sizes that {call.layer.name!r} puts together are not known")

        def together(arrays: list[np.ndarray]) -> np.ndarray:
            others = [(*one.shape[:axis], 1, *one.shape[axis + 1 :]) for one in arrays]
            shape: list[Any] = list(np.broadcast_shapes(*others))
            return np.concatenate(
                [
                    np.broadcast_to(one, shape[:axis] + [size] + shape[axis + 1 :])  # noqa: RUF005
                    for one, size in zip(arrays, sizes, strict=True)
                ],
                axis,
            )

        return Affine.of(
            together([one.scale for one in affines]), together([one.offset for one in affines])
        )

    def _layout(self, call: Call) -> tuple[int, list[int | None]]:
        """The axis of a sample along which the inputs are put together, and their sizes along it."""
        whole(call, [None] * len(call.inputs))
        axis = call.layer.axis % len(call.inputs[0].shape)
        if axis == 0:
            raise StaysError(f"{call.layer.name!r} puts samples together, not channels")
        return axis - 1, [tensor.shape[axis] for tensor in call.inputs]


@dataclass(frozen=True)
class Constants(Crossing):
    """`factor · x + term` with constants, or `tensors`' rule where both arguments are tensors.

    Attributes:
        constants: factor and term, by whether the tensor comes first, and the other argument.
        tensors: the rule for two tensors.
    """

    constants: Callable[[bool, np.ndarray], tuple[Any, Any]]
    tensors: Crossing | None = None

    def backward(self, call: Call, affine: Affine) -> list[Maps]:
        if self._both(call):
            return self.tensors.backward(call, affine)  # type: ignore[union-attr]
        factor, term = self._constants(call, affine.rank)
        if not np.all(factor):
            raise StaysError(f"{call.layer.name!r} multiplies by 0")
        return [[Affine.of(affine.scale, (affine.scale * term + affine.offset - term) / factor)]]

    def forward(self, call: Call, maps: Maps) -> Affine:
        if self._both(call):
            return self.tensors.forward(call, maps)  # type: ignore[union-attr]
        affine: Affine = maps[0]  # type: ignore[assignment]
        factor, term = self._constants(call, affine.rank)
        return Affine.of(affine.scale, factor * affine.offset + term - affine.scale * term)

    def _both(self, call: Call) -> bool:
        if len(call.inputs) == 1:
            return False
        if self.tensors is None:
            raise StaysError(f"{call.layer.name!r} ({type(call.layer).__name__}) takes two tensors")
        return True

    def _constants(self, call: Call, rank: int) -> tuple[np.ndarray, np.ndarray]:
        first = isinstance(call.arguments[0], Tensor)
        other = np.asarray(call.arguments[first], "float64")
        if other.ndim > rank:
            raise StaysError(f"the constant of {call.layer.name!r} has a batch axis of its own")
        other = other.reshape((1,) * (rank - other.ndim) + other.shape)
        factor, term = self.constants(first, other)
        shape = call.inputs[0].shape[1:]
        if any(size not in (1, own) for size, own in zip(other.shape, shape, strict=True)):
            raise StaysError(f"the constant of {call.layer.name!r} makes its input larger")
        return np.asarray(factor, "float64"), np.asarray(term, "float64")


def inverse(first: bool, other: np.ndarray) -> tuple[np.ndarray, int]:
    """Division by a constant as a product with its inverse."""
    if not first or not other.all():
        raise StaysError("a division by it (or by 0) is not affine")
    return 1 / other, 0
