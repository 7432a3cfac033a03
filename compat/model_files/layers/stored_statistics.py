"""What the statistics of a legacy batch norm are: a standard deviation or a variance, by release.

`running_std` of Keras 1 held either, and inference divided by either in three ways. Keras 2 stored a
variance always, and its releases differ in what training put into it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from ..errors import LegacyModelError
from ..reading.writer_info import Release, WriterInfo


@dataclass(frozen=True)
class Formula:
    """What inference divided by, given the stored s and epsilon.

    Attributes:
        stored: "std" or "variance".
        divisor: in words.
        variance: (s, epsilon, e) -> the variance with which sqrt(variance + e) is that divisor.
        squared: (s, epsilon) -> the divisor's square, the largest e that leaves no variance below 0;
            `None` where e = epsilon leaves s as it is.
    """

    stored: str
    divisor: str
    variance: Callable[[np.ndarray, float, float], np.ndarray]
    squared: Callable[[np.ndarray, float], np.ndarray] | None = None


_DEVIATION = Formula(
    "std",
    "s + epsilon",
    lambda s, epsilon, e: (s + epsilon) ** 2 - e,
    lambda s, epsilon: (s + epsilon) ** 2,
)
_VARIANCE = Formula("variance", "sqrt(s + epsilon)", lambda s, epsilon, e: s + (epsilon - e))
_ROOT = Formula(
    "variance",
    "sqrt(s) + epsilon",
    lambda s, epsilon, e: (np.sqrt(s) + epsilon) ** 2 - e,
    lambda s, epsilon: (np.sqrt(s) + epsilon) ** 2,
)


@dataclass(frozen=True)
class ReleaseFormula:
    """Releases from `first` to `last`, on one backend or on both, and what they stored."""

    first: Release
    last: Release
    backend: str | None
    formula: Formula


KERAS1 = (
    ReleaseFormula((0, 3, 3), (1, 0, 5), None, _DEVIATION),
    ReleaseFormula((1, 0, 6), (1, 0, 6), "theano", _DEVIATION),
    ReleaseFormula((1, 0, 6), (1, 0, 6), "tensorflow", _VARIANCE),
    ReleaseFormula((1, 0, 7), (1, 0, 7), "theano", _ROOT),
    ReleaseFormula((1, 0, 7), (1, 0, 7), "tensorflow", _VARIANCE),
    ReleaseFormula((1, 0, 8), (1, 2, 2), None, _VARIANCE),
)
# The default epsilon and momentum, for configurations that leave them out.
EPSILON = (
    ((0, 3, 3), (1, 0, 7), 1e-6),
    ((1, 0, 8), (1, 1, 99), 1e-5),
    ((1, 2, 0), (1, 2, 2), 1e-3),
)
MOMENTUM = (((0, 3, 3), (1, 0, 6), 0.9), ((1, 0, 7), (1, 2, 2), 0.99))
# Releases of the package keras 2 that trained with the unbiased variance.
_UNBIASED = ((2, 1, 4), (2, 3, 1))
_FUSED_RANKS = (4, 5)


def formula(writer: WriterInfo, part: str) -> Formula:
    """What a `running_std` of Keras 1 is.

    Raises:
        LegacyModelError: release or backend are needed to tell, and unknown.
    """
    rows = [row for row in KERAS1 if writer.between(row.first, row.last)]
    if len({(row.first, row.last) for row in rows}) > 1 and len({id(row.formula) for row in rows}) > 1:
        raise _unknown_release(part, "running_std holds a standard deviation or a variance", writer)
    if any(row.backend for row in rows):
        backend = writer.required_backend(
            part, f"What running_std holds in Keras {writer.text} depends on the backend"
        )
        rows = [row for row in rows if row.backend == backend]
    if not rows:
        raise LegacyModelError(f"Keras {writer.text} had no backend {writer.backend!r}", part)
    return rows[0].formula


def default(table: tuple[tuple[Release, Release, float], ...], writer: WriterInfo, part: str) -> float:
    """The default epsilon or momentum of a release."""
    values = {value for first, last, value in table if writer.between(first, last)}
    if len(values) != 1:
        raise _unknown_release(part, "the default epsilon and momentum differ", writer)
    return values.pop()


def modern(rule: Formula, stored: np.ndarray, epsilon: float, part: str) -> tuple[np.ndarray, float]:
    """The variance and the epsilon with which a layer of today divides by what the legacy one did.

    The epsilon is the legacy one, or less where a variance would be negative with it.
    """
    wide = np.asarray(stored, "float64")
    if rule.squared is None:
        return stored, epsilon
    if (wide < 0).any():
        raise LegacyModelError(f"running_std holds a {rule.stored} below 0: the file is damaged", part)
    smallest = rule.squared(wide, epsilon).min(initial=np.inf)
    e = float(min(epsilon, smallest))
    return np.maximum(rule.variance(wide, epsilon, e), 0.0), e


def unbiased(writer: WriterInfo, rank: int, axes: int, part: str) -> bool:
    """Whether a batch norm of Keras 2 trained with the unbiased variance.

    The package keras 2.1.4 to 2.3.1 did, others did not; tf.keras where its fused kernel ran: on
    inputs of rank 4 and 5 with one axis of features.
    """
    if writer.inside_tensorflow or writer.release[:2] >= (2, 4):  # keras 2.4 and later is tf.keras
        return rank in _FUSED_RANKS and axes == 1
    if not writer.between(*_UNBIASED):
        return False
    if len(writer.release) < 3 and not (_UNBIASED[0][:2] < writer.release[:2] <= _UNBIASED[1][:2]):
        raise _unknown_release(part, "training used the biased or the unbiased variance", writer)
    return True


def _unknown_release(part: str, what: str, writer: WriterInfo) -> LegacyModelError:
    known = f"only {writer.text!r} is known" if writer.text else "the file does not say it"
    return LegacyModelError(
        f"{what} by the release of Keras, and {known}. Pass keras_version=, such as "
        "keras_version='1.0.5'",
        part,
    )
