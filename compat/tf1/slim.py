"""tf_slim 1.1.0 with this package's batch norm in it."""

from __future__ import annotations

import sys
from types import ModuleType, TracebackType
from typing import Any

import tensorflow as tf

from .contrib_batch_norm import batch_norm, last_batch_norm

# Names of TensorFlow's own modules that tf_slim still uses, and where they are now.
MOVED: dict[str, dict[str, Any]] = {
    "ops": {"Tensor": tf.Tensor, "IndexedSlices": tf.IndexedSlices},
    "control_flow_ops": {"cond": tf.cond},
    "array_ops": {"stack": tf.stack, "unstack": tf.unstack},
}


class slim:  # noqa: N801 (called like the function it was asked to be)
    """Make tf_slim, and its networks, use `compat.batch_norm`.

    One call is enough for the whole process; `with compat.slim() as slim:` undoes it at the end. What
    is replaced, in tf_slim's modules only: `batch_norm`, and references to functions of TensorFlow that
    have moved since. `slim.arg_scope([slim.batch_norm], …)` works on, scopes from before too. Code that
    took the function out of tf_slim before keeps the old one: `from tf_slim import batch_norm`, or a
    saved scope with it as `normalizer_fn`.

    Args:
        last_release: whether the moving variance is that of contrib's last releases, and of tf_slim's
            own batch norm (unbiased at most ranks), or that of the first ones (biased).

    Raises:
        ImportError: tf_slim is not installed.

    >>> from tfbn import compat
    >>> with compat.slim() as slim:
    ...     slim.batch_norm is compat.batch_norm
    True
    """

    def __init__(self, last_release: bool = False) -> None:
        try:
            import tf_slim  # noqa: PLC0415 (optional)
        except ImportError as error:
            if error.name != "tf_slim":  # it is there, and misses something itself
                raise
            raise ImportError(
                "compat.slim() needs tf_slim, which is not installed. Install it with: "
                "pip install tf-slim==1.1.0"
            ) from error
        self._slim = tf_slim
        self._batch_norm = last_batch_norm if last_release else batch_norm
        self._replaced: list[tuple[ModuleType, str, Any]] = []
        tf_slim.arg_scope_func_key(
            self._batch_norm
        )  # takes over the key of tf_slim's own, while that is still there
        self._replace()

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        return getattr(self._slim, name)  # so that `slim = compat.slim()` is tf_slim, too

    def __enter__(self) -> Any:
        self._replace()  # once more, for one that was left before
        return self._slim

    def __exit__(
        self, kind: type | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        while self._replaced:
            setattr(*self._replaced.pop())

    def _replace(self) -> None:
        old = self._slim.batch_norm
        for name, module in list(sys.modules.items()):
            if name == "tf_slim" or name.startswith("tf_slim."):
                self._replace_in(module, old)

    def _replace_in(self, module: ModuleType, old: Any) -> None:
        if vars(module).get("batch_norm") is old and old is not self._batch_norm:
            self._set(module, "batch_norm", self._batch_norm)
        for name, target in list(vars(module).items()):  # whatever it is called there
            if isinstance(target, ModuleType) and target.__name__.startswith("tensorflow."):
                moved = MOVED.get(target.__name__.rpartition(".")[2], {})
                if not all(hasattr(target, name_there) for name_there in moved):
                    self._set(module, name, _ModuleProxy(target, moved))

    def _set(self, module: ModuleType, name: str, value: Any) -> None:
        self._replaced.append((module, name, getattr(module, name)))
        setattr(module, name, value)


class _ModuleProxy:
    """A module with a few more names in it, without touching the module."""

    def __init__(self, module: ModuleType, names: dict[str, Any]) -> None:
        self._module = module
        vars(self).update({name: value for name, value in names.items() if not hasattr(module, name)})

    def __getattr__(self, name: str) -> Any:
        return getattr(self._module, name)
