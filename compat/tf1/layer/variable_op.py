"""`variable.op`, which TF1 code reads names from, of variables that were made outside its graph."""

from __future__ import annotations

import functools
from types import SimpleNamespace
from typing import Any

import tensorflow as tf


def with_op(variable: Any, name: str) -> Any:
    """The variable, with an `op` that has its TF1 name, type and graph in graphs.

    A variable that was made eagerly has none, and TF1 code asks it for `variable.op.name`. Nothing can
    be colocated with this one.
    """
    variable._tf1_name = name
    kind: Any = type(variable)
    if not getattr(variable, "_has_tf1_op", False):
        variable.__class__ = _with_op(kind)
    return variable


@functools.cache
def _with_op(kind: Any) -> Any:
    """A subclass of a class of variables, of the same name."""

    def operation(self: Any) -> Any:
        if tf.executing_eagerly():
            return kind.op.__get__(self)
        graph = tf.compat.v1.get_default_graph()
        return SimpleNamespace(name=self._tf1_name, type="VarHandleOp", graph=graph)

    members = {"__module__": kind.__module__, "op": property(operation), "_has_tf1_op": True}
    return type(kind)(kind.__name__, (kind,), members)
