"""The command `tfbn`: its arguments. What can be said of them is said before TensorFlow starts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from . import __version__
from .cli_arguments import FILE, IMPORT, MODEL, OUT, check_keras_file, check_model, module
from .cli_diagnosis import COMMANDS
from .cli_migrate import COMMANDS as MIGRATE_COMMANDS
from .format_names import FORMATS, format_of
from .messages import is_graph
from .options import as_options

# What the modules name that have them, and are not imported here: a test compares.
POLICIES = ("float16", "bfloat16", "float32", "float64", "mixed_float16", "mixed_bfloat16")
DEFAULT_RTOL = 1e-5

_CHANNELS_LAST = click.option(
    "--data-format",
    type=click.Choice(["channels_last"]),
    help="Make channels-first layers channels last before; inputs and outputs keep their layout.",
)
_SAMPLES = click.option(
    "--samples", type=FILE, help="NPZ file of inputs to compare on, by name: numpy.savez('x.npz', x=x)."
)


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="tfbn")
def main() -> None:
    """Diagnose batch norms, fold them away, export models verified, and bring old ones up to date."""


@main.command("export")
@click.argument("model", type=MODEL)
@click.argument("out", type=OUT)
@click.option("--no-fold", is_flag=True, help="Leave the batch norms where they are.")
@click.option(
    "--format",
    type=click.Choice(list(FORMATS)),
    help="Unless OUT says it by .tflite (LiteRT), .onnx or .xml (OpenVINO).  [default: tf_saved_model]",
)
@click.option("--overwrite", is_flag=True, help="Replace what is already there.")
@_SAMPLES
@click.option("--version", type=click.IntRange(min=0), help="Write OUT/VERSION, for TensorFlow Serving.")
@click.option(
    "--freeze/--no-freeze",
    default=None,
    help="Weights of a SavedModel as constants: sooner answers, more memory. Default: up to 40 MB.",
)
@click.option(
    "--input-name",
    "input_names",
    multiple=True,
    help="Name of an input in the signature, once for each, in the model's order.",
)
@click.option("--inputs", multiple=True, help="Input of a frozen graph, input:0, once for each.")
@click.option("--outputs", multiple=True, help="Output of a frozen graph, once for each.")
@click.option("--signature", "signatures", multiple=True, help="Of a SavedModel, to keep; else all.")
@_CHANNELS_LAST
@IMPORT
def export_command(
    model: Path, out: Path, version: int | None, overwrite: bool, **arguments: Any
) -> None:
    """Write MODEL, folded and verified, to OUT: a SavedModel, or the file that OUT's suffix says.

    MODEL is a Keras model, a SavedModel's folder of TensorFlow 1 or 2, or a frozen graph, a file .pb.
    """
    try:
        name = format_of(out, arguments["format"])
    except (ValueError, ImportError) as error:
        raise click.ClickException(as_options(str(error))) from error
    if version is not None:
        if name != "tf_saved_model":
            raise click.ClickException(f"--version is for SavedModels, and {out} will be {name}.")
        out = out / str(version)
    if out.exists() and not overwrite:
        raise click.ClickException(f"{out} exists already. Pass --overwrite to replace it.")
    if not is_graph(model):
        check_model(model)
    module("commands").export_model(model, out, overwrite=overwrite, **arguments)


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
@IMPORT
@click.option("--overwrite", is_flag=True, help="Replace a file that is already at OUT.")
def fold_command(model: Path, out: Path, overwrite: bool, **arguments: Any) -> None:
    """Write MODEL with its batch norms folded to OUT.keras, if it computes the same."""
    check_keras_file(out, "OUT", overwrite)
    if out.exists() and out.samefile(model):
        raise click.ClickException(f"{out} is MODEL itself, which could not be trained then.")
    check_model(model)
    module("commands").fold_model(model, out, overwrite=overwrite, **arguments)


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
    check_keras_file(new, "NEW", arguments["overwrite"])
    if rtol is not None and arguments["reference"] is None:
        raise click.ClickException("--rtol is for --reference, which is missing.")
    module("commands").upgrade_file(old, new, rtol=DEFAULT_RTOL if rtol is None else rtol, **arguments)


for command in (*COMMANDS, *MIGRATE_COMMANDS):
    main.add_command(command)
