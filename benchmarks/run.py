"""Speed against peers, as ratios of medians in one process, subject and peer taken in turns.

    python benchmarks/run.py [--rounds 40]

Prints a table, writes `benchmarks/results.json` and draws `docs/benchmarks.png`. A ratio above 1 means
that tfbn is faster. Where torch is installed, its `BatchNorm2d` is one more peer.
"""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
from pathlib import Path

import click
import keras
import matplotlib.pyplot as plt
import serving
import tensorflow as tf
import training
from measure import Row
from rich.console import Console
from rich.table import Table

import tfbn

RESULTS = Path(__file__).with_name("results.json")
CHART = Path(__file__).parent.parent / "docs" / "benchmarks.png"


def fold_memory() -> float:
    """As `memory.py` says, in a process of its own."""
    script = [sys.executable, str(Path(__file__).with_name("memory.py"))]
    return float(subprocess.run(script, check=True, capture_output=True, text=True).stdout)


def draw(measured: list[Row], title: str) -> None:
    """A bar for each ratio, the peer's time at 1; of the frozen models their mean only."""
    measured = [row for row in measured if "frozen" not in row.name or "mean" in row.name]
    figure, axes = plt.subplots(figsize=(9, 0.27 * len(measured) + 1.2))
    names = [row.name for row in reversed(measured)]
    bars = axes.barh(names, [row.ratio for row in reversed(measured)], color="#3b6ea5")
    axes.bar_label(bars, fmt="%.2f×", padding=3, fontsize=8)
    axes.axvline(1, color="black", linewidth=0.8)
    axes.set_xlabel("times as fast as the peer (median of interleaved runs)")
    axes.set_title(title, fontsize=9)
    axes.tick_params(axis="y", labelsize=8)
    axes.margins(x=0.12, y=0.01)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    figure.tight_layout()
    CHART.parent.mkdir(exist_ok=True)
    figure.savefig(CHART, dpi=130)


@click.command()
@click.option("--rounds", default=40, show_default=True, help="Timed calls of each side.")
def main(rounds: int) -> None:
    """Run all comparisons."""
    measured = training.rows(rounds) + serving.rows(rounds)
    versions = {"tensorflow": tf.__version__, "keras": keras.__version__, "tfbn": tfbn.__version__}
    gpus = len(tf.config.list_logical_devices("GPU"))
    machine = f"{os.cpu_count()} {platform.machine()} cores, {gpus} GPUs"
    title = f"{machine}; " + ", ".join(f"{name} {version}" for name, version in versions.items())
    table = Table(title=title)
    for column in ("", "tfbn ms", "peer ms", "ratio"):
        table.add_column(column, justify="right" if column else "left")
    for row in measured:
        table.add_row(row.name, f"{row.subject:.2f}", f"{row.peer:.2f}", f"{row.ratio:.2f}")
    Console().print(table)
    draw(measured, title)
    memory = fold_memory()
    Console().print(f"fold adds {memory:.2f} times the weights to the peak memory of the process")
    report = {
        "machine": machine,
        **versions,
        "fold memory / weights": memory,
        "rows": [row._asdict() for row in measured],
    }
    RESULTS.write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
