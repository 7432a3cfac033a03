"""Recurrent layers: the order of gates, a weight for each gate in Keras 1, cuDNN's layouts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import keras
import numpy as np

from .layer_spec import BuildContext, BuiltLayers, LayerSpec, Names

L = keras.layers

# The gates in the order in which Keras 1 listed their weights, and their place in today's.
_LSTM, _LSTM_ORDER = "icfo", (0, 2, 1, 3)
_GRU, _GRU_ORDER = "zrh", (0, 1, 2)


def gate_names(gates: str) -> Any:
    """Names of the weights in Keras 1: of each gate, or of all together with consume_less="gpu"."""

    def names(config: Mapping[str, Any]) -> Names:
        if config.get("consume_less") == "gpu":
            return ("W", "U", "b")
        return tuple(f"{weight}_{gate}" for gate in gates for weight in "WUb")

    return names


def keras1_recurrent(spec: LayerSpec, context: BuildContext, arguments: dict[str, Any]) -> BuiltLayers:
    """LSTM or GRU of Keras 1; its weights for each gate are put side by side."""
    order = _LSTM_ORDER if spec.layer is L.LSTM else _GRU_ORDER
    weights: list[np.ndarray] = context.arrays
    if len(weights) == 3 * len(order):
        for kind in range(3):
            if len({array.shape for array in weights[kind::3]}) > 1:
                raise context.unsupported("the weights of its gates differ in shape")
        parts = [[weights[3 * gate + kind] for gate in order] for kind in range(3)]
        weights = [np.concatenate(arrays, axis=-1) for arrays in parts]
    if spec.layer is L.LSTM:
        arguments["unit_forget_bias"] = arguments.pop("forget_bias") == "one"
    return BuiltLayers([spec.layer(**arguments)], weights=weights)


def cudnn(spec: LayerSpec, context: BuildContext, arguments: dict[str, Any]) -> BuiltLayers:
    """CuDNNLSTM and CuDNNGRU of Keras 2: kernels transposed, two biases."""
    if len(context.arrays) != 3 or any(array.ndim != 2 for array in context.arrays[:2]):
        raise context.unsupported("its weights are not those of cuDNN")
    kernel, recurrent, bias = context.arrays
    gates = 4 if spec.layer is L.LSTM else 3
    if kernel.shape[1] % gates or recurrent.shape[1] != gates * recurrent.shape[0] or bias.ndim != 1:
        raise context.unsupported("its weights are not those of cuDNN")
    if bias.size != 2 * kernel.shape[1]:
        raise context.unsupported("its bias is not that of cuDNN")
    kernel = np.hstack([gate.T.reshape(gate.shape, order="F") for gate in np.hsplit(kernel, gates)])
    recurrent = np.hstack([gate.T for gate in np.hsplit(recurrent, gates)])
    both = bias.reshape(2, -1)
    return BuiltLayers(
        [spec.layer(**arguments)], weights=[kernel, recurrent, both.sum(0) if gates == 4 else both]
    )


def bidirectional(spec: LayerSpec, context: BuildContext, arguments: dict[str, Any]) -> BuiltLayers:
    """Both directions hold half of the weights each."""
    inner, backward = arguments.pop("layer"), arguments.pop("backward_layer", None)
    half = len(context.arrays) // 2
    forward = context.inside(inner, context.arrays[:half], context.shapes)
    other = context.inside(backward or inner, context.arrays[half:], context.shapes)
    if len(forward.layers) > 1 or len(other.layers) > 1 or not hasattr(forward.holder, "go_backwards"):
        raise context.unsupported("holds no recurrent layer")
    if backward is not None:
        arguments["backward_layer"] = other.holder
    with keras.saving.custom_object_scope(dict(context.custom)):
        layer = spec.layer(forward.holder, **arguments)
    return BuiltLayers([layer], weights=[*(forward.weights or []), *(other.weights or [])])
