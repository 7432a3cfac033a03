"""What a name of TensorFlow 1, Keras 1 or Keras 2 is called today: one dotted name for another."""

from __future__ import annotations

from ..tf1 import symbols
from . import moved

TENSORFLOW = "tensorflow"
V1_PREFIX = "compat.v1"
# Beside contrib, the modules that are imported from, and TensorFlow 2 has under compat.v1.
_V1_MODULES = (
    "app data distributions errors gfile graph_util image initializers io linalg logging lookup "
    "losses math metrics nest nn python_io random saved_model summary test train"
)
V1_MODULES = frozenset(_V1_MODULES.split())
# Not TensorFlow's public names, or not of its first version: these lines stay.
LEFT = ("python", "keras", "examples", "core")


def without_v1(path: str) -> str:
    """A path within TensorFlow without `compat.v1` before it."""
    return path.removeprefix(V1_PREFIX).removeprefix(".") if _is_v1(path) else path


def _is_v1(path: str) -> bool:
    return path == V1_PREFIX or path.startswith(f"{V1_PREFIX}.")


def tf1_target(dotted: str) -> str | None:
    """Where a module or name of TensorFlow is in the namespace; `None` if its line is to stay."""
    top, _, raw = dotted.partition(".")
    path = without_v1(raw)
    first, _, rest = path.partition(".")
    if top != TENSORFLOW or first in LEFT or symbols.gone(path) is not None:
        return None
    if first == "contrib" and not stands(path):
        return None
    if first == "layers" and rest:
        return f"{symbols.HERE}.tf_layers.{rest}"
    if first == "contrib" or not rest:
        return ".".join(filter(None, (symbols.HERE, path)))
    # In a module that TensorFlow 2 has, under compat.v1 alone as it was.
    return f"{TENSORFLOW}.{V1_PREFIX}.{path}" if first in V1_MODULES and not _is_v1(raw) else None


def is_imported_from(path: str) -> bool:
    """Whether a name, with the module that it is imported from, is of those that are known here."""
    first, _, rest = path.partition(".")
    return not rest or first in V1_MODULES or first in LEFT or first in ("layers", "contrib", "compat")


def stands(path: str) -> bool:
    """Whether something stands for a module of contrib, or may for a name in it."""
    parent = path.rpartition(".")[0]
    return symbols.module_of(path) is not None or (
        parent != "contrib" and symbols.module_of(parent) is not None
    )


def star_target(module: str) -> str | None:
    """What `from MODULE import *` becomes; `None` if it is to stay."""
    target = tf1_target(module)
    return f"{symbols.HERE}.tf_layers" if target == f"{symbols.HERE}.layers" else target


def keras_target(dotted: str, batch_normalization: str) -> str | None:
    """Where Keras 3 has a module or name of Keras 1 or 2; `None` if its line is to stay."""
    if dotted == moved.BATCH_NORMALIZATION:
        return batch_normalization
    return moved.MOVED.get(dotted)
