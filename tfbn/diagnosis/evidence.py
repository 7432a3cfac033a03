"""What is known of one batch norm after the pass, as numbers from which a verdict follows."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from ..population.drift import MOST, MeanAndVariance, channel_drift, drift, shift, variance_ratio
from .layers import LayerNumbers

GRID = 201  # shares tried between none and all: a two-hundredth is finer than any limit asks


@dataclass(frozen=True, eq=False)
class Evidence:
    """One batch norm beside the data's statistics.

    Attributes:
        numbers: its settings and weights.
        population: mean and unbiased variance of its inputs over the data, per channel.
        count: values behind a channel.
        samples, batches: of the data that reached it.
        between: per channel, the share of the variance that is between batches; `None` if unknown.
        steps: the optimizer's steps; `None` if unknown, or none.
        stddev: whether it averages deviations, as `BatchRenorm` does, in place of variances.
    """

    numbers: LayerNumbers
    population: MeanAndVariance
    count: int
    samples: int
    batches: int
    between: np.ndarray | None = None
    steps: int | None = None
    stddev: bool = False

    @property
    def moving(self) -> MeanAndVariance:
        return MeanAndVariance(self.numbers.moving_mean, self.numbers.moving_variance)

    @property
    def shift(self) -> np.ndarray:
        """Per channel: how far the moving mean is off, in standard deviations of the data."""
        return shift(self.moving, self.population, self.numbers.epsilon)

    @property
    def variance_ratio(self) -> np.ndarray:
        """Per channel: how many times the data's variance the moving one is."""
        return variance_ratio(self.moving, self.population, self.numbers.epsilon)

    @property
    def channel_drift(self) -> np.ndarray:
        """Per channel: how far normalised values are off; 1 is as far as they deviate themselves."""
        return np.minimum(channel_drift(self.moving, self.population, self.numbers.epsilon), MOST)

    @property
    def drift(self) -> float:
        """The root of the mean square of `channel_drift`."""
        return drift(self.moving, self.population, self.numbers.epsilon)

    @property
    def residue(self) -> float | None:
        """The share of the initial values in a moving average after so many steps: `decay ** steps`."""
        decay = self.numbers.decay
        return None if decay is None or self.steps is None else decay**self.steps

    @property
    def values_a_batch(self) -> float | None:
        """How many independent values a batch has for a channel, by how its means scatter.

        Fewer than there are values, where those of one sample are alike.
        """
        if self.between is None:
            return None
        varying = self.between[self.population.variance > 0]
        if not varying.size:
            return None
        share = float(np.median(varying))
        # A share of 0, or nearly: batch norms before it gave all batches the same mean.
        return float(1 / np.maximum(share, self.batches / self.count))

    def residue_found(self) -> tuple[float, float]:
        """The share of initial values that explains the statistics best, and the drift it leaves.

        Not more than `residue`, where that is known: an optimizer that began anew has counted fewer
        steps than there were.
        """
        most = 1.0 if self.residue is None else self.residue
        return self._best(self._held, np.linspace(0, most, GRID))

    def batch_found(self, sizes: np.ndarray) -> tuple[float, float]:
        """The size of the batches of training, in samples, that explains it best, and what is left.

        Within batches of b samples a variance is smaller than that of all by what is between such
        batches, `between` times samples a batch, over b.
        """
        return self._best(self._within_batches, sizes)

    def _best(
        self, expected: Callable[[float], MeanAndVariance], values: np.ndarray
    ) -> tuple[float, float]:
        epsilon = self.numbers.epsilon
        left = [drift(self.moving, expected(float(value)), epsilon) for value in values]
        best = int(np.argmin(left))
        return float(values[best]), left[best]

    def _held(self, share: float) -> MeanAndVariance:
        """The moving statistics that hold so much of their initial values, and else are the data's."""
        mean, variance = self.numbers.initial
        held = share * mean + (1 - share) * self.population.mean
        if not self.stddev:
            return MeanAndVariance(held, share * variance + (1 - share) * self.population.variance)
        epsilon = self.numbers.epsilon
        deviation = share * variance**0.5 + (1 - share) * np.sqrt(self.population.variance + epsilon)
        return MeanAndVariance(held, np.maximum(np.square(deviation) - epsilon, 0))

    def _within_batches(self, size: float) -> MeanAndVariance:
        between = np.zeros(self.numbers.channels) if self.between is None else self.between
        lost = np.nan_to_num(between) * (self.samples / self.batches) / size
        return MeanAndVariance(self.population.mean, self.population.variance * np.maximum(1 - lost, 0))
