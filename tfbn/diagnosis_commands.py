"""What `tfbn inspect`, `tfbn diagnose` and `tfbn recalibrate` do, once their arguments are read."""

from __future__ import annotations

# Of the package, and before Keras: so the package is whole, or says what is missing.
from . import diagnose, inspect, recalibrate

# isort: split
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click
import keras
import tensorflow as tf
from rich.console import Console

from .commands import load, one_line_errors
from .declared_graph import has_readable_graph
from .diagnosis import Diagnosis, Inspection
from .diagnosis.diagnosis import STYLES
from .diagnosis.tables import rich_table
from .files import npz
from .files.atomic import staged

TARGETS = "y"  # the array that is no input, unless the model has one of that name


def inspect_model(model: Path, *, as_json: bool, html: Path | None, modules: tuple[str, ...]) -> None:
    """`tfbn inspect`."""
    loaded = load(model, modules)
    with one_line_errors(options=True):
        report = inspect(loaded)
        _show(report, as_json, html)


def diagnose_model(
    model: Path,
    *,
    data: Path,
    steps: int | None,
    batch_size: int | None,
    as_json: bool,
    html: Path | None,
    check: bool,
    modules: tuple[str, ...],
) -> None:
    """`tfbn diagnose`; status 1 with `check` where a verdict is bad."""
    loaded = load(model, modules)
    with one_line_errors(options=True):
        given = _data(loaded, data, batch_size)
        report = diagnose(loaded, given, steps, verbose=0 if as_json else "auto")
        _show(report, as_json, html)
    if check and not report.fine:
        raise click.exceptions.Exit(1)


def recalibrate_model(
    model: Path,
    out: Path,
    *,
    data: Path,
    steps: int | None,
    batch_size: int | None,
    overwrite: bool,
    modules: tuple[str, ...],
) -> None:
    """`tfbn recalibrate`."""
    loaded = load(model, modules)
    with one_line_errors(options=True):
        measurement = recalibrate(loaded, _data(loaded, data, batch_size), steps)
        with staged(out, overwrite) as staging:
            loaded.save(staging)
    click.echo(f"{measurement}\nWritten to {out}")


def _data(model: keras.Model, path: Path, batch_size: int | None) -> Any:
    """The arrays of a file as `fit` takes them: inputs, and targets if there are any."""
    arrays: dict[str, Any] = npz.read(path, "Write it by numpy.savez('x.npz', x=x, y=y).")
    names = {tensor.name for tensor in model.inputs} if has_readable_graph(model) else set()
    targets = arrays.pop(TARGETS, None) if len(arrays) > 1 and TARGETS not in names else None
    if not arrays:
        raise ValueError(f"{path} holds no array. Write it by numpy.savez('x.npz', x=x, y=y).")
    unknown = arrays.keys() - names if len(arrays) > 1 and names else set()
    if unknown:
        raise ValueError(
            f"{path} holds the arrays {', '.join(sorted(arrays))}, and the inputs of {model.name!r} are "
            f"{', '.join(sorted(names))}. Name them so in numpy.savez, and targets {TARGETS}."
        )
    x = next(iter(arrays.values())) if len(arrays) == 1 else arrays
    data = (x,) if targets is None else (x, targets)
    if batch_size is not None:
        return tf.data.Dataset.from_tensor_slices(data).batch(batch_size)
    return data if targets is not None or isinstance(x, Mapping) else x


def _show(report: Diagnosis | Inspection, as_json: bool, html: Path | None) -> None:
    if html is not None:
        report.to_html(html)
    if as_json:
        click.echo(json.dumps(report.as_dict(), indent=2))
        return
    Console().print(rich_table(report.table(), STYLES))
    if html is not None:
        click.echo(f"Written to {html}")
