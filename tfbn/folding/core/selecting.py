"""What takes some elements of a sample or none, puts others around them, or sums them up."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from .affine import Affine, CannotFoldError
from .graph import Call
from .propagation import Condition, UnaryRule, no_offset, not_negative

# What is taken along each axis of a sample: several places, or one, whose axis goes.
Places = Sequence["slice | int"]


@dataclass(frozen=True)
class SliceRule(UnaryRule):
    """A part of a sample. Where it is mapped and the rest is not, other parts see nothing of it.

    Attributes:
        places: which part.
    """

    places: Callable[[Call], Places]

    def map_backward(self, call: Call, output_map: Affine) -> Affine:
        """The same map for the part, and for the rest none, or, if nothing else reads it, the same."""
        tensor, places = call.inputs[0], self.places(call)
        dropped = [axis for axis, place in enumerate(places) if isinstance(place, int)]
        affine = output_map.map(lambda array: _with_axes(array, dropped))
        sizes = list(np.broadcast_shapes(affine.scale.shape, affine.offset.shape))
        part = [slice(None)] * len(places)
        for axis, (place, size) in enumerate(zip(places, tensor.shape[1:], strict=True)):
            if _is_whole(place, size) or (len(tensor.users) == 1 and axis not in affine.axes):
                continue
            if size is None:
                raise _unknown(call)
            sizes[axis] = size
            part[axis] = slice(place % size, place % size + 1) if isinstance(place, int) else place
        scale, offset = np.ones(sizes), np.zeros(sizes)
        scale[tuple(part)], offset[tuple(part)] = affine.scale, affine.offset
        return Affine.of(scale, offset)

    def map_forward(self, call: Call, input_map: Affine) -> Affine:
        places = self.places(call)

        def part(array: np.ndarray) -> np.ndarray:
            own = [
                place if size > 1 else 0 if isinstance(place, int) else slice(None)
                for place, size in zip(places, array.shape, strict=True)
            ]
            return array[tuple(own)]

        return input_map.map(part)

    def takes_nothing(self, call: Call, affine: Affine) -> bool:
        try:
            part = self.map_forward(call, affine)
        except CannotFoldError:
            return False
        return part.equals(Affine.identity(part.rank))


def _unknown(call: Call) -> CannotFoldError:
    return CannotFoldError(f"the size of the axis that {call.op} takes a part of is not known")


def _with_axes(array: np.ndarray, axes: Sequence[int]) -> np.ndarray:
    """The array with new axes at these places of the result, which are in order."""
    for axis in axes:
        array = np.expand_dims(array, axis)
    return array


def _is_whole(place: slice | int, size: int | None) -> bool:
    if isinstance(place, int):
        return False
    if size is None:
        return place.start in (None, 0) and place.stop is None and place.step in (None, 1)
    return range(size)[place] == range(size)


def indexed(call: Call) -> Places:
    """The part that `x[...]` takes, by numbers, slices and an ellipsis."""
    tensor, *key = call.arguments
    (before, after), shape = (tensor.shape, call.outputs[0].shape), []
    known = all(type(place) in (int, slice, type(...)) for place in key)
    if known and key.count(...) < 2:
        gap = len(before) - sum(place is not ... for place in key)
        at = key.index(...) if ... in key else len(key)
        key = [*key[:at], *[slice(None)] * gap, *key[at + 1 :]]
        shape = [
            None if size is None else len(range(size)[place])
            for size, place in zip(before, key, strict=False)
            if isinstance(place, slice)
        ]
    # In the graph a None among the places, which makes an axis, is left out, and a list is its numbers.
    if len(key) != len(before) or len(shape) != len(after) or not _is_whole(key[0], before[0]):
        raise CannotFoldError(
            f"{call.op} takes samples, makes axes or takes what its numbers and slices do not tell"
        )
    return key[1:]


def split(call: Call) -> Places:
    """One part of an axis that is split into several."""
    shape, sections = call.inputs[0].shape, call.attributes["indices_or_sections"]
    axis = call.attributes["axis"] % len(shape)
    if axis == 0:
        raise CannotFoldError(f"{call.op} parts samples, not channels")
    if (size := shape[axis]) is None:
        raise _unknown(call)
    number = sections if isinstance(sections, int) else list(sections)
    part = np.array_split(np.arange(size), number)[call.attributes["part"]]
    places = [slice(None)] * (len(shape) - 1)
    places[axis - 1] = slice(int(part[0]), int(part[-1]) + 1) if part.size else slice(0, 0)
    return places


class ShapeRule(UnaryRule):
    """Reads nothing of its input but the shape."""

    def map_backward(self, call: Call, output_map: Affine) -> Affine:
        raise CannotFoldError(f"{call.op} makes numbers of its own")

    def map_forward(self, call: Call, input_map: Affine) -> Affine:
        return Affine.identity(len(call.outputs[0].shape) - 1)

    def takes_nothing(self, call: Call, affine: Affine) -> bool:
        return True


class PadRule(UnaryRule):
    """Zeros, infinite numbers or copies of elements around a sample.

    Infinite numbers, which largest values are taken of, stay what they are with any offset.
    """

    def map_backward(self, call: Call, output_map: Affine) -> Affine:
        widths = self._checked(call, output_map)

        def inner(array: np.ndarray, varying: bool = True) -> np.ndarray:
            own = [
                slice(before, size - after) if size > 1 or not varying else slice(None)
                for (before, after), size in zip(widths, array.shape, strict=True)
            ]
            return array[tuple(own)]

        if self._adds_zeros(call):
            around = output_map.offset.copy()
            inner(around, varying=False)[...] = 0  # nothing, where it is the same around and inside
            if around.any():
                no_offset(call, output_map)
        return output_map.map(inner)

    def map_forward(self, call: Call, input_map: Affine) -> Affine:
        widths = self._checked(call, input_map)

        def padded(array: np.ndarray, value: int) -> np.ndarray:
            sizes = np.broadcast_shapes(input_map.scale.shape, input_map.offset.shape)
            own = [width if size > 1 else (0, 0) for width, size in zip(widths, sizes, strict=True)]
            return np.pad(np.broadcast_to(array, sizes), own, constant_values=value)

        if self._adds_zeros(call) and any(
            sum(width) and axis not in input_map.axes for axis, width in enumerate(widths)
        ):
            no_offset(call, input_map)
        return Affine.of(padded(input_map.scale, 1), padded(input_map.offset, 0))

    def _adds_zeros(self, call: Call) -> bool:
        return call.attributes["mode"] == "constant" and not any(map(np.any, call.arguments[1:]))

    def _checked(self, call: Call, affine: Affine) -> list[tuple[int, int]]:
        """How many elements are put before and behind, along each axis of a sample."""
        rank, numbers = len(call.inputs[0].shape), call.arguments[1:]
        samples, *widths = np.broadcast_to(call.attributes["pad_width"], (rank, 2)).tolist()
        if any(samples):
            raise CannotFoldError(f"{call.op} adds samples")
        for number in filter(np.any, numbers):
            if not np.isinf(number).all():
                raise CannotFoldError(f"{call.op} pads with a number that is neither 0 nor infinite")
            not_negative(call, affine)
            if not affine.scale.all():
                raise CannotFoldError(
                    f"{call.op} pads with {number}, of which a scale of 0 makes no number"
                )
        varying = [axis + 1 for axis in affine.axes if any(widths[axis])]
        if varying and call.attributes["mode"] != "constant":
            raise CannotFoldError(
                f"{call.op} repeats what lies along axis {', '.join(map(str, varying))}, where the "
                "batch norm varies; normalise channels only"
            )
        return widths


class ReductionRule(UnaryRule):
    """Sum, mean or largest value along axes along which nothing may vary.

    Args:
        conditions: on the map.
        total: whether it is the sum, which has the offset as often as there are terms.
    """

    def __init__(self, *conditions: Condition, total: bool = False) -> None:
        self.conditions, self.total = conditions, total

    def map_backward(self, call: Call, output_map: Affine) -> Affine:
        axes = self._axes(call)
        if not call.attributes["keepdims"]:
            output_map = output_map.map(lambda array: _with_axes(array, axes))
        for condition in self.conditions:
            condition(call, output_map)
        return Affine.of(output_map.scale, output_map.offset / self._terms(call, output_map, axes))

    def map_forward(self, call: Call, input_map: Affine) -> Affine:
        axes = self._axes(call)
        if varying := [axis + 1 for axis in input_map.axes if axis in axes]:
            raise CannotFoldError(
                f"{call.op} ({call.op.kind}) mixes what lies along axis {', '.join(map(str, varying))}, "
                "where the batch norm varies"
            )
        for condition in self.conditions:
            condition(call, input_map)
        result = Affine.of(input_map.scale, input_map.offset * self._terms(call, input_map, axes))
        if call.attributes["keepdims"]:
            return result
        return result.map(lambda array: array.squeeze(tuple(axes)))

    def _axes(self, call: Call) -> list[int]:
        """Of a sample, in order."""
        rank, axis = len(call.inputs[0].shape), call.attributes["axis"]
        axes = sorted(
            {number % rank for number in np.ravel(range(rank) if axis is None else axis).tolist()}
        )
        if 0 in axes:
            raise CannotFoldError(f"{call.op} puts samples together")
        if call.attributes.get("initial") is not None:
            raise CannotFoldError(f"{call.op} compares with a number")
        return [number - 1 for number in axes]

    def _terms(self, call: Call, affine: Affine, axes: Sequence[int]) -> int:
        """How many offsets are summed up."""
        if not self.total or not affine.offset.any():
            return 1
        terms = 1
        for size in (call.inputs[0].shape[axis + 1] for axis in axes):
            if size is None:
                raise CannotFoldError(f"how many values {call.op} sums up is not known")
            terms *= size
        return terms
