"""What a checkpoint's value becomes in a model: whole or in parts, and of which type."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import tensorflow as tf

from .names import parts_of, split_part

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Source:
    """Where a variable's value comes from.

    Attributes:
        name: of the variable in the model; `owner` without its part.
        keys: names in the checkpoint: one, or those of the parts of one variable.
        stored: their shapes.
        wanted: shape of the variable, or of all parts of the one that it is a part of.
        index: the place among these.
        axis: along which `stored` and `wanted` are parts of the same; `None` if there is none.
        dtype: of the variable.
    """

    name: str
    keys: tuple[str, ...]
    stored: Sequence[Shape]
    wanted: Sequence[Shape]
    index: int
    axis: int | None
    dtype: tf.DType

    @classmethod
    def of(
        cls,
        name: str,
        options: Sequence[tuple[str, ...]],
        variables: Mapping[str, Any],
        shapes: Mapping[str, Shape],
    ) -> Source:
        """The first of the options that has the shape, or the first at all.

        Args:
            name: of the variable in the model.
            options: names in the checkpoint, those of all parts of a variable together.
            variables: of the model.
            shapes: in the checkpoint.
        """
        shape, dtype = tuple(variables[name].shape), tf.as_dtype(variables[name].dtype)
        base, part = split_part(name)
        siblings = [tuple(variables[part_name].shape) for part_name in parts_of(base, variables)]
        if part is not None and part < len(siblings):
            # Before whole values: where the partitions differ, the part of this number and shape may
            # hold other rows.
            for keys in options:
                stored = [shapes[key] for key in keys]
                if stored == siblings:
                    return cls(name, keys[part : part + 1], [shape], [shape], 0, 0, dtype)
                axis = _axis(stored, siblings)
                if axis is not None:
                    return cls(name, keys, stored, siblings, part, axis, dtype)
        tried = []
        for keys in options:
            stored = [shapes[key] for key in keys]
            tried.append(cls(name, keys, stored, [shape], 0, _axis(stored, [shape]), dtype))
        return next((source for source in tried if source.axis is not None), tried[0])

    @property
    def owner(self) -> str:
        return self.name if len(self.wanted) == 1 else split_part(self.name)[0]

    def misfit(self, dtype: tf.DType, claims: Mapping[str, set[str]]) -> str:
        """Why the stored value cannot be used, judged by its shape and type; empty if it can.

        Args:
            dtype: of the value.
            claims: for each name in the checkpoint the owners whose value it would be.
        """
        key = ", ".join(self.keys)
        rivals = sorted(set().union(*(claims[stored] for stored in self.keys)) - {self.owner})
        if rivals:
            return f"{key} would be the value of {', '.join(rivals)} too"
        if self.axis is None:
            shapes = " and ".join(map(str, self.stored))
            return f"{key} has shape {shapes} where the model has {self.wanted[self.index]}"
        if _kind(dtype) != _kind(self.dtype):
            return f"{key} is {dtype.name} where the model has {self.dtype.name}"
        return ""

    def value(self, values: Mapping[str, np.ndarray]) -> np.ndarray | str:
        """The value in the variable's shape and type, or why there is none.

        Args:
            values: of the checkpoint, by name.
        """
        pieces, axis = [values[key] for key in self.keys], self.axis or 0
        value = pieces[0] if len(pieces) == 1 else np.concatenate(pieces, axis)
        if len(self.wanted) > 1:
            start = sum(shape[axis] for shape in self.wanted[: self.index])
            value = np.take(value, range(start, start + self.wanted[self.index][axis]), axis)
        with np.errstate(over="ignore", invalid="ignore"):
            cast = value.astype(self.dtype.as_numpy_dtype)
        kept = np.isfinite(cast) == np.isfinite(value) if self.dtype.is_floating else cast == value
        return (
            cast
            if np.all(kept)
            else f"{', '.join(self.keys)} has values that {self.dtype.name} cannot hold"
        )


def _axis(stored: Sequence[Shape], wanted: Sequence[Shape]) -> int | None:
    """The axis along which both, put together, have one shape."""
    if list(stored) == list(wanted) and len(stored) == 1:
        return 0
    for axis in range(len(wanted[0])):
        whole = _together(stored, axis)
        if whole is not None and whole == _together(wanted, axis):
            return axis
    return None


def _together(shapes: Sequence[Shape], axis: int) -> Shape | None:
    if any(len(shape) <= axis for shape in shapes):
        return None
    if len({(*shape[:axis], *shape[axis + 1 :]) for shape in shapes}) > 1:
        return None
    return (
        *shapes[0][:axis],
        sum(shape[axis] for shape in shapes if len(shape) > axis),
        *shapes[0][axis + 1 :],
    )


def _kind(dtype: tf.DType) -> str:
    return "floating" if dtype.is_floating else "integer" if dtype.is_integer else dtype.name
