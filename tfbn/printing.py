"""Reports as tables for the terminal; messages with options of the command instead of arguments."""

from __future__ import annotations

import re

from rich.table import Table

from .data_format.support import CONVERT
from .export import ExportReport
from .folding import FoldReport
from .messages import join_some

# Arguments of `export` and `upgrade` as messages for Python name them.
ARGUMENT = re.compile(
    r"\b(samples|weights|keras_version|backend|data_format|custom_objects|fold|freeze|overwrite)="
    r"(?:'([^']*)'|\{[^}]*\}|(True|False)\b)?"
)


def as_options(message: str) -> str:
    """A message with the command's options in place of Python's arguments."""
    message = message.replace(CONVERT, "--data-format channels_last")
    return ARGUMENT.sub(_option, message.replace("input_names must", "--input-name must"))


def _option(argument: re.Match[str]) -> str:
    name, value, flag = argument.groups()
    if flag or name == "freeze":
        return f"--{'no-' * (flag == 'False')}{name}"
    if name == "custom_objects":
        return f"{argument[0]} to compat.load_model, in Python"
    return f"--{name.replace('_', '-')} {value or 'FILE'}"


def fold_table(report: FoldReport) -> Table:
    table = Table(title=f"{len(report.folded)} of {len(report.entries)} batch norms folded")
    table.add_column("batch norm")
    table.add_column("class")
    table.add_column("went into, or stays because")
    for entry in report.entries:
        table.add_row(
            entry.path,
            entry.kind,
            ", ".join(entry.into) or f"[yellow]stays:[/] {as_options(entry.reason or '')}",
        )
    return table


def export_table(report: ExportReport) -> Table:
    table = Table(title=f"SavedModel {report.path}", show_header=False)
    table.add_row("largest difference", f"{report.difference:.3g}")
    table.add_row("relative to the outputs", f"{report.relative_difference:.3g}")
    table.add_row("compared on", f"{report.samples} samples, and one alone")
    if report.sensitivity is not None:
        table.add_row("the inputs' last digit does", f"{report.sensitivity:.3g}")
    if report.in_training:
        table.add_row("run as in training", join_some(report.in_training))
    if report.doubts:
        table.add_row("but", as_options(report.doubts))
    table.add_row("weights", report.weights)
    for title, tensors in (("input", report.inputs), ("output", report.outputs)):
        for name, (shape, dtype) in tensors.items():
            table.add_row(f"{title} {name!r}", f"{dtype} {shape}")
    return table
