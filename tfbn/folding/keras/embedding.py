"""Embedding, whose table holds all its outputs."""

from __future__ import annotations

import keras

from ..core.affine import Affine, CannotFoldError
from ..core.graph import Call
from ..core.kernel_arithmetic import ScaledKernel
from ..core.targets import PendingFold, per_channel_map
from .targets import LayerEdit, LayerTarget, arrays, check_weights


class EmbeddingTarget(LayerTarget):
    """An Embedding takes up the map of its output, the same for all tokens."""

    def output(self, call: Call, affine: Affine) -> Affine:
        layer = call.op.origin
        check_weights(layer)
        shape = call.outputs[0].shape
        return per_channel_map(layer.name, affine, (len(shape) - 1,), shape)

    def input(self, call: Call, affine: Affine) -> Affine:
        raise CannotFoldError(f"{call.op} takes its input as numbers of rows")

    def write(self, layer: keras.layers.Layer, pending: PendingFold) -> LayerEdit:
        table = arrays(layer)["embeddings"]
        assert pending.output_map is not None
        scale, offset = pending.output_map.scale, pending.output_map.offset
        return LayerEdit({}, {"embeddings": ScaledKernel(table, (scale[None],), offset[None])})
