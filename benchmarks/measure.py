"""Measure a subject and its peer in turns."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable
from statistics import median
from time import perf_counter
from typing import NamedTuple

Run = Callable[[], object]

SWITCH = "TF_ENABLE_ONEDNN_OPTS"


class Row(NamedTuple):
    """One comparison under one setting of oneDNN: medians in milliseconds."""

    kind: str  # what is measured, against which peer
    name: str  # the shape or the network
    onednn: bool
    subject: float
    peer: float

    @property
    def ratio(self) -> float:
        return self.peer / self.subject


def compare(kind: str, name: str, subject: Run, peer: Run, rounds: int) -> Row:
    """The median times of both, called in turns after three warm-up calls each."""
    for _ in range(3):
        subject(), peer()
    times: tuple[list[float], list[float]] = ([], [])
    for _ in range(rounds):
        for run, taken in zip((subject, peer), times, strict=True):
            taken.append(milliseconds(run))
    return row(kind, name, *times)


def milliseconds(run: Run) -> float:
    start = perf_counter()
    run()
    return 1000 * (perf_counter() - start)


def row(kind: str, name: str, subject: list[float], peer: list[float]) -> Row:
    """The medians of what was timed under this process' setting."""
    return Row(kind, name, os.environ[SWITCH] == "1", median(subject), median(peer))


def tell(rows: Iterable[Row]) -> None:
    """Print each row as a line of JSON as soon as it is measured; `run.py` reads the lines."""
    for row in rows:
        print(json.dumps(row._asdict()), flush=True)
