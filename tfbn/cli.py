"""The command `tfbn`."""

from __future__ import annotations

import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click
import keras
from rich.console import Console
from rich.table import Table

from . import __version__
from .compat.upgrade import CLOSE, UpgradeReport, upgrade
from .export import ExportReport, export
from .export.staging import staged
from .folding import FoldReport, fold

MODEL = click.Path(exists=True, dir_okay=False, path_type=Path)
OUT = click.Path(path_type=Path)


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="tfbn")
def main() -> None:
    """Fold batch norms away, export verified SavedModels, and bring old models to Keras 3."""


@main.command("export")
@click.argument("model", type=MODEL)
@click.argument("out", type=OUT)
@click.option("--no-fold", is_flag=True, help="Leave the batch norms where they are.")
@click.option("--overwrite", is_flag=True, help="Replace a SavedModel that is already there.")
@click.option("--version", type=click.IntRange(min=0), help="Write OUT/VERSION, for TensorFlow Serving.")
def export_command(model: Path, out: Path, no_fold: bool, overwrite: bool, version: int | None) -> None:
    """Write MODEL as a folded, verified SavedModel to OUT."""
    if version is not None:
        out = out / str(version)
    if out.exists() and not overwrite:
        raise click.ClickException(f"{out} exists already. Pass --overwrite to replace it.")
    loaded = _load(model)
    with _one_line_errors():
        report = export(loaded, out, fold=not no_fold, overwrite=overwrite)
    console = Console()
    if report.fold is not None:
        console.print(_fold_table(report.fold))
    console.print(_export_table(report))


@main.command("fold")
@click.argument("model", type=MODEL)
@click.argument("out", type=OUT)
@click.option("--overwrite", is_flag=True, help="Replace a file that is already at OUT.")
def fold_command(model: Path, out: Path, overwrite: bool) -> None:
    """Write MODEL with its batch norms folded to OUT.keras."""
    _check_keras_file(out, "OUT", overwrite)
    loaded = _load(model)
    with _one_line_errors():
        folded, report = fold(loaded)
        with staged(out, overwrite) as staging:
            folded.save(staging)
    console = Console()
    console.print(_fold_table(report))
    console.print(f"Written to {out}", highlight=False)


@main.command("upgrade")
@click.argument("old", type=MODEL)
@click.argument("new", type=OUT)
@click.option("--weights", type=MODEL, help="HDF5 file with the weights, where OLD is JSON.")
@click.option("--keras-version", metavar="X.Y.Z", help="The Keras that wrote OLD, if OLD does not say.")
@click.option(
    "--backend", type=click.Choice(["theano", "tensorflow", "cntk"]), help="Its backend, likewise."
)
@click.option("--reference", type=MODEL, help="An .npz file: inputs x, and y, what OLD predicted.")
@click.option("--rtol", default=CLOSE, show_default=True, help="Difference allowed, of the largest |y|.")
@click.option("--overwrite", is_flag=True, help="Replace a file that is already at NEW.")
def upgrade_command(old: Path, new: Path, overwrite: bool, **arguments: Any) -> None:
    """Write OLD, a model of Keras 1 or 2 (HDF5, or JSON with --weights), to NEW.keras."""
    _check_keras_file(new, "NEW", overwrite)
    with _one_line_errors():
        report = upgrade(old, new, overwrite=overwrite, **arguments)
    console = Console()
    console.print(_upgrade_table(report))
    if report.difference is not None:
        shown = f"{report.difference:.2g} of the largest prediction, {report.samples} samples"
        console.print(f"Differs from the reference by at most {shown}", highlight=False)
    console.print(f"Written to {new}", highlight=False)


def _check_keras_file(path: Path, name: str, overwrite: bool) -> None:
    if path.suffix != ".keras":
        raise click.ClickException(f"{name} must end in .keras, received {path}.")
    if path.is_dir():
        raise click.ClickException(f"{path} is a directory. Choose another name for the file.")
    if path.exists() and not overwrite:
        raise click.ClickException(f"{path} exists already. Pass --overwrite to replace it.")


def _load(path: Path) -> keras.Model:
    if path.suffix == ".keras" and not zipfile.is_zipfile(path):
        raise click.ClickException(
            f"{path} cannot be loaded as a Keras model: it is no .keras (zip) file."
        )
    with _one_line_errors(f"{path} cannot be loaded as a Keras model: "):
        return keras.models.load_model(path)


@contextmanager
def _one_line_errors(before: str = "") -> Iterator[None]:
    """Answer whatever goes wrong in the block with one line and exit status 1."""
    try:
        yield
    except Exception as error:
        message = " ".join(str(error).split()) or type(error).__name__
        raise click.ClickException(before + message) from error


def _fold_table(report: FoldReport) -> Table:
    table = Table(title=f"{len(report.folded)} of {len(report.entries)} batch norms folded")
    table.add_column("batch norm")
    table.add_column("class")
    table.add_column("went into, or stays because")
    for entry in report.entries:
        table.add_row(entry.path, entry.kind, entry.into or f"[yellow]stays:[/] {entry.reason}")
    return table


def _export_table(report: ExportReport) -> Table:
    table = Table(title=f"SavedModel {report.path}", show_header=False)
    table.add_row("largest difference", f"{report.difference:.3g}")
    table.add_row("relative to the outputs", f"{report.relative_difference:.3g}")
    table.add_row("compared on", f"{report.samples} samples, and one alone")
    for title, tensors in (("input", report.inputs), ("output", report.outputs)):
        for name, (shape, dtype) in tensors.items():
            table.add_row(f"{title} {name!r}", f"{dtype} {shape}")
    return table


def _upgrade_table(report: UpgradeReport) -> Table:
    legacy = report.legacy
    writer = f"Keras {legacy.keras_version or '(version not told)'}, {legacy.backend or 'any backend'}"
    table = Table(title=f"{len(legacy.batch_norms)} batch norms, written by {writer}")
    for column in ("batch norm", "mode", "stored", "epsilon", "became"):
        table.add_column(column)
    for one in legacy.batch_norms:
        table.add_row(one.path, str(one.mode), one.stored, f"{one.epsilon:g}", one.became)
    return table
