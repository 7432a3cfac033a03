"""The arguments of `tfbn migrate`."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import click

from .cli_arguments import MODEL, module


@click.command("migrate")
@click.argument("paths", type=MODEL, nargs=-1, required=True, metavar="PATH…")
@click.option("--write", is_flag=True, help="Rewrite the files; otherwise a diff is shown.")
@click.option("--check", is_flag=True, help="Exit with status 1 if anything would change.")
def migrate_command(paths: tuple[Path, ...], write: bool, check: bool) -> None:
    """Have programs of TensorFlow 1 import tfbn.compat.tf1, and those of Keras 1 import from Keras 3.

    PATH is a file, or a folder with all *.py below. Only import lines change, and tf.enable() is
    called in programs that run a graph. What else is to be done is told on stderr, by file and line.
    """
    if write and check:
        raise click.ClickException("--write and --check exclude each other. Leave one of them out.")
    if find_spec("libcst") is None:
        raise click.ClickException(
            'tfbn migrate needs libcst, which is not installed: pip install "tfbn[migrate]", or '
            "pip install libcst."
        )
    module("migrate_command").migrate(paths, write, check)


COMMANDS = (migrate_command,)
