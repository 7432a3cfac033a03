"""Reports as tables for the terminal."""

from __future__ import annotations

from rich.table import Table

from .export import ExportReport
from .folding import FoldReport
from .messages import join_some
from .options import as_options


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
    table = Table(title=f"{report.format} {report.path}", show_header=False)
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
