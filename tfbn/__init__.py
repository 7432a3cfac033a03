"""Batch normalisation for TensorFlow 2 and Keras 3: exact, measured, and folded away to serve.

`BatchNorm` is the layer; `population_statistics` and `recalibrate` measure what inference needs;
`convert` swaps Keras' layers for it and back;
`fold` writes batch norms into the layers next to them; `export` writes a SavedModel, or a file for
LiteRT, ONNX or OpenVINO, that was compared with the model;
`functional` holds the mathematics as pure functions; `compat` is batch normalisation as TensorFlow 1 and
Keras 1 spelled it.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from .quiet import is_command

__version__ = "0.1.0"

if TYPE_CHECKING or not is_command():
    # All at once: Keras finds our classes in a file because `import tfbn` has registered them.
    from .public import *  # noqa: F403  it has an `__all__`
    from .public import __all__ as __all__
else:

    def __getattr__(name: str) -> Any:
        """All of it, the first time that the command needs some: most of its answers need none."""
        public = import_module(".public", __name__)
        # Over the packages of the same names, `tfbn.export`, say, which Python has put here meanwhile.
        globals().update({name: getattr(public, name) for name in ("__all__", *public.__all__)})
        if name not in globals():
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        return globals()[name]


def __dir__() -> list[str]:
    return [*import_module(".public", __name__).__all__, "__version__"]
