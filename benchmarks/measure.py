"""Two sides measured in turns, and what came out."""

from __future__ import annotations

from collections.abc import Callable
from statistics import median
from time import perf_counter
from typing import NamedTuple

Run = Callable[[], object]


class Row(NamedTuple):
    """One comparison: medians in milliseconds, and peer / subject."""

    name: str
    subject: float
    peer: float

    @property
    def ratio(self) -> float:
        return self.peer / self.subject


def compare(name: str, subject: Run, peer: Run, rounds: int) -> Row:
    """Medians of both, taken in turns after three warm-up calls each."""
    for _ in range(3):
        subject(), peer()
    times: tuple[list[float], list[float]] = ([], [])
    for _ in range(rounds):
        for run, taken in zip((subject, peer), times, strict=True):
            start = perf_counter()
            run()
            taken.append(1000 * (perf_counter() - start))
    return Row(name, *map(median, times))
