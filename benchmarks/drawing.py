"""The chart in the README: for each comparison a dot with oneDNN off, and one with oneDNN on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.transforms import ScaledTranslation
from summary import Line, number, with_mean

COLORS = {"off": "#d1600f", "on": "#1f5fa8"}
SIZE = 8.5  # points
# Inches; a README shows about 830 pixels, 100 an inch.
WIDTH, LEFT, RIGHT, TOP, BOTTOM, ROW = 8.3, 2.45, 0.95, 0.75, 0.5, 0.17
COLUMNS = {"off": 0.5, "on": 0.9}  # of the numbers, from the plot's right edge
TICKS = (0.2, 0.3, 0.5, 0.7, 1, 1.5, 2, 3, 4, 6, 8, 12)


def shown(kinds: dict[str, list[Line]]) -> list[Line | str]:
    """The rows of the chart from the top: headings, lines and means; of frozen peers the mean only."""
    found: list[Line | str] = []
    for kind, lines in kinds.items():
        found += [kind, *with_mean(lines)[-1 if "frozen" in kind else 0 :]]
    return found


def write(axes: Axes, side: int, inches: float, height: float, text: str, **style: Any) -> None:
    """Write text `inches` to the right of the plot's left (0) or right (1) edge, at a row's height."""
    shift = ScaledTranslation(inches, 0, axes.figure.dpi_scale_trans)
    place = axes.get_yaxis_transform() + shift
    axes.text(side, height, text, transform=place, fontsize=SIZE, va="center_baseline", **style)


def draw_line(axes: Axes, height: int, line: Line) -> None:
    """Draw a comparison: its name, the dots, a line between them, and the numbers at the right."""
    write(axes, 0, 0.15 - LEFT, height, line.name)
    known = [ratio for ratio in (line.off, line.on) if ratio is not None]
    axes.plot(known, [height] * len(known), color="#bbbbbb", linewidth=1.5, zorder=2)
    for setting, ratio in (("off", line.off), ("on", line.on)):
        write(axes, 1, COLUMNS[setting], height, number(ratio), color=COLORS[setting], ha="right")
        if ratio is not None:
            axes.scatter(ratio, height, s=24, color=COLORS[setting], zorder=3)


def scale(axes: Axes, rows: int) -> None:
    """Make the axis of ratios logarithmic: a ratio and its inverse are equally far from 1."""
    axes.set_ylim(rows - 0.3, -1.5)
    axes.set_yticks([])
    axes.set_xscale("log")
    low, high = axes.get_xlim()
    ticks = [tick for tick in TICKS if low <= tick <= high]
    axes.set_xticks(ticks, [f"{tick}×" for tick in ticks], fontsize=SIZE)
    axes.set_xticks([], minor=True)
    axes.grid(axis="x", color="#eeeeee")
    axes.axvline(1, color="black", linewidth=0.8, zorder=1)
    axes.set_axisbelow(True)
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)


def draw(kinds: dict[str, list[Line]], title: str, path: Path) -> None:
    """Write the chart, `WIDTH` inches wide, to `path`."""
    rows = shown(kinds)
    height = ROW * (len(rows) + 1.2)
    whole = TOP + height + BOTTOM
    figure = plt.figure(figsize=(WIDTH, whole))
    axes = figure.add_axes(
        (LEFT / WIDTH, BOTTOM / whole, (WIDTH - LEFT - RIGHT) / WIDTH, height / whole)
    )
    for index, row in enumerate(rows):
        if isinstance(row, Line):
            draw_line(axes, index, row)
        else:
            box = {"facecolor": "white", "edgecolor": "none", "pad": 0.5}
            write(axes, 0, 0.05 - LEFT, index, row, fontweight="bold", bbox=box)
    for setting, color in COLORS.items():
        write(axes, 1, COLUMNS[setting], -1, setting, color=color, ha="right", fontweight="bold")
    write(axes, 1, COLUMNS["on"], -2, "oneDNN", ha="right")
    scale(axes, len(rows))
    axes.set_xlabel("times as fast as the peer (medians of interleaved runs)", fontsize=SIZE)
    figure.text(0.05 / WIDTH, 1 - 0.05 / whole, title, fontsize=SIZE, va="top")
    figure.savefig(path, dpi=200)
    plt.close(figure)
