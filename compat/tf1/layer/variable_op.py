"""`variable.op`, which TF1 code reads names from, of variables that were made outside its graph."""

from __future__ import annotations

import functools
from types import SimpleNamespace
from typing import Any

import tensorflow as tf


def with_op(variable: tf.Variable, name: str) -> tf.Variable:
    """The variable, with an `op` that has its TF1 name, type and graph in graphs.

    A variable that was made eagerly has none, and TF1 code asks it for `variable.op.name`. Nothing can
    be colocated with this one.
    """
    variable._tf1_name = name
    if not isinstance(variable, _Named):
        variable.__class__ = _named(type(variable))
    return variable


class _Named:
    @property
    def op(self) -> Any:
        if tf.executing_eagerly():
            return super().op
        graph = tf.compat.v1.get_default_graph()
        return SimpleNamespace(name=self._tf1_name, type="VarHandleOp", graph=graph)

    def __reduce_ex__(self, protocol: int) -> Any:
        """Copied and pickled as what it is without the `op`."""
        kind = next(base for base in type(self).__mro__ if not issubclass(base, _Named))
        return kind.__reduce_ex__(self, protocol)


@functools.cache
def _named(kind: type) -> type:
    """A subclass of a class of variables with that `op`."""
    return type(kind)(kind.__name__, (_Named, kind), {"__module__": kind.__module__})
