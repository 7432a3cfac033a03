"""How far arrays are from those that were expected: absolutely, and relative to their size."""

from __future__ import annotations

from typing import NamedTuple, TypeAlias

import numpy as np

NamedArrays: TypeAlias = dict[str, np.ndarray]


class Difference(NamedTuple):
    """How far an array is from the expected one.

    Attributes:
        absolute: the largest difference between two values; infinite where one of them is NaN or
            infinite and the other is not the same. Of arrays that hold no numbers, 1 if they differ.
        size: the largest finite absolute value that was expected, or what stands in its place.
    """

    absolute: float
    size: float

    @property
    def relative(self) -> float:
        """The difference relative to `size`; the difference itself where only zeros were expected."""
        return self.absolute / (self.size or 1.0)


def difference(found: np.ndarray, expected: np.ndarray, largest: float | None = None) -> Difference:
    """Compare two arrays of one shape. NaN equals NaN.

    Args:
        largest: in place of the largest value that `expected` holds, where it is a part of an array.
    """
    largest = max_abs(expected) if largest is None else largest
    if not is_number(expected):
        return Difference(float(not np.array_equal(found, expected)), largest)
    left, right = wide(found), wide(expected)
    same = (left == right) | (np.isnan(left) & np.isnan(right))
    with np.errstate(invalid="ignore"):  # inf − inf
        absolute = float(np.where(same, 0.0, np.abs(left - right)).max(initial=0.0))
    return Difference(float("inf") if np.isnan(absolute) else absolute, largest)


def largest_difference(found: NamedArrays, expected: NamedArrays) -> tuple[str, float]:
    """The array in which two sets of arrays differ most, relative to its size, and by how much.

    Arrays that hold no numbers do not count.
    """
    relative = {
        name: difference(found[name], array).relative
        for name, array in expected.items()
        if is_number(array)
    }
    name = max(relative, key=lambda name: relative[name], default="")
    return name, relative.get(name, 0.0)


def is_number(array: np.ndarray) -> bool:
    return array.dtype.kind not in "OSU"


def is_finite(array: np.ndarray) -> bool:
    """Whether no value is NaN or infinite; true of what is no number."""
    return not is_number(array) or bool(np.isfinite(wide(array)).all())


def max_abs(array: np.ndarray) -> float:
    """The largest finite absolute value; 0 of what is no number."""
    if not is_number(array):
        return 0.0
    magnitudes = np.abs(wide(array))
    return float(np.max(magnitudes, initial=0.0, where=np.isfinite(magnitudes)))


def wide(array: np.ndarray) -> np.ndarray:
    """The values in double precision."""
    return array.astype("complex128" if array.dtype.kind == "c" else "float64")
