"""Operations of several inputs that an affine map moves across, and arithmetic with constants."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from .affine import MOST_CANCELLED, Affine, CannotFoldError
from .graph import Call, Tensor
from .propagation import Condition, Maps, PropagationRule, no_offset


def with_identities(call: Call, maps: Maps) -> list[Affine]:
    """The maps, with the identity for inputs left alone; all arguments are tensors of one rank."""
    if len(call.arguments) > len(call.inputs):
        raise CannotFoldError(f"{call.op} ({call.op.kind}) takes a constant")
    ranks = {len(tensor.shape) for tensor in call.inputs}
    if len(ranks) > 1:
        raise CannotFoldError(f"the inputs of {call.op} have different ranks")
    (rank,) = ranks
    return [affine or Affine.identity(rank - 1) for affine in maps]


def require_equal(call: Call, affines: Sequence[Affine], what: str = "scale") -> np.ndarray:
    """The scale (or offset) that all inputs have."""
    arrays = [getattr(affine, what) for affine in affines]
    if not all(np.array_equal(array, arrays[0]) for array in arrays):
        raise CannotFoldError(f"it would {what} some inputs of {call.op} and not others alike")
    return arrays[0]


class SameMapForAllInputs(PropagationRule):
    """Inputs that must all have the same map: Average, and Maximum and Minimum under a condition."""

    def __init__(self, *conditions: Condition) -> None:
        self.conditions = conditions

    def backward(self, call: Call, affine: Affine) -> list[Maps]:
        with_identities(call, [affine] * len(call.inputs))
        for condition in self.conditions:
            condition(call, affine)
        return [[affine] * len(call.inputs)]

    def forward(self, call: Call, maps: Maps) -> Affine:
        affines = with_identities(call, maps)
        require_equal(call, affines)
        require_equal(call, affines, "offset")
        for condition in self.conditions:
            condition(call, affines[0])
        return affines[0]


class AddRule(PropagationRule):
    """Add and Subtract: the scale into every input, the offset into any one."""

    def __init__(self, *signs: int) -> None:
        self.signs = signs

    def backward(self, call: Call, affine: Affine) -> list[Maps]:
        signs = self._signs(call)
        scale_only = with_identities(call, [affine.without_offset()] * len(signs))
        if not affine.offset.any():
            return [scale_only]
        return [
            [*scale_only[:place], Affine(affine.scale, sign * affine.offset), *scale_only[place + 1 :]]
            for place, sign in enumerate(signs)
        ]

    def forward(self, call: Call, maps: Maps) -> Affine:
        affines = with_identities(call, maps)
        signed = zip(self._signs(call), affines, strict=True)
        offsets = [sign * affine.offset for sign, affine in signed]
        return Affine.of(require_equal(call, affines), sum(offsets[1:], offsets[0]))

    def _signs(self, call: Call) -> Sequence[int]:
        return self.signs or [1] * len(call.inputs)


class MultiplyRule(PropagationRule):
    """Multiply: a scale without an offset, into any one input, rather one that nothing else reads."""

    def backward(self, call: Call, affine: Affine) -> list[Maps]:
        no_offset(call, affine)
        places = range(len(call.inputs))
        with_identities(call, [None for _ in places])
        order = sorted(places, key=lambda place: len(call.inputs[place].users))
        return [[affine if place == chosen else None for place in places] for chosen in order]

    def forward(self, call: Call, maps: Maps) -> Affine:
        affines = with_identities(call, maps)
        for affine in affines:
            no_offset(call, affine)
        scale = math.prod((affine.scale for affine in affines[1:]), start=affines[0].scale)
        return Affine.of(scale, affines[0].offset)


class ConcatRule(PropagationRule):
    """Concatenate: each input its slice."""

    def backward(self, call: Call, affine: Affine) -> list[Maps]:
        axis = self._axis(call)
        if axis not in affine.axes:
            return [[affine] * len(call.inputs)]
        ends = np.cumsum(self._sizes(call, axis))

        def slices(array: np.ndarray) -> list[np.ndarray]:
            if array.shape[axis] == 1:
                return [array] * len(ends)
            return np.split(array, ends[:-1], axis)

        pairs = zip(slices(affine.scale), slices(affine.offset), strict=True)
        return [[Affine.of(*pair) for pair in pairs]]

    def forward(self, call: Call, maps: Maps) -> Affine:
        affines, axis = with_identities(call, maps), self._axis(call)
        if all(affine.equals(affines[0]) and axis not in affine.axes for affine in affines):
            return affines[0]
        sizes = self._sizes(call, axis)

        def together(arrays: list[np.ndarray]) -> np.ndarray:
            others = [(*array.shape[:axis], 1, *array.shape[axis + 1 :]) for array in arrays]
            shape = np.broadcast_shapes(*others)
            slices = [
                np.broadcast_to(array, (*shape[:axis], size, *shape[axis + 1 :]))
                for array, size in zip(arrays, sizes, strict=True)
            ]
            return np.concatenate(slices, axis)

        scales, offsets = ([getattr(affine, what) for affine in affines] for what in ("scale", "offset"))
        return Affine.of(together(scales), together(offsets))

    def _axis(self, call: Call) -> int:
        """The axis of a sample along which the inputs are put together."""
        with_identities(call, [None] * len(call.inputs))
        axis = call.attributes["axis"] % len(call.inputs[0].shape)
        if axis == 0:
            raise CannotFoldError(f"{call.op} puts samples together, not channels")
        return axis - 1

    def _sizes(self, call: Call, axis: int) -> list[int]:
        """How long each input is along it."""
        sizes = [size for tensor in call.inputs if (size := tensor.shape[axis + 1]) is not None]
        if len(sizes) < len(call.inputs):
            raise CannotFoldError(f"the sizes that {call.op} puts together are not known")
        return sizes


@dataclass(frozen=True)
class ConstantArithmetic(PropagationRule):
    """`factor · x + term` with constants, or `tensors`' rule where both arguments are tensors.

    Attributes:
        constants: factor and term, by whether the tensor comes first, and the other argument.
        tensors: the rule for two tensors.
    """

    constants: Callable[[bool, np.ndarray], tuple[Any, Any]]
    tensors: PropagationRule | None = None

    def backward(self, call: Call, affine: Affine) -> list[Maps]:
        if (rule := self._rule_of_tensors(call)) is not None:
            return rule.backward(call, affine)
        factor, term = self._constants(call, affine.rank)
        if not np.all(factor):
            raise CannotFoldError(f"{call.op} multiplies by 0")
        _check_digits(call, term, affine.scale * term)
        return [[Affine.of(affine.scale, (affine.scale * term + affine.offset - term) / factor)]]

    def forward(self, call: Call, maps: Maps) -> Affine:
        if (rule := self._rule_of_tensors(call)) is not None:
            return rule.forward(call, maps)
        (affine,) = filter(None, maps)
        factor, term = self._constants(call, affine.rank)
        _check_digits(call, affine.scale * term, term)
        return Affine.of(affine.scale, factor * affine.offset + term - affine.scale * term)

    def _rule_of_tensors(self, call: Call) -> PropagationRule | None:
        if len(call.inputs) > 1 and self.tensors is None:
            raise CannotFoldError(f"{call.op} ({call.op.kind}) takes two tensors")
        return self.tensors if len(call.inputs) > 1 else None

    def _constants(self, call: Call, rank: int) -> tuple[np.ndarray, np.ndarray]:
        first = isinstance(call.arguments[0], Tensor)
        other = np.asarray(call.arguments[first], "float64")
        if other.ndim > rank:
            raise CannotFoldError(f"the constant of {call.op} has a batch axis of its own")
        other = other.reshape((1,) * (rank - other.ndim) + other.shape)
        factor, term = self.constants(first, other)
        shape = call.inputs[0].shape[1:]
        if any(size not in (1, own) for size, own in zip(other.shape, shape, strict=True)):
            raise CannotFoldError(f"the constant of {call.op} makes its input larger")
        return np.asarray(factor, "float64"), np.asarray(term, "float64")


def _check_digits(call: Call, now: np.ndarray, before: np.ndarray) -> None:
    """Refuse a term that is far larger beside the normalised values than it was: it would cancel."""
    if call.dtype != "float64" and (np.abs(now) > MOST_CANCELLED * np.maximum(np.abs(before), 1)).any():
        raise CannotFoldError(
            f"{call.op} adds a constant that would be far larger than the values it is added "
            f"to, of which {call.dtype} would lose the digits"
        )


def _division_constants(first: bool, other: np.ndarray) -> tuple[np.ndarray, int]:
    """Division by a constant as a product with its inverse."""
    if not first or not other.all():
        raise CannotFoldError("a division by it (or by 0) is not affine")
    return 1 / other, 0


ADDITION = ConstantArithmetic(lambda _, other: (1, other), AddRule())
SUBTRACTION = ConstantArithmetic(
    lambda first, other: (1, -other) if first else (-1, other), AddRule(1, -1)
)
MULTIPLICATION = ConstantArithmetic(lambda _, other: (other, 0), MultiplyRule())
DIVISION = ConstantArithmetic(_division_constants)
