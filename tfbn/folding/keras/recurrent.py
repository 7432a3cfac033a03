"""LSTM, GRU and SimpleRNN, which multiply their input by a kernel before all else."""

from __future__ import annotations

import keras
import numpy as np

from ..core.affine import Affine, CannotFoldError
from ..core.graph import Call
from ..core.kernel_arithmetic import KernelLayout
from ..core.targets import PendingFold
from .targets import LayerEdit, LayerTarget, arrays, check_weights, per_channel_map

_LAYOUT = KernelLayout("kernel", (-1,), ("kernel", -2))


class RecurrentTarget(LayerTarget):
    """A recurrent layer takes up the map of its input, the same at all steps."""

    def output(self, call: Call, affine: Affine) -> Affine:
        raise CannotFoldError(f"{call.op} feeds its output back to itself")

    def input(self, call: Call, affine: Affine) -> Affine:
        layer = call.op.origin
        check_weights(layer)
        if layer.stateful:
            raise CannotFoldError(f"{call.op} is stateful, and its state would be lost")
        if call.attributes["training"] and (layer.dropout or layer.recurrent_dropout):
            raise CannotFoldError(f"{call.op} is called with training=True and drops values at random")
        shape = call.inputs[0].shape
        return per_channel_map(layer, affine, (len(shape) - 1,), shape)

    def write(self, layer: keras.layers.Layer, pending: PendingFold) -> LayerEdit:
        kernels = arrays(layer)
        own = np.asarray(kernels.pop("bias", 0.0), "float64")
        scaled, response = _LAYOUT.fold(kernels, np.zeros(1), pending)
        if not layer.use_bias and not response.any():
            return LayerEdit({}, scaled)
        if isinstance(layer, keras.layers.GRU) and layer.reset_after:
            # Its bias is one for the input and one for the state, which stays.
            response = np.stack([response, np.zeros_like(response)])
        return LayerEdit({"use_bias": True}, scaled | {"bias": own + response})
