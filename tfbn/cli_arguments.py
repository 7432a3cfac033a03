"""What the arguments of several commands share. TensorFlow is not started here."""

from __future__ import annotations

import importlib
import zipfile
from pathlib import Path
from typing import Any

import click

from . import quiet
from .messages import other_file

MODEL = click.Path(exists=True, path_type=Path)
FILE = click.Path(exists=True, dir_okay=False, path_type=Path)
OUT = click.Path(path_type=Path)

IMPORT = click.option(
    "--import",
    "modules",
    multiple=True,
    metavar="MODULE",
    help="Import a module that registers classes of MODEL's, as often as needed.",
)


def check_keras_file(path: Path, name: str, overwrite: bool) -> None:
    """Refuse a path at which no `.keras` file can, or may, be written."""
    if path.suffix != ".keras":
        raise click.ClickException(f"{name} must end in .keras, received {path}.")
    if path.is_dir():
        raise click.ClickException(f"{path} is a directory. Choose another name for the file.")
    if path.exists() and not overwrite:
        raise click.ClickException(f"{path} exists already. Pass --overwrite to replace it.")


def check_model(path: Path) -> None:
    """Refuse what the first look shows to be no Keras model."""
    problem = other_file(path)
    if path.suffix == ".keras" and not zipfile.is_zipfile(path):
        problem = "it is no .keras (zip) file"
    if problem is not None:
        raise click.ClickException(f"{path} cannot be loaded as a Keras model: {problem}.")


def module(name: str) -> Any:
    """A module that does what a command says. TensorFlow starts with it, which takes seconds."""
    try:
        with quiet.starting():
            return importlib.import_module(f".{name}", __package__)
    except ImportError as error:
        raise click.ClickException(str(error)) from error
