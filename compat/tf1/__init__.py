"""TensorFlow 1's names: `from tfbn.compat import tf1 as tf`.

All of `tf.compat.v1`, and what that lacks: `tf.contrib` (layers, slim, framework, …: `symbols`), with
contrib's batch norm; `tf.layers`, on `tf.get_variable` alone; `enable()`, which makes TensorFlow behave
as its first version. In a graph, in a `compat.VariableScopeLayer`, and layers also on Keras tensors.
"""

from importlib import import_module
from typing import Any

from . import symbols

# Of this package, for the names that tf.compat.v1 has not, or has no longer.
_MODULES = {"contrib": f"{__name__}.contrib", "layers": f"{__name__}.tf_layers"}


def __getattr__(name: str) -> Any:
    if name == "__all__":  # of `from tensorflow import *`
        return [name for name in __dir__() if name not in symbols.GONE]
    if name.startswith("__") and name != "__version__":
        raise AttributeError(name)
    namespace = import_module(f"{__name__}.namespace.install")  # which lets contrib be imported
    if name in _MODULES:
        return import_module(_MODULES[name])
    if name == "enable":
        return import_module(f"{__name__}.namespace.enable").enable
    if name == "compat":
        return import_module(f"{__name__}.namespace.modules").CompatModule("tensorflow.compat")
    if name in symbols.GONE:
        raise AttributeError(import_module(f"{__name__}.namespace.lookup").absent(name))
    return getattr(namespace.tf.compat.v1, name)


def __dir__() -> list[str]:
    v1 = import_module("tensorflow.compat.v1")
    return sorted({*(name for name in dir(v1) if name[0] != "_"), *_MODULES, "enable"})
