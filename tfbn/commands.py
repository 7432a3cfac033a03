"""What the command `tfbn` does, once its arguments are read."""

from __future__ import annotations

# Of the package, and before Keras: so the package is whole, or says what is missing.
from . import convert, export, fold

# isort: split
import importlib
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click
import keras
from rich.console import Console
from rich.table import Table

from .batch_norms import layer_paths
from .compat import LegacyModelError, load_model
from .compat.model_files import LegacyReport
from .compat.model_files.reading import archive
from .compat.upgrade import upgrade
from .export.checks import compare_models
from .files import npz
from .files.atomic import staged
from .folding.keras.precision import all_finite
from .messages import is_graph, one_line
from .options import as_options
from .printing import export_table, fold_table


def export_model(
    model: Path,
    out: Path,
    *,
    no_fold: bool,
    samples: Path | None,
    data_format: str | None,
    modules: tuple[str, ...],
    **arguments: Any,
) -> None:
    """`tfbn export`."""
    if is_graph(model):
        import_modules(modules)
        if data_format is not None:
            raise click.ClickException("--data-format is for Keras models. Leave it out.")
        loaded: Any = model
    else:
        loaded = load(model, modules)
    told: dict[str, Any] = {name: None if value == () else value for name, value in arguments.items()}
    with one_line_errors(options=True):
        loaded = _turned(loaded, data_format)
        given = None if samples is None else arrays(samples)
        report = export(loaded, out, fold=not no_fold, samples=given, **told)
    console = Console()
    if report.fold is not None:
        console.print(fold_table(report.fold))
    console.print(export_table(report))


def fold_model(
    model: Path,
    out: Path,
    *,
    dtype: str | None,
    samples: Path | None,
    data_format: str | None,
    modules: tuple[str, ...],
    overwrite: bool,
) -> None:
    """`tfbn fold`."""
    loaded = load(model, modules)
    _check_finite(loaded)
    with one_line_errors(options=True):
        loaded = _turned(loaded, data_format)
        folded, report = fold(loaded, dtype)
        given = None if samples is None else arrays(samples)
        compared = _compared(loaded, folded, given, dtype)
        with staged(out, overwrite) as staging:
            folded.save(staging)
    console = Console()
    console.print(fold_table(report))
    console.print(f"{compared}\nWritten to {out}", highlight=False, soft_wrap=True)


def upgrade_file(old: Path, new: Path, **arguments: Any) -> None:
    """`tfbn upgrade`."""
    with one_line_errors(options=True):
        report = upgrade(old, new, **arguments)
    console = Console(soft_wrap=True, highlight=False)
    if report.legacy.batch_norms:
        Console().print(_upgrade_table(report.legacy))
    if report.difference is None:
        console.print("Not compared with what OLD predicted: pass --reference for that.")
    else:
        off = f"{report.difference:.2g} of the largest prediction, in {report.samples} samples"
        console.print(f"Differs from the reference by at most {off}.")
    console.print(f"Written to {new}. It loads after: import tfbn")


def _turned(model: keras.Model, data_format: str | None) -> keras.Model:
    return model if data_format is None else convert(model, data_format=data_format)


def arrays(path: Path) -> dict[str, Any] | Any:
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


def import_modules(modules: tuple[str, ...]) -> None:
    if modules and "" not in sys.path:
        sys.path.insert(0, "")  # as `python -m` does: the module may be in the current folder
    for module in modules:
        try:
            importlib.import_module(module)
        except Exception as error:  # the module may be anybody's
            raise click.ClickException(f"--import {module} fails: {one_line(error)}") from error


def load(path: Path, modules: tuple[str, ...]) -> keras.Model:
    """A model from a file, of Keras 3 or, where that cannot read it, of an older one."""
    import_modules(modules)
    hint = ""
    try:
        return keras.models.load_model(path)
    except Exception as error:
        if path.suffix in (".h5", ".hdf5", ".json") or (archive.version(str(path)) or "")[:2] == "2.":
            try:
                return load_model(path)
            except LegacyModelError as legacy:
                hint = f"As a file of Keras 1 or 2: {legacy} tfbn upgrade {path} NEW.keras has options. "
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
def one_line_errors(options: bool = False) -> Iterator[None]:
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
