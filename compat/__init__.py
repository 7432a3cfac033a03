"""Batch normalisation as TensorFlow 1 and Keras 1 spelled it, on Keras 3."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from ..quiet import is_command

if TYPE_CHECKING or not is_command():
    # All at once: Keras finds our classes in a file because `import tfbn` has registered them.
    from .public import *  # noqa: F403  it has an `__all__`
    from .public import __all__ as __all__
else:

    def __getattr__(name: str) -> Any:
        """All of it, the first time that the command needs some: `tfbn migrate` needs none."""
        public = import_module(".public", __name__)
        globals().update({name: getattr(public, name) for name in ("__all__", *public.__all__)})
        if name not in globals():
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        return globals()[name]


def __dir__() -> list[str]:
    return list(import_module(".public", __name__).__all__)
