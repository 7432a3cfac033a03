"""The figures in the README: rows of networks or shapes, a colour for each peer or runtime.

A ring is a ratio with oneDNN off, a dot one with oneDNN on.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import kinds
import matplotlib.pyplot as plt
import summary
from machine import Machine, listed
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.transforms import ScaledTranslation
from summary import Line, number


class Series(NamedTuple):
    """One colour: a peer, or what serves the model."""

    name: str
    kind: str
    color: str


class Group(NamedTuple):
    """Rows under a heading: of the comparisons of all series, those that most peers were measured on."""

    heading: str
    series: tuple[Series, ...]
    most: int  # rows
    # The size of images at which a row of its own has the mean of the first series over all networks.
    mean_at: int | None = None


class Figure(NamedTuple):
    title: str
    against: str  # for the axis
    groups: tuple[Group, ...]


class Drawn(NamedTuple):
    """A row of a figure: the line of each series that it was measured in."""

    name: str
    lines: list[tuple[Series, Line]]


# Colours that the colour-blind tell apart.
BLUE, SKY, RED, GREEN, PINK = "#0072b2", "#56b4e9", "#d55e00", "#009e73", "#cc79a7"
COMPILED = "Keras, both compiled by XLA"
FIGURES = {
    "training": Figure(
        "Training: a step with tfbn.BatchNorm, against its peers",
        "times as fast as with the peer's batch norm",
        (
            Group(
                "One layer, by shape",
                (
                    Series("Keras", kinds.LAYER, BLUE),
                    Series(COMPILED, kinds.LAYER_XLA, SKY),
                    Series("tf_keras", kinds.LAYER_TF_KERAS, RED),
                    Series("torch", kinds.LAYER_TORCH, GREEN),
                ),
                6,
            ),
            Group(
                "A whole model: tfbn.convert",
                (Series("Keras", kinds.MODEL, BLUE), Series(COMPILED, kinds.MODEL_XLA, SKY)),
                6,
            ),
        ),
    ),
    "serving": Figure(
        "Serving: what tfbn.export writes, against Keras' own SavedModel",
        "times as fast as Keras' SavedModel in TensorFlow",
        (
            Group(
                "Folded model, by what serves it",
                (
                    Series("SavedModel", kinds.SAVED_MODEL, BLUE),
                    Series("SavedModel, freeze=True", kinds.FREEZE, SKY),
                    Series("ONNX Runtime", kinds.ONNX_RUNTIME, RED),
                    Series("OpenVINO", kinds.OPENVINO, GREEN),
                    Series("LiteRT", kinds.LITERT, PINK),
                ),
                6,
                kinds.SERVED_SIZE,
            ),
        ),
    ),
}
SIZE = 8.5  # points
# Inches; a README shows about 830 pixels, 100 an inch. A row has a height for each line, and a gap.
WIDTH, LEFT, RIGHT, TOP, BOTTOM, LINE, GAP = 8.3, 2.35, 0.95, 1.2, 0.5, 0.135, 0.1
COLUMNS = {"off": 0.45, "on": 0.85}  # of the numbers, from the plot's right edge
TICKS = (0.2, 0.3, 0.5, 0.7, 1, 1.5, 2, 3, 4, 6, 8, 12)


def rows_of(group: Group, measured: dict[str, list[Line]]) -> list[Drawn]:
    """The rows of a group, those where tfbn gains most on the first peers on top, and the mean."""
    found: dict[str, list[tuple[Series, Line]]] = {}
    for series in group.series:
        for line in measured.get(series.kind, []):
            found.setdefault(line.name, []).append((series, line))
    rows = sorted((Drawn(*row) for row in found.items()), key=lambda row: -len(row.lines))
    rows = sorted(rows[: group.most], key=lambda row: -gain(row.lines[0][1]))
    first = group.series[0]
    alike = [line for line in measured.get(first.kind, []) if line.name.endswith(f" {group.mean_at} px")]
    if len(alike) > 1:
        name = f"{len(alike)} networks at {group.mean_at} px, mean"
        rows.append(Drawn(name, [(first, summary.mean(name, alike))]))
    return rows


def gain(line: Line) -> float:
    """The mean ratio of both settings."""
    found = summary.range_of([line.off, line.on])
    return found.mean if found else 0.0


def write(axes: Axes, side: int, inches: float, height: float, text: str, **style: Any) -> None:
    """Write text `inches` to the right of the plot's left (0) or right (1) edge, at a row's height."""
    shift = ScaledTranslation(inches, 0, axes.figure.dpi_scale_trans)
    place = axes.get_yaxis_transform() + shift
    axes.text(side, height, text, transform=place, fontsize=SIZE, va="center_baseline", **style)


def draw_line(axes: Axes, height: float, color: str, line: Line) -> None:
    """Draw a comparison: ring and dot, a line between them, and the numbers at the right."""
    known = [ratio for ratio in (line.off, line.on) if ratio is not None]
    axes.plot(known, [height] * len(known), color=color, linewidth=1.5, alpha=0.5, zorder=2)
    # The ring is the larger one: both can be seen where they meet.
    for ratio, face, area in ((line.off, "white", 34), (line.on, color, 20)):
        if ratio is not None:
            axes.scatter(ratio, height, area, face, edgecolors=color, linewidths=1.3, zorder=3)
    for setting, ratio in (("off", line.off), ("on", line.on)):
        write(axes, 1, COLUMNS[setting], height, number(ratio), ha="right")


def draw_rows(axes: Axes, groups: list[tuple[str, list[Drawn]]]) -> float:
    """Draw all rows from the top, in inches, every second one shaded; returns where they end."""
    height = 0.0
    for heading, rows in groups:
        write(axes, 0, 0.05 - LEFT, height + 0.1, heading, fontweight="bold")
        height += 0.22
        for index, (name, lines) in enumerate(rows):
            end = height + LINE * len(lines) + GAP
            if index % 2 == 0:
                axes.axhspan(height, end, color="#f3f3f3", zorder=0)
            write(axes, 0, 0.15 - LEFT, (height + end) / 2, name)
            for place, (series, line) in enumerate(lines):
                draw_line(axes, height + GAP / 2 + LINE * (place + 0.5), series.color, line)
            height = end
    return height


def scale(axes: Axes) -> None:
    """Make the axis of ratios logarithmic: a ratio and its inverse are equally far from 1."""
    axes.set_yticks([])
    axes.set_xscale("log")
    low, high = axes.get_xlim()
    ticks = [tick for tick in TICKS if low <= tick <= high]
    axes.set_xticks(ticks, [f"{tick}×" for tick in ticks], fontsize=SIZE)
    axes.set_xticks([], minor=True)
    axes.grid(axis="x", color="#dddddd", linewidth=0.6)
    axes.axvline(1, color="black", linewidth=1.2, zorder=1)
    axes.set_axisbelow(True)
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)


def legend(axes: Axes, rows: list[Drawn], machine: Machine) -> None:
    """Above the plot: the series that were measured, with their versions, and the settings."""
    series = dict.fromkeys((each.name, each.color) for row in rows for each, _ in row.lines)
    style: dict[str, Any] = {"marker": "o", "linestyle": "", "markersize": 5}
    handles = [
        Line2D([], [], color="#555555", markerfacecolor=face, label=f"oneDNN {setting}", **style)
        for setting, face in (("off", "white"), ("on", "#555555"))
    ]
    handles += [
        Line2D([], [], color=color, label=f"{name} {machine.peers.get(name, '')}".strip(), **style)
        for name, color in series
    ]
    place = ScaledTranslation(0.02, -0.66, axes.figure.dpi_scale_trans)
    axes.figure.legend(
        handles=handles,
        loc="upper left",
        bbox_to_anchor=(0, 1),
        bbox_transform=axes.figure.transFigure + place,
        ncols=4,
        fontsize=SIZE,
        frameon=False,
        borderaxespad=0,
        handletextpad=0.1,
        columnspacing=1.4,
    )


def draw(figure: Figure, measured: dict[str, list[Line]], machine: Machine, path: Path) -> bool:
    """Write a figure, `WIDTH` inches wide, to `path`, and return whether it has any row."""
    groups = [(group.heading, rows_of(group, measured)) for group in figure.groups]
    groups = [(heading, rows) for heading, rows in groups if rows]
    if not groups:
        return False
    drawn = plt.figure()
    axes = drawn.add_axes((0, 0, 1, 1))
    height = draw_rows(axes, groups)
    whole = TOP + height + BOTTOM
    drawn.set_size_inches(WIDTH, whole)
    axes.set_position((LEFT / WIDTH, BOTTOM / whole, (WIDTH - LEFT - RIGHT) / WIDTH, height / whole))
    axes.set_ylim(height, 0)
    for setting, place in COLUMNS.items():
        write(axes, 1, place, 0.1, setting, ha="right", fontweight="bold")
    write(axes, 1, COLUMNS["on"], -0.07, "oneDNN", ha="right")
    scale(axes)
    axes.set_xlabel(figure.against, fontsize=SIZE)
    legend(axes, [row for _, rows in groups for row in rows], machine)
    top = {"va": "top", "x": 0.05 / WIDTH}
    drawn.text(y=1 - 0.06 / whole, s=figure.title, fontsize=SIZE + 2, fontweight="bold", **top)
    told = f"{machine.hardware}\n{listed(machine.versions)}"
    drawn.text(y=1 - 0.3 / whole, s=told, fontsize=SIZE - 1, **top)
    drawn.savefig(path, dpi=200)
    plt.close(drawn)
    return True
