"""What stands for a name of TensorFlow 1."""

from __future__ import annotations

import functools
from importlib import import_module
from typing import Any

from .. import symbols
from ..slim import slim

SLIM = "tf_slim"


def find(path: str, name: str) -> Any:
    """What stands for a name of a module of TensorFlow 1, as `find("contrib.layers", "batch_norm")`.

    Raises:
        AttributeError: nothing does; the message says what to do.
        ImportError: tf_slim would, and is not installed.
    """
    target = symbols.location(path, name)
    if target is not None:
        module, attribute = target.split(":")
        return getattr(_imported(module), attribute)
    if f"{path}.{name}" not in symbols.GONE:
        known = symbols.module_of(path)
        for source in () if known is None else known.sources:
            module = _imported(source)
            if hasattr(module, name):
                return getattr(module, name)
    raise AttributeError(absent(f"{path}.{name}"))


def absent(path: str) -> str:
    """A sentence about a name that nothing stands for."""
    advice = symbols.gone(path) or (
        "What stands here of contrib is in docs/migrating.md; for the rest look into TensorFlow 2's own "
        "modules."
    )
    return f"tf.{path} of TensorFlow 1 is not in tfbn.compat.tf1. {advice}"


def public_names(path: str) -> list[str]:
    """What `from … import *` brings of a module."""
    known = symbols.module_of(path)
    names = set() if known is None else set(known.names)
    for source in () if known is None else known.sources:
        module = _imported(source)
        listed = getattr(module, "__all__", None) or _own_names(module)
        names.update(name for name in listed if f"{path}.{name}" not in symbols.GONE)
    return sorted(names)


def _own_names(module: Any) -> list[str]:
    """Functions and classes; not the modules that a module without `__all__` imports."""
    return [name for name, value in vars(module).items() if name[0] != "_" and callable(value)]


def _imported(module: str) -> Any:
    if module.split(".", maxsplit=1)[0] == SLIM:
        _with_our_batch_norm()
    return import_module(module)


@functools.cache
def _with_our_batch_norm() -> slim:
    """tf_slim's networks and layers use the same batch norm as the namespace, for the whole process."""
    return slim(last_release=True)
