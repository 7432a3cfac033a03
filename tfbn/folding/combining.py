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
        raise CannotFoldError(f"{call.layer.name!r} ({type(call.layer).__name__}) takes a constant")
    ranks = {len(tensor.shape) for tensor in call.inputs}
    if len(ranks) > 1:
        raise CannotFoldError(f"the inputs of {call.layer.name!r} have different ranks")
    (rank,) = ranks
    return [one or Affine.identity(rank - 1) for one in maps]


def require_equal(call: Call, affines: Sequence[Affine], what: str = "scale") -> np.ndarray:
    """The scale (or offset) that all inputs have."""
    arrays = [getattr(one, what) for one in affines]
    if not all(np.array_equal(one, arrays[0]) for one in arrays):
        raise CannotFoldError(f"it would {what} some inputs of {call.layer.name!r} and not others alike")
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
            [*scale_only[:one], Affine(affine.scale, sign * affine.offset), *scale_only[one + 1 :]]
            for one, sign in enumerate(signs)
        ]

    def forward(self, call: Call, maps: Maps) -> Affine:
        affines = with_identities(call, maps)
        signed = zip(self._signs(call), affines, strict=True)
        offsets = [sign * one.offset for sign, one in signed]
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
        for one in affines:
            no_offset(call, one)
        scale = math.prod((one.scale for one in affines[1:]), start=affines[0].scale)
        return Affine.of(scale, affines[0].offset)


class ConcatRule(PropagationRule):
    """Concatenate: each input its slice."""

    def backward(self, call: Call, affine: Affine) -> list[Maps]:
        axis, sizes = self._layout(call)
        if axis not in affine.axes:
            return [[affine] * len(sizes)]
        if None in sizes:
            raise CannotFoldError(f"the sizes that {call.layer.name!r} puts together are not known")
        ends: Any = np.cumsum(sizes)  # type: ignore[arg-type]

        def slices(array: np.ndarray) -> list[np.ndarray]:
            if array.shape[axis] == 1:
                return [array] * len(sizes)
            return np.split(array, ends[:-1], axis)

        pairs = zip(slices(affine.scale), slices(affine.offset), strict=True)
        return [[Affine.of(*pair) for pair in pairs]]

    def forward(self, call: Call, maps: Maps) -> Affine:
        affines = with_identities(call, maps)
        axis, sizes = self._layout(call)
        if all(one.equals(affines[0]) and axis not in one.axes for one in affines):
            return affines[0]
        if None in sizes:
            raise CannotFoldError(f"the sizes that {call.layer.name!r} puts together are not known")

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
        with_identities(call, [None] * len(call.inputs))
        axis = call.layer.axis % len(call.inputs[0].shape)
        if axis == 0:
            raise CannotFoldError(f"{call.layer.name!r} puts samples together, not channels")
        return axis - 1, [tensor.shape[axis] for tensor in call.inputs]


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
        if self._both(call):
            return self.tensors.backward(call, affine)  # type: ignore[union-attr]
        factor, term = self._constants(call, affine.rank)
        if not np.all(factor):
            raise CannotFoldError(f"{call.layer.name!r} multiplies by 0")
        _check_digits(call, term, affine.scale * term)
        return [[Affine.of(affine.scale, (affine.scale * term + affine.offset - term) / factor)]]

    def forward(self, call: Call, maps: Maps) -> Affine:
        if self._both(call):
            return self.tensors.forward(call, maps)  # type: ignore[union-attr]
        affine: Affine = maps[0]  # type: ignore[assignment]
        factor, term = self._constants(call, affine.rank)
        _check_digits(call, affine.scale * term, term)
        return Affine.of(affine.scale, factor * affine.offset + term - affine.scale * term)

    def _both(self, call: Call) -> bool:
        if len(call.inputs) == 1:
            return False
        if self.tensors is None:
            raise CannotFoldError(f"{call.layer.name!r} ({type(call.layer).__name__}) takes two tensors")
        return True

    def _constants(self, call: Call, rank: int) -> tuple[np.ndarray, np.ndarray]:
        first = isinstance(call.arguments[0], Tensor)
        other = np.asarray(call.arguments[first], "float64")
        if other.ndim > rank:
            raise CannotFoldError(f"the constant of {call.layer.name!r} has a batch axis of its own")
        other = other.reshape((1,) * (rank - other.ndim) + other.shape)
        factor, term = self.constants(first, other)
        shape = call.inputs[0].shape[1:]
        if any(size not in (1, own) for size, own in zip(other.shape, shape, strict=True)):
            raise CannotFoldError(f"the constant of {call.layer.name!r} makes its input larger")
        return np.asarray(factor, "float64"), np.asarray(term, "float64")


def _check_digits(call: Call, now: np.ndarray, before: np.ndarray) -> None:
    """Refuse a term that is far larger beside the normalised values than it was: it would cancel."""
    if call.dtype != "float64" and (np.abs(now) > MOST_CANCELLED * np.maximum(np.abs(before), 1)).any():
        raise CannotFoldError(
            f"{call.layer.name!r} adds a constant that would be far larger than the values it is added "
            f"to, of which {call.dtype} would lose the digits"
        )


def division_constants(first: bool, other: np.ndarray) -> tuple[np.ndarray, int]:
    """Division by a constant as a product with its inverse."""
    if not first or not other.all():
        raise CannotFoldError("a division by it (or by 0) is not affine")
    return 1 / other, 0
