"""How much outputs may differ by rounding alone."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import tensorflow as tf

from ..compare import NamedArrays, is_finite, largest_difference

# What rounding does to a deep network's outputs, relative to the largest of them, by the coarsest
# type that a layer computes in: its unit roundoff times 100 (float32) or about 20 (the short types).
TOLERANCES = {"float64": 1e-5, "float32": 1e-5, "float16": 1e-2, "bfloat16": 1e-1}

# How many times as far as by a change of the inputs in their last digit the outputs may move by
# rounding, and the most that is allowed so, relative to their size.
BEYOND_SENSITIVITY = 10.0
MOST_ALLOWED = 1e-2

# What rounding all weights to another type may do to a deep model's outputs, relative to their size.
OF_ANOTHER_PRECISION = 0.1


def allowed(dtypes: Iterable[str], sensitivity: float | None) -> float:
    """The difference that is allowed unless told, relative to the outputs' size.

    Args:
        dtypes: the types that the model's layers compute in.
        sensitivity: how far its outputs move when its inputs do by their last digit.
    """
    known = [TOLERANCES[dtype] for dtype in set(dtypes) & TOLERANCES.keys()]
    usual = max(known, default=TOLERANCES["float32"])
    return max(usual, min(BEYOND_SENSITIVITY * (sensitivity or 0.0), MOST_ALLOWED))


def sensitivity_of(run: Callable[[Any], NamedArrays], inputs: Any, outputs: NamedArrays) -> float | None:
    """How far the outputs move, relative to their size, when the inputs move by their last digit.

    What rounding does inside the model moves them alike. The largest of three draws, but for those that
    leave the domain of a function; `None` where no input is a fraction.

    Args:
        run: the model.
        outputs: what it gives for `inputs`.
    """
    if not any(map(_is_fraction, tf.nest.flatten(inputs))):
        return None
    rng = np.random.default_rng(0)

    def moved(array: np.ndarray) -> np.ndarray:
        if not _is_fraction(array):
            return array
        towards = np.where(rng.random(array.shape) < 0.5, -np.inf, np.inf).astype(array.dtype)
        return np.nextafter(array, towards)

    runs = [run(tf.nest.map_structure(moved, inputs)) for _ in range(3)]
    finite = [moved_outputs for moved_outputs in runs if all(map(is_finite, moved_outputs.values()))]
    apart = (largest_difference(moved_outputs, outputs)[1] for moved_outputs in finite)
    return max(apart, default=None)


def _is_fraction(array: np.ndarray) -> bool:
    """Whether an input holds fractions; whole numbers may be indices, which must not move."""
    return array.dtype.kind == "f" and bool((array != np.round(array)).any())
