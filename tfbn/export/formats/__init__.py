"""What an export can write: `format` says what a format has to do, the others are them.

`savedmodel` is the first one; `converted` is what those have in common that a converter makes of it. The
modules of these import packages that need not be there.
"""

from __future__ import annotations

import os
from importlib import import_module

from ...format_names import FORMATS, format_of
from .format import Format
from .savedmodel import SavedModel


def chosen(path: str | os.PathLike[str], told: str | None, freeze: bool | None) -> Format:
    """The format that a path ends in, or that is told, with the choices that it leaves.

    Raises:
        TypeError, ValueError: arguments that it does not take, or that contradict each other.
        ImportError: packages are missing that it needs.
    """
    if not isinstance(freeze, (bool, type(None))):
        raise TypeError(f"freeze must be True, False or None, received {freeze!r}.")
    name = format_of(path, told)
    if name == "tf_saved_model":
        return SavedModel(freeze)
    title = FORMATS[name].title
    if freeze is not None:
        raise ValueError(
            f"freeze= is for SavedModels; the weights of {title} are constants. Leave it out."
        )
    made: Format = getattr(import_module(f".{name}", __package__), title)()
    return made
