"""What was measured of each batch norm, and why not of the others."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, eq=False)
class PopulationStatistics:
    """E[x] and Var[x] of a batch norm's input over a data set.

    Attributes:
        mean: float64, per channel.
        variance: float64, per channel, unbiased: m/(m−1) times the mean squared deviation.
        count: m, the number of values behind a channel (samples times positions, without masked
            ones); the smallest, should channels differ.

    >>> import keras, tfbn
    >>> model = keras.Sequential([keras.Input((1,)), tfbn.BatchNorm(name="bn")])
    >>> statistics = tfbn.population_statistics(model, np.arange(64.0)[:, None], verbose=0)["bn"]
    >>> print(statistics.mean, statistics.variance.round(2), statistics.count)
    [31.5] [346.67] 64
    """

    mean: np.ndarray
    variance: np.ndarray
    count: int


class Measurement(dict[str, PopulationStatistics]):
    """The population statistics of a model's batch norms by layer path, `"block/bn"`.

    `print(measurement)` shows a table with a line for each batch norm: the least and the greatest mean
    and variance of its channels, before and after, or why it was not measured.

    Attributes:
        left: why a batch norm was not measured, by path.
        before: the moving mean and moving variance of each measured batch norm when it was measured,
            float64, by path.

    >>> import keras, tfbn
    >>> model = keras.Sequential([keras.Input((1,)), tfbn.BatchNorm(name="bn")])
    >>> measurement = tfbn.recalibrate(model, np.arange(64.0)[:, None], verbose=0)
    >>> list(measurement), measurement.left
    (['bn'], {})
    """

    def __init__(
        self,
        measured: Mapping[str, PopulationStatistics],
        left: Mapping[str, str],
        before: Mapping[str, tuple[np.ndarray, np.ndarray]],
    ) -> None:
        super().__init__(measured)
        self.left = dict(left)
        self.before = dict(before)

    def __str__(self) -> str:
        header = ("", "values", "mean before", "measured", "variance before", "measured")
        lines = [header, *self._lines()] if self else []
        widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
        first = max([*widths[:1], *map(len, self.left)], default=0)
        table = [f"{len(self)} of {len(self) + len(self.left)} batch norms measured"]
        for name, *cells in lines:
            padded = (f"{cell:>{width}}" for cell, width in zip(cells, widths[1:], strict=True))
            table.append(f"  {name:{first}}  {'  '.join(padded)}")
        table += [f"  {path:{first}}  left: {reason}" for path, reason in self.left.items()]
        return "\n".join(table)

    def _lines(self) -> Iterator[tuple[str, ...]]:
        for path, statistics in self.items():
            mean, variance = self.before[path]
            ranges = (mean, statistics.mean, variance, statistics.variance)
            yield path, str(statistics.count), *map(_range, ranges)


def _range(values: np.ndarray) -> str:
    low, high = f"{np.min(values):.3g}", f"{np.max(values):.3g}"
    return low if low == high else f"{low} … {high}"
