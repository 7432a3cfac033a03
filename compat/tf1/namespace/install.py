"""`install_contrib`: `import tensorflow.contrib` as it was written."""

from __future__ import annotations

import builtins
import os
import sys
from collections.abc import Callable
from importlib import import_module
from types import TracebackType
from typing import Any

import tensorflow as tf

from ..symbols import HERE
from .modules import TF1Finder
from .programs import importing

CONTRIB = "tensorflow.contrib"


class install_contrib:  # noqa: N801 (called like a function)
    """Make `import tensorflow.contrib` work, in every spelling, and `tf.contrib` as an attribute.

    `from tensorflow.contrib.layers import batch_norm`, `import tensorflow.contrib.slim as slim`,
    `….python.layers`, star imports: all reach what `tfbn.compat.tf1.contrib` has. One call is enough for
    the whole process; `with compat.install_contrib():` undoes it at the end, and what was imported
    meanwhile goes on working.

    Args:
        programs: a folder; in modules of this folder `import tensorflow as tf` means `tfbn.compat.tf1`
            meanwhile, all names of TensorFlow 1, so that they run unchanged. Everything else, Keras
            too, goes on importing TensorFlow 2.

    Raises:
        NotADirectoryError: `programs` is no folder.
        ImportError: when a name is used that tf_slim has, and tf_slim is not installed.

    >>> with install_contrib():
    ...     from tensorflow.contrib.framework import arg_scope
    >>> arg_scope.__module__
    'tfbn.compat.tf1.arg_scope'
    """

    def __init__(self, programs: str | os.PathLike[str] | None = None) -> None:
        if programs is not None and not os.path.isdir(programs):
            raise NotADirectoryError(
                f"programs must be the folder of the old program, received {os.fspath(programs)!r}."
            )
        self._folder = programs
        self._undo: list[Callable[[], Any]] = []
        self._install()

    def __enter__(self) -> install_contrib:
        self._install()  # once more, for one that was left before
        return self

    def __exit__(
        self, kind: type | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        while self._undo:
            self._undo.pop()()

    def _install(self) -> None:
        if self._undo:
            return
        if not hasattr(tf, "contrib"):
            finder = TF1Finder("tensorflow")
            sys.meta_path.append(finder)
            self._undo = [lambda: sys.meta_path.remove(finder), _forget]
            tf.contrib = import_module(CONTRIB)
        if self._folder is not None:
            before = builtins.__import__
            builtins.__import__ = importing(before, os.path.realpath(self._folder))
            self._undo.append(lambda: setattr(builtins, "__import__", before))


def _forget() -> None:
    for name in [name for name in sys.modules if name == CONTRIB or name.startswith(f"{CONTRIB}.")]:
        del sys.modules[name]
    del tf.contrib


# What `tfbn.compat.tf1` itself has can be imported always.
if not any(isinstance(finder, TF1Finder) for finder in sys.meta_path):
    sys.meta_path.append(TF1Finder(HERE))
