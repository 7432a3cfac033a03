"""The arguments of `tfbn inspect`, `tfbn diagnose` and `tfbn recalibrate`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from .cli_arguments import FILE, IMPORT, MODEL, OUT, check_keras_file, check_model, module

_JSON = click.option("--json", "as_json", is_flag=True, help="Write the report as JSON.")
_HTML = click.option("--html", type=OUT, help="Write the report as one page for a browser, too.")
_DATA = click.option(
    "--data",
    type=FILE,
    required=True,
    help="NPZ file of inputs, by name, and targets y if there are any: numpy.savez('x.npz', x=x, y=y).",
)
_STEPS = click.option("--steps", type=click.IntRange(min=1), help="Batches to use.  [default: all]")
_BATCH_SIZE = click.option("--batch-size", type=click.IntRange(min=1), help="[default: 32]")


@click.command("inspect")
@click.argument("model", type=MODEL)
@_JSON
@_HTML
@IMPORT
def inspect_command(model: Path, **arguments: Any) -> None:
    """List every batch norm of MODEL, and what its weights alone tell."""
    check_model(model)
    module("diagnosis_commands").inspect_model(model, **arguments)


@click.command("diagnose")
@click.argument("model", type=MODEL)
@_DATA
@_STEPS
@_BATCH_SIZE
@_JSON
@_HTML
@click.option("--check", is_flag=True, help="Exit with status 1 if a verdict is bad.")
@IMPORT
def diagnose_command(model: Path, **arguments: Any) -> None:
    """Tell what is wrong with the batch norms of MODEL, and what to do.

    --data is what MODEL was trained on, or some of it, shuffled.
    """
    check_model(model)
    module("diagnosis_commands").diagnose_model(model, **arguments)


@click.command("recalibrate")
@click.argument("model", type=MODEL)
@click.argument("out", type=OUT, metavar="OUT.keras")
@_DATA
@_STEPS
@_BATCH_SIZE
@click.option("--overwrite", is_flag=True, help="Replace a file that is already at OUT.")
@IMPORT
def recalibrate_command(model: Path, out: Path, overwrite: bool, **arguments: Any) -> None:
    """Write MODEL with the population statistics of the data to OUT.keras."""
    check_keras_file(out, "OUT", overwrite)
    check_model(model)
    module("diagnosis_commands").recalibrate_model(model, out, overwrite=overwrite, **arguments)


COMMANDS = (inspect_command, diagnose_command, recalibrate_command)
