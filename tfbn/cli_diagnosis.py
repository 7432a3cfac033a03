"""The arguments of `tfbn inspect`, `tfbn diagnose` and `tfbn recalibrate`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from .cli_arguments import IMPORT, MODEL, check_model, module

_JSON = click.option("--json", "as_json", is_flag=True, help="Write the report as JSON.")


@click.command("inspect")
@click.argument("model", type=MODEL)
@_JSON
@IMPORT
def inspect_command(model: Path, **arguments: Any) -> None:
    """List every batch norm of MODEL, and what its weights alone tell."""
    check_model(model)
    module("diagnosis_commands").inspect_model(model, **arguments)


COMMANDS = (inspect_command,)
