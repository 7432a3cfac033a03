"""MultiHeadAttention and GroupQueryAttention: EinsumDense layers project what goes in and comes out."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np

from ...batch_norms import layer_paths
from ..core.affine import Affine, CannotFoldError
from ..core.graph import Call, Tensor
from ..core.targets import PendingFold, per_channel_map
from .einsum import EinsumTarget, letters
from .targets import LayerEdit, LayerTarget, check_weights

# What is projected, and by which of the layers inside; by their names, for GroupQueryAttention has no
# public attributes for them.
_PROJECTIONS = {"query": ("query", "gate"), "value": ("value",), "key": ("key",)}
_LAST = "attention_output"


class AttentionTarget(LayerTarget):
    """Attention takes up maps of query, value and key, and one of its output.

    In its form the maps of the inputs are one, of the channels of all three in this order.
    """

    def output(self, call: Call, affine: Affine) -> Affine:
        last = _checked(call)[_LAST]
        if _given(call).get("return_attention_scores"):
            raise CannotFoldError(f"{call.op} returns its scores besides")
        shape, heads = (
            call.outputs[0].shape,
            2,
        )  # axes of the kernel: which head, and which of its numbers
        axes = range(len(shape) - last.kernel.ndim + heads, len(shape))
        return per_channel_map(call.op.origin.name, affine, axes, shape)

    def input(self, call: Call, affine: Affine) -> Affine:
        return self.inputs(call, [affine])

    def inputs(self, call: Call, maps: Sequence[Affine | None]) -> Affine:
        _checked(call)
        tensors = {name: value for name, value in _given(call).items() if isinstance(value, Tensor)}
        found = dict(zip(tensors, maps, strict=True))
        for name, affine in found.items():
            if affine is not None and name not in _PROJECTIONS:
                raise CannotFoldError(f"{call.op} takes it as {name}, which it does not project")
        parts = []
        for name in _PROJECTIONS:
            source = name if name in tensors else "value"  # which is the key where none is given
            shape = tensors[source].shape
            affine = found[source] or Affine.identity(len(shape) - 1)
            parts.append(per_channel_map(call.op.origin.name, affine, (len(shape) - 1,), shape))
        scales, offsets = ([getattr(part, what) for part in parts] for what in ("scale", "offset"))
        return Affine(np.concatenate(scales), np.concatenate(offsets))

    def write(self, layer: keras.layers.Layer, pending: PendingFold) -> LayerEdit:
        weights: dict[str, Any] = {}
        for name, part in layer_paths(layer).items():
            if isinstance(part, keras.layers.EinsumDense):
                edit = EinsumTarget().write(part, _pending(layer, name, pending))
                # If one has a bias, all have.
                whole = {"bias": np.zeros(())} | dict(edit.weights)
                weights |= {f"{name}/{weight}": value for weight, value in whole.items()}
        biased = any(value.any() for name, value in weights.items() if name.endswith("bias"))
        return LayerEdit({"use_bias": True} if biased else {}, weights)


def _given(call: Call) -> dict[str, Any]:
    return dict(zip(call.attributes["names"], call.arguments, strict=True))


def _checked(call: Call) -> dict[str, Any]:
    """The layers inside, which may take something up."""
    layer, inside = call.op.origin, layer_paths(call.op.origin)
    for part in (layer, *inside.values()):
        check_weights(part)
    if call.attributes["training"] and layer.dropout:
        raise CannotFoldError(f"{call.op} is called with training=True and drops values at random")
    return inside


def _pending(layer: Any, name: str, pending: PendingFold) -> PendingFold:
    """What one of the layers inside is to take up, in its form."""
    inside = layer_paths(layer)
    source, _, output = letters(inside[name])
    own = PendingFold()
    if name == _LAST and pending.output_map is not None:
        sizes = inside[name].kernel.shape[2:]
        own = own.with_output_map(
            _shaped(pending.output_map, (*[1] * (len(output) - len(sizes)), *sizes))
        )
    for projections, (start, end) in zip(_PROJECTIONS.values(), _places(inside), strict=True):
        if name in projections and pending.input_map is not None:
            whole = _shaped(pending.input_map, _places(inside)[-1][1:])
            part = Affine(whole.scale[start:end], whole.offset[start:end])
            own = own.with_input_map(_shaped(part, (*[1] * (len(source) - 1), end - start)))
    return own


def _places(inside: dict[str, Any]) -> list[tuple[int, int]]:
    """Where the channels of query, value and key begin and end in the map of all."""
    ends = itertools.accumulate(inside[name].kernel.shape[0] for name in _PROJECTIONS)
    return list(itertools.pairwise([0, *ends]))


def _shaped(affine: Affine, shape: tuple[int, ...]) -> Affine:
    size = int(np.prod(shape))
    return Affine(
        *(np.broadcast_to(array, size).reshape(shape) for array in (affine.scale, affine.offset))
    )
