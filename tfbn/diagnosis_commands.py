"""What `tfbn inspect`, `tfbn diagnose` and `tfbn recalibrate` do, once their arguments are read."""

from __future__ import annotations

# Of the package, and before Keras: so the package is whole, or says what is missing.
from . import inspect

# isort: split
import json
from pathlib import Path
from typing import Any

import click
from rich.console import Console

from .commands import load, one_line_errors
from .diagnosis.tables import rich_table


def inspect_model(model: Path, *, as_json: bool, modules: tuple[str, ...]) -> None:
    """`tfbn inspect`."""
    loaded = load(model, modules)
    with one_line_errors(options=True):
        report = inspect(loaded)
    _show(report, as_json)


def _show(report: Any, as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps(report.as_dict(), indent=2))
    else:
        Console().print(rich_table(report.table()))
