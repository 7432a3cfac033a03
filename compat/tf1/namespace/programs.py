"""`import tensorflow` in an old program: TensorFlow 1's names there, and nowhere else."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from types import ModuleType
from typing import Any

from .. import symbols
from .lookup import absent

TENSORFLOW = "tensorflow"
KERAS = "keras"  # TensorFlow 2's own, which tf.compat.v1 has not as a module


def importing(before: Callable[..., Any], folder: str) -> Callable[..., Any]:
    """An `__import__` that gives the modules of a folder TensorFlow 1's names, by `before` otherwise."""

    def import_(
        name: str,
        globals: Mapping[str, Any] | None = None,
        locals: Mapping[str, Any] | None = None,
        fromlist: Sequence[str] = (),
        level: int = 0,
    ) -> Any:
        top, _, path = name.partition(".")
        if level == 0 and top == TENSORFLOW and _is_inside(globals or {}, folder):
            module = _standing_for(path)
            if module is not None:
                return module if fromlist else import_module(symbols.HERE)
        return before(name, globals, locals, fromlist, level)

    return import_


def _standing_for(path: str) -> ModuleType | None:
    """The module for `tensorflow.PATH`; `None` where TensorFlow 2 has it alone.

    `tensorflow.nn`, say, is tf.compat.v1's: TensorFlow 2's has other names and arguments.

    Raises:
        ModuleNotFoundError: neither has it.
    """
    if path in ("", "compat.v1"):
        return import_module(symbols.HERE)
    if symbols.module_of(path) is not None:
        return import_module(f"{symbols.HERE}.{path}")
    if symbols.gone(path) is not None:
        raise ModuleNotFoundError(absent(path), name=f"{TENSORFLOW}.{path}")
    found: Any = None if path.split(".", maxsplit=1)[0] == KERAS else import_module(symbols.HERE)
    for name in path.split("."):
        found = getattr(found, name, None)
    return found if isinstance(found, ModuleType) else None


def _is_inside(globals_of_importer: Mapping[str, Any], folder: str) -> bool:
    """Whether a module lies in a folder, and is not installed there."""
    file = globals_of_importer.get("__file__")
    if not isinstance(file, str):
        return False
    file = os.path.realpath(file)
    return file.startswith(os.path.join(folder, "")) and "site-packages" not in file.split(os.sep)
