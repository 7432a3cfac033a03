"""What some batches amount to, as a value: those of all shards of a data set add up to the whole."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import reduce
from pathlib import Path
from typing import Any

import numpy as np

from ..files import npz
from ..files.atomic import staged
from ..moments import Moments, add_moments

HOW = "tfbn.Statistics.save writes such files."
HEAD = "statistics"  # the array with all that is not per channel


@dataclass(frozen=True, eq=False)
class Statistics:
    """Mean, variance and count of what reaches each batch norm of a model, over some batches.

    `tfbn.measure` makes them of a part of the data; those of the other parts, measured in other
    processes or on other machines, are added by `merge`, in any order. `tfbn.recalibrate` and
    `tfbn.population_statistics` take the sum in place of data. Size: three float64 numbers a channel.

        >>> from tfbn import Statistics
        >>> Statistics().merge(Statistics(batches=2, samples=64, weights="a")).samples
        64

    Attributes:
        moments: by the path of the batch norm, per channel: the mean, the biased variance and the count
            of values, float64 arrays. A count may be 0.
        unused: why training does not use a batch norm's batch, by path.
        batches: how many batches they are of.
        samples: how many samples.
        weights: a digest of the weights that they were measured with. Only statistics of the same ones
            add up, and only such a model takes them. `Statistics()` is of no data and fits all.
    """

    moments: Mapping[str, Moments] = field(default_factory=dict)
    unused: Mapping[str, str] = field(default_factory=dict)
    batches: int = 0
    samples: int = 0
    weights: str = ""

    def merge(self, *others: Statistics) -> Statistics:
        """The statistics of all these data together, as if measured in one pass.

        In another order they differ by the rounding of float64. (Chan, Golub & LeVeque, 1979.)

        Raises:
            ValueError: measured with other weights.
        """
        return reduce(_together, others, self)

    def count(self, path: str) -> int:
        """Values behind the channel of a batch norm that has the fewest."""
        return int(np.min(self.moments[path].count)) if path in self.moments else 0

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write an `.npz` file, in one step: what was there is replaced when the new one is whole.

        Raises:
            OSError: nothing can be written there.
        """
        head = {name: getattr(self, name) for name in ("batches", "samples", "weights")}
        head |= {"paths": [*self.moments], "unused": dict(self.unused)}
        arrays: dict[str, Any] = {HEAD: np.array(json.dumps(head))}
        for number, moments in enumerate(self.moments.values()):
            arrays |= {f"{part}{number}": getattr(moments, part) for part in Moments._fields}
        with staged(Path(path), overwrite=True) as new, new.open("wb") as file:
            np.savez(file, **arrays)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Statistics:
        """Read what `save` wrote.

        Raises:
            FileNotFoundError: there is no such file.
            ValueError: it is another file, or a damaged one.
        """
        if not os.path.exists(path):
            raise FileNotFoundError(f"There is no file {os.fspath(path)}. {HOW}")
        arrays = npz.read(path, HOW)
        try:
            head = json.loads(str(arrays[HEAD]))
            return cls(moments=_read(head.pop("paths"), arrays), **head)
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(
                f"{os.fspath(path)} does not hold statistics, or is damaged: {error}. {HOW}"
            ) from error


def _read(paths: list[str], arrays: Mapping[str, np.ndarray]) -> dict[str, Moments]:
    """The moments of a file, looked at.

    Raises:
        KeyError, ValueError: they are none.
    """
    found = {}
    for number, path in enumerate(paths):
        mean, variance, count = parts = [arrays[f"{part}{number}"] for part in Moments._fields]
        if not all(part.dtype == np.float64 and part.shape == mean.shape for part in parts):
            raise ValueError(f"the arrays of {path!r} do not fit each other")
        if not np.isfinite(parts).all() or np.min(variance, initial=0) < 0 or np.min(count) < 0:
            raise ValueError(f"those of {path!r} are no mean, variance and count")
        found[path] = Moments(mean, variance, count)
    return found


def _together(one: Statistics, other: Statistics) -> Statistics:
    if not (one.weights and other.weights):
        return one if one.weights else other
    if one.weights != other.weights:
        raise ValueError(
            "Statistics that were measured with other weights, or other names of layers, do not add up. "
            "Measure all parts of the data with one model, loaded from one file."
        )
    both = dict(one.moments)
    for path, moments in other.moments.items():
        both[path] = _added(both[path], moments) if path in both else moments
    return Statistics(
        both,
        {**one.unused, **other.unused},
        one.batches + other.batches,
        one.samples + other.samples,
        one.weights,
    )


def _added(one: Moments, other: Moments) -> Moments:
    return Moments(*(np.asarray(part) for part in add_moments(one, other)))
