"""Bring rows of both settings of the switch side by side, and tell their ranges."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from math import exp, fsum, log
from typing import NamedTuple

from measure import Row
from rich.table import Table


class Line(NamedTuple):
    """The ratios of one comparison with oneDNN off and on; `None` where it was not measured."""

    name: str
    off: float | None
    on: float | None
    # Of the subject; `None` in a mean.
    milliseconds_off: float | None = None
    milliseconds_on: float | None = None


class Range(NamedTuple):
    lowest: float
    highest: float
    mean: float  # geometric

    def __str__(self) -> str:
        ends = {f"{self.lowest:.2f}": None, f"{self.highest:.2f}": None}
        return " to ".join(ends)


def side_by_side(rows: Iterable[Row]) -> dict[str, list[Line]]:
    """The lines of each kind of comparison, in the order of their first measurement."""
    kinds: dict[str, dict[str, dict[bool, Row]]] = {}
    for row in rows:
        kinds.setdefault(row.kind, {}).setdefault(row.name, {})[row.onednn] = row
    return {
        kind: [line_of(name, found.get(False), found.get(True)) for name, found in names.items()]
        for kind, names in kinds.items()
    }


def line_of(name: str, off: Row | None, on: Row | None) -> Line:
    rows = off, on
    return Line(name, *(row and row.ratio for row in rows), *(row and row.subject for row in rows))


def range_of(ratios: Iterable[float | None]) -> Range | None:
    """The range of the ratios that were measured; `None` if none was."""
    known = [ratio for ratio in ratios if ratio is not None]
    if not known:
        return None
    return Range(min(known), max(known), exp(fsum(map(log, known)) / len(known)))


def ranges(lines: list[Line]) -> dict[str, Range | None]:
    """The range over both settings, and over each alone."""
    off, on = [line.off for line in lines], [line.on for line in lines]
    return {"both": range_of(off + on), "off": range_of(off), "on": range_of(on)}


def with_mean(lines: list[Line]) -> list[Line]:
    """The lines and, if there are three or more, their geometric mean."""
    if len(lines) < 3:
        return lines
    return [*lines, mean(f"geometric mean of {len(lines)}", lines)]


def mean(name: str, lines: list[Line]) -> Line:
    """The geometric mean of lines; a setting has one only if all were measured under it."""
    means = []
    for ratios in ([line.off for line in lines], [line.on for line in lines]):
        found = range_of(ratios) if None not in ratios else None
        means.append(found and found.mean)
    return Line(name, *means)


def sentences(kinds: dict[str, list[Line]]) -> Iterator[str]:
    """A sentence for each kind, with the ranges over both settings and over each."""
    for kind, lines in kinds.items():
        found = ranges(lines)
        apart = ", ".join(f"{setting} {found[setting]}" for setting in ("off", "on") if found[setting])
        yield f"{kind}: {found['both']} times as fast (oneDNN {apart})"


def number(ratio: float | None) -> str:
    return "–" if ratio is None else f"{ratio:.2f}"


def table(kinds: dict[str, list[Line]], title: str) -> Table:
    table = Table("", title=title)
    for setting in ("off", "on"):
        table.add_column(f"ratio\noneDNN {setting}", justify="right")
    for kind, lines in kinds.items():
        table.add_row(kind, style="bold")
        for line in with_mean(lines):
            table.add_row(f"  {line.name}", number(line.off), number(line.on))
        table.add_section()
    return table
