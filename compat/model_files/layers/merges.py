"""Merging layers, and the Merge of Keras 1 in its modes."""

from __future__ import annotations

from typing import Any

import keras

from .config_readers import integer
from .layer_spec import Call, Made, Row
from .legacy_layers import Cosine
from .masks import MERGES

L = keras.layers
_PLAIN = {"sum": L.Add, "mul": L.Multiply, "ave": L.Average, "max": L.Maximum}
MODES = (*_PLAIN, "concat", "dot", "cos")


def merge(row: Row, call: Call, arguments: dict[str, Any]) -> Made:
    """The layer of Keras 3 for a mode."""
    mode, concat_axis, dot_axes = (arguments.pop(key) for key in ("mode", "concat_axis", "dot_axes"))
    if len(call.shapes) < 2:
        raise call.unsupported("merges less than two tensors")
    if mode in _PLAIN:
        return merging(Row(_PLAIN[mode]), call, arguments)
    if mode == "concat":
        return merging(Row(L.Concatenate), call, arguments | {"axis": concat_axis})
    if len(call.shapes) > 2:
        raise call.unsupported(f"mode {mode!r} takes two tensors")
    if isinstance(dot_axes, int):
        dot_axes = [dot_axes, dot_axes]
    if mode == "cos":
        return Made([Cosine(dot_axes, **arguments)])
    ranks = [len(shape) for shape in call.shapes]
    axes = [axis % rank for axis, rank in zip(dot_axes, ranks, strict=True)]
    return Made([L.Dot(axes=axes, **arguments)])


def merging(row: Row, call: Call, arguments: dict[str, Any]) -> Made:
    """A merging layer; one of ours where there are masks to merge."""
    return Made([(MERGES[row.layer] if call.masked else row.layer)(**arguments)])


def dot_axes(value: Any) -> int | list[int]:
    """The axis of both, or one of each; Keras 1.0 wrote [[1], [1]]."""
    if not isinstance(value, list):
        return integer(value)
    if len(value) != 2:
        raise ValueError("must be one axis of each tensor")
    return [integer(one) for one in value]
