"""How far a batch norm's moving statistics are from those of data, and what that does to its outputs."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

# A channel counts as this far off at most, so that one alone does not condemn a layer of many: its
# inputs may be 0 in nearly all samples, as those behind a ReLU that is nearly dead.
MOST = 3.0


class MeanAndVariance(NamedTuple):
    """A mean and a variance per channel, float64."""

    mean: np.ndarray
    variance: np.ndarray


def shift(these: MeanAndVariance, others: MeanAndVariance, epsilon: float) -> np.ndarray:
    """Per channel, how far these means are from the others, in standard deviations of the others."""
    with np.errstate(all="ignore"):
        return (these.mean - others.mean) / np.sqrt(others.variance + epsilon)


def variance_ratio(these: MeanAndVariance, others: MeanAndVariance, epsilon: float) -> np.ndarray:
    """Per channel, how many times the others these variances are, epsilon added to both."""
    with np.errstate(all="ignore"):
        return (these.variance + epsilon) / (others.variance + epsilon)


def channel_drift(moving: MeanAndVariance, population: MeanAndVariance, epsilon: float) -> np.ndarray:
    """Per channel, how far normalised values are from what the data's own statistics would make them.

    The root of the mean square over the data, before gamma: 0 where the statistics are the data's, 1
    where the error is as large as the deviation of normalised values is.
    """
    with np.errstate(all="ignore"):
        divided_by = np.sqrt(moving.variance + epsilon)
        stretch = np.sqrt(population.variance + epsilon) / divided_by - 1
        offset = (population.mean - moving.mean) / divided_by
        varying = population.variance / (population.variance + epsilon)
        varying = np.where(np.isfinite(varying), varying, 0)  # variance and epsilon are 0
        return np.sqrt(np.square(stretch) * varying + np.square(offset))


def drift(moving: MeanAndVariance, population: MeanAndVariance, epsilon: float) -> float:
    """`channel_drift` of a layer: the root of the mean square over channels, each `MOST` at most."""
    channels = channel_drift(moving, population, epsilon)
    capped = np.minimum(np.where(np.isfinite(channels), channels, MOST), MOST)
    return float(np.sqrt(np.mean(np.square(capped))))
