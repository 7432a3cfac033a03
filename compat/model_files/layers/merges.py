"""Merging layers, and the Merge of Keras 1 in its modes."""

from __future__ import annotations

from typing import Any

import keras

from .config_readers import integer
from .layer_spec import BuildContext, BuiltLayers, LayerSpec
from .legacy_layers import Cosine
from .masks import MERGES

L = keras.layers
_PLAIN = {"sum": L.Add, "mul": L.Multiply, "ave": L.Average, "max": L.Maximum}
MODES = (*_PLAIN, "concat", "dot", "cos")


def merge(spec: LayerSpec, context: BuildContext, arguments: dict[str, Any]) -> BuiltLayers:
    """The layer of Keras 3 for a mode."""
    mode, concat_axis, dot_axes = (arguments.pop(key) for key in ("mode", "concat_axis", "dot_axes"))
    if len(context.shapes) < 2:
        raise context.unsupported("merges less than two tensors")
    if mode in _PLAIN:
        return merging(LayerSpec(_PLAIN[mode]), context, arguments)
    if mode == "concat":
        return merging(LayerSpec(L.Concatenate), context, arguments | {"axis": concat_axis})
    if len(context.shapes) > 2:
        raise context.unsupported(f"mode {mode!r} takes two tensors")
    if isinstance(dot_axes, int):
        dot_axes = [dot_axes, dot_axes]
    if mode == "cos":
        return BuiltLayers([Cosine(dot_axes, **arguments)])
    ranks = [len(shape) for shape in context.shapes]
    axes = [axis % rank for axis, rank in zip(dot_axes, ranks, strict=True)]
    return BuiltLayers([L.Dot(axes=axes, **arguments)])


def merging(spec: LayerSpec, context: BuildContext, arguments: dict[str, Any]) -> BuiltLayers:
    """A merging layer, from `MERGES` where there are masks to merge."""
    return BuiltLayers([(MERGES[spec.layer] if context.masked else spec.layer)(**arguments)])


def dot_axes(value: Any) -> int | list[int]:
    """The axis of both, or one of each; Keras 1.0 wrote [[1], [1]]."""
    if not isinstance(value, list):
        return integer(value)
    if len(value) != 2:
        raise ValueError("must be one axis of each tensor")
    return [integer(axis) for axis in value]
