"""The command `tfbn`."""

from __future__ import annotations

import importlib
import re
import sys
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
from .batch_norms import layer_paths
from .compat.model_files import LegacyReport
from .compat.model_files.reading import archive
from .compat.upgrade import DEFAULT_RTOL, upgrade
from .convert import convert
from .export import export
from .export.checks import compare_models
from .files import npz
from .files.atomic import staged
from .folding import fold
from .folding.keras.precision import POLICIES, all_finite
from .messages import one_line, other_file
from .printing import as_options, export_table, fold_table

MODEL = click.Path(exists=True, path_type=Path)
FILE = click.Path(exists=True, dir_okay=False, path_type=Path)
OUT = click.Path(path_type=Path)

_CHANNELS_LAST = click.option(
    "--data-format",
    type=click.Choice(["channels_last"]),
    help="Make channels-first layers channels last before; inputs and outputs keep their layout.",
)


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="tfbn")
def main() -> None:
    """Fold batch norms away, export verified SavedModels, and bring old models to Keras 3."""


_IMPORT = click.option(
    "--import",
    "modules",
    multiple=True,
    metavar="MODULE",
    help="Import a module that registers classes of MODEL's, as often as needed.",
)
_SAMPLES = click.option(
    "--samples", type=FILE, help="NPZ file of inputs to compare on, by name: numpy.savez('x.npz', x=x)."
)


@main.command("export")
@click.argument("model", type=MODEL)
@click.argument("out", type=OUT)
@click.option("--no-fold", is_flag=True, help="Leave the batch norms where they are.")
@click.option("--overwrite", is_flag=True, help="Replace a SavedModel that is already there.")
@_SAMPLES
@click.option("--version", type=click.IntRange(min=0), help="Write OUT/VERSION, for TensorFlow Serving.")
@click.option(
    "--freeze/--no-freeze",
    default=None,
    help="Weights as constants: sooner answers, more memory. Default: constants up to 40 MB of weights.",
)
@click.option(
    "--input-name",
    "input_names",
    multiple=True,
    help="Name of an input in the signature, once for each, in the model's order.",
)
@_CHANNELS_LAST
@_IMPORT
def export_command(
    model: Path,
    out: Path,
    no_fold: bool,
    samples: Path | None,
    version: int | None,
    data_format: str | None,
    modules: tuple[str, ...],
    input_names: tuple[str, ...],
    **arguments: Any,
) -> None:
    """Write MODEL as a folded, verified SavedModel to OUT."""
    if version is not None:
        out = out / str(version)
    if out.exists() and not arguments["overwrite"]:
        raise click.ClickException(f"{out} exists already. Pass --overwrite to replace it.")
    loaded = _load(model, modules)
    with _one_line_errors(options=True):
        loaded = _turned(loaded, data_format)
        given = None if samples is None else _arrays(samples)
        arguments["input_names"] = input_names or None
        report = export(loaded, out, fold=not no_fold, samples=given, **arguments)
    console = Console()
    if report.fold is not None:
        console.print(fold_table(report.fold))
    console.print(export_table(report))


@main.command("fold")
@click.argument("model", type=MODEL)
@click.argument("out", type=OUT)
@click.option(
    "--dtype",
    type=click.Choice(POLICIES),
    help="Precision of the result; folded weights are rounded once.",
)
@_SAMPLES
@_CHANNELS_LAST
@_IMPORT
@click.option("--overwrite", is_flag=True, help="Replace a file that is already at OUT.")
def fold_command(
    model: Path,
    out: Path,
    dtype: str | None,
    samples: Path | None,
    data_format: str | None,
    modules: tuple[str, ...],
    overwrite: bool,
) -> None:
    """Write MODEL with its batch norms folded to OUT.keras, if it computes the same."""
    _check_keras_file(out, "OUT", overwrite)
    if out.exists() and out.samefile(model):
        raise click.ClickException(f"{out} is MODEL itself, which could not be trained then.")
    loaded = _load(model, modules)
    _check_finite(loaded)
    with _one_line_errors(options=True):
        loaded = _turned(loaded, data_format)
        folded, report = fold(loaded, dtype)
        given = None if samples is None else _arrays(samples)
        compared = _compared(loaded, folded, given, dtype)
        with staged(out, overwrite) as staging:
            folded.save(staging)
    console = Console()
    console.print(fold_table(report))
    console.print(f"{compared}\nWritten to {out}", highlight=False, soft_wrap=True)


@main.command("upgrade")
@click.argument("old", type=MODEL)
@click.argument("new", type=OUT, metavar="NEW.keras")
@click.option("--weights", type=FILE, help="HDF5 file of the weights, if OLD is JSON.")
@click.option("--keras-version", metavar="X.Y.Z", help="Keras that wrote OLD, if OLD does not say.")
@click.option(
    "--backend",
    type=click.Choice(["theano", "tensorflow", "cntk"], case_sensitive=False),
    help="Backend that it ran on, likewise.",
)
@click.option(
    "--data-format",
    type=click.Choice(["channels_first", "channels_last"]),
    help="channels_first keeps the layers of OLD as they are; otherwise they become channels last.",
)
@click.option(
    "--reference",
    type=FILE,
    help="What OLD predicted. In the old Keras: numpy.savez('ref.npz', x=x, y=model.predict(x)).",
)
@click.option(
    "--rtol",
    type=click.FloatRange(min=0),
    help=f"Allowed of the largest |y|, {DEFAULT_RTOL:g} if not told.",
)
@click.option("--overwrite", is_flag=True, help="Replace a file that is already at NEW.")
def upgrade_command(old: Path, new: Path, rtol: float | None, **arguments: Any) -> None:
    """Bring OLD, a model of Keras 1 or 2, to Keras 3.

    OLD is HDF5, .keras of Keras 2, model.json of TensorFlow.js beside its shards, or JSON with
    --weights. What each batch norm was and became is shown; with --reference
    the new model is compared with the old one's own predictions, and written only if they agree.
    """
    _check_keras_file(new, "NEW", arguments["overwrite"])
    if rtol is not None and arguments["reference"] is None:
        raise click.ClickException("--rtol is for --reference, which is missing.")
    with _one_line_errors(options=True):
        report = upgrade(old, new, rtol=DEFAULT_RTOL if rtol is None else rtol, **arguments)
    console = Console(soft_wrap=True, highlight=False)
    if report.legacy.batch_norms:
        Console().print(_upgrade_table(report.legacy))
    if report.difference is None:
        console.print("Not compared with what OLD predicted: pass --reference for that.")
    else:
        off = f"{report.difference:.2g} of the largest prediction, in {report.samples} samples"
        console.print(f"Differs from the reference by at most {off}.")
    console.print(f"Written to {new}. It loads after: import tfbn.compat")


def _turned(model: keras.Model, data_format: str | None) -> keras.Model:
    return model if data_format is None else convert(model, data_format=data_format)


def _check_keras_file(path: Path, name: str, overwrite: bool) -> None:
    if path.suffix != ".keras":
        raise click.ClickException(f"{name} must end in .keras, received {path}.")
    if path.is_dir():
        raise click.ClickException(f"{path} is a directory. Choose another name for the file.")
    if path.exists() and not overwrite:
        raise click.ClickException(f"{path} exists already. Pass --overwrite to replace it.")


def _arrays(path: Path) -> dict[str, Any] | Any:
    """The arrays of an NPZ file by name, or its only array."""
    arrays = npz.read(path, "Write it by numpy.savez('x.npz', x=x).")
    return next(iter(arrays.values())) if len(arrays) == 1 else arrays


def _compared(model: keras.Model, folded: keras.Model, samples: Any, dtype: str | None) -> str:
    """How far a folded model is from the model, in words.

    A model that cannot be run on random samples is not compared, unless samples were given.
    """
    try:
        found = compare_models(model, folded, samples, rounded=dtype is not None)
    except ValueError as error:
        if samples is not None:
            raise
        return f"Not compared. {as_options(str(error))}"
    return (
        f"Differs from the model by at most {found.relative:.2g} of the largest output, on "
        f"{found.samples} samples."
    )


def _check_finite(model: keras.Model) -> None:
    for path, layer in layer_paths(model).items():
        if not all_finite(layer):
            raise click.ClickException(
                f"The weights of the layer {path!r} hold NaN or infinity. Mend them, or train again."
            )


def _load(path: Path, modules: tuple[str, ...]) -> keras.Model:
    if modules and "" not in sys.path:
        sys.path.insert(0, "")  # as `python -m` does: the module may be in the current folder
    for module in modules:
        try:
            importlib.import_module(module)
        except Exception as error:  # the module may be anybody's
            raise click.ClickException(f"--import {module} fails: {one_line(error)}") from error
    if path.suffix == ".keras" and not zipfile.is_zipfile(path):
        raise click.ClickException(
            f"{path} cannot be loaded as a Keras model: it is no .keras (zip) file."
        )
    if (other := other_file(path)) is not None:
        raise click.ClickException(f"{path} cannot be loaded as a Keras model: {other}.")
    hint = ""
    if path.suffix in (".h5", ".hdf5", ".json") or (archive.version(str(path)) or "").startswith("2."):
        hint = f"If Keras 1 or 2 wrote it: tfbn upgrade {path} NEW.keras. "
    try:
        return keras.models.load_model(path)
    except Exception as error:
        if re.search("Could not locate|cannot be imported", str(error)):
            hint += (
                "Name the module that registers classes and functions of your own (with "
                "@keras.saving.register_keras_serializable()): --import MODULE. "
            )
        if "safe_mode" in str(error):
            hint += "Models with a Python lambda inside are loaded in Python only: safe_mode=False. "
        raise click.ClickException(
            f"{path} cannot be loaded as a Keras model. {hint}Keras says: {one_line(error)}"
        ) from error


@contextmanager
def _one_line_errors(options: bool = False) -> Iterator[None]:
    """Report any error in the block in one line, with exit status 1.

    Args:
        options: whether to write arguments in the message, `backend='theano'`, as the command's
            options.
    """
    try:
        yield
    except Exception as error:
        # Not `one_line`, which would cut off the remedy at the end of a long message of ours.
        message = " ".join(str(error).split()) or type(error).__name__
        raise click.ClickException(as_options(message) if options else message) from error


def _upgrade_table(legacy: LegacyReport) -> Table:
    count = len(legacy.batch_norms)
    turned = ", turned to channels last" * legacy.turned
    by = f"Keras {legacy.keras_version or 'of unknown version'}, backend {legacy.backend or 'not told'}"
    table = Table(title=f"{count} batch norm{'s' * (count > 1)}, written by {by}{turned}")
    for column in ("batch norm", "mode", "held a", "became"):
        table.add_column(column, overflow="fold")
    for entry in legacy.batch_norms:
        table.add_row(entry.path, str(entry.mode), entry.stored, entry.became)
    return table
