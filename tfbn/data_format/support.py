"""Which layers are channels first, and which of them TensorFlow has no kernel for on this machine."""

from __future__ import annotations

import inspect
from functools import cache
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from ..axes import bias_is_misplaced
from ..batch_norms import layer_paths
from ..declared_graph import has_readable_graph
from ..messages import join_some

# Layers that may lack a kernel, and how many axes besides those of images their inputs have: batch and
# channels, and time. Whether a kernel is lacking depends on processor, type, TensorFlow and Keras.
_KINDS = {
    "Conv{}D": 2,
    "Conv{}DTranspose": 2,
    "DepthwiseConv{}D": 2,
    "SeparableConv{}D": 2,
    "MaxPooling{}D": 2,
    "AveragePooling{}D": 2,
    "ConvLSTM{}D": 3,
}
RANKS: dict[type[keras.layers.Layer], int] = {
    getattr(keras.layers, name.format(rank)): rank + others
    for name, others in _KINDS.items()
    for rank in (1, 2, 3)
    if hasattr(keras.layers, name.format(rank))
}


CONVERT = "tfbn.convert(model, data_format='channels_last')"  # what messages name as the remedy
IN_CODE = "Make the layers channels last in the code of the model"
TURN = f"Make the model channels last with {CONVERT}"


def channels_first(model: keras.layers.Layer) -> list[str]:
    """The paths of the layers, and names of the Keras operations, that are channels first."""
    layers = layer_paths(model)
    models = [layer for layer in (model, *layers.values()) if has_readable_graph(layer)]
    operations = [
        (operation.name, operation)
        for inner in models
        if not isinstance(inner, keras.Sequential)  # which has no operations
        for operation in inner.operations
        if not isinstance(operation, keras.layers.Layer)
    ]
    return [
        f"{path!r} ({type(operation).__name__})"
        for path, operation in (*layers.items(), *operations)
        if getattr(operation, "data_format", None) == "channels_first"
    ]


def misplaced_biases(model: keras.layers.Layer) -> list[str]:
    """The paths of the layers for which `bias_misplaced` holds, among those with one output shape."""
    found = []
    for path, layer in layer_paths(model).items():
        try:
            shape = tuple(layer.output.shape)
        except (AttributeError, ValueError):  # several calls, several outputs, or none
            continue
        if bias_misplaced(layer, shape):
            found.append(repr(path))
    return found


def bias_misplaced(operation: Any, shape: tuple[int | None, ...]) -> bool:
    """Whether Keras adds a bias other than 0 along the last axis instead of the channel axis.

    Args:
        operation: a layer, a TimeDistributed layer, or a Keras operation.
        shape: that of its output.
    """
    stepwise = type(operation) is keras.layers.TimeDistributed
    layer = operation.layer if stepwise else operation
    if getattr(layer, "data_format", None) != "channels_first" or not _has_bias(layer):
        return False
    shape = shape[1:] if stepwise else shape
    by_tensorflow = "ConvLSTM" in type(layer).__name__  # adds it to the channels
    return bias_is_misplaced(shape) and not by_tensorflow


def _has_bias(layer: Any) -> bool:
    return getattr(layer, "bias", None) is not None and bool(np.any(layer.bias))


def check_kernels(model: keras.layers.Layer, convertible: bool = True) -> None:
    """Refuse a model with channels-first layers that TensorFlow cannot run on this machine.

    Args:
        convertible: whether to name `tfbn.convert` as a remedy, if the model's graph is readable.

    Raises:
        RuntimeError: there are such layers; it names them and the remedies.
    """
    lacking = {path: layer for path, layer in layer_paths(model).items() if _lacks_kernel(layer)}
    if lacking:
        dtypes = {layer.compute_dtype for layer in lacking.values()}
        remedy = TURN if convertible and has_readable_graph(model) else IN_CODE
        raise RuntimeError(_message(join_some([*map(repr, lacking)]), dtypes, remedy))


def explained(error: Exception) -> str | None:
    """TensorFlow's error about a missing channels-first kernel, explained; `None` for other errors.

    For what `check_kernels` does not see: TensorFlow functions in a layer of the user's.
    """
    if not isinstance(error, tf.errors.OpError) or "NHWC" not in str(error):
        return None
    return _message("a function of TensorFlow", {"float32"}, "Make it channels last in its code")


def _message(what: str, dtypes: set[str], remedy: str) -> str:
    # oneDNN is no remedy for float64, which it does not support, nor where it is in use already.
    helps = "float64" not in dtypes and not has_kernel(keras.layers.Conv2D, "float32")
    switch = "set the environment variable TF_ENABLE_ONEDNN_OPTS=1 before TensorFlow is imported"
    return (
        f"The model runs {what} channels first, for which TensorFlow has no kernel on this machine's "
        f"CPU{' without oneDNN' if helps else ''}. {remedy}{f', or {switch}' if helps else ''}."
    )


def _lacks_kernel(layer: Any) -> bool:
    kind: Any = next((kind for kind in RANKS if isinstance(layer, kind)), None)
    if kind is None or layer.data_format != "channels_first" or getattr(layer, "groups", 1) > 1:
        return False
    if type(layer).call is not kind.call:  # a subclass that may compute it in another way
        return False
    return not has_kernel(kind, layer.compute_dtype)


@cache
def has_kernel(kind: type[keras.layers.Layer], dtype: str) -> bool:
    """Whether this machine runs such a layer channels first, or does not even run it channels last."""
    return _runs(kind, dtype, "channels_first") or not _runs(kind, dtype, "channels_last")


def _runs(kind: type[keras.layers.Layer], dtype: str, data_format: str) -> bool:
    """Whether such a layer runs, by running the smallest one.

    It is given a name and zeros as weights, so that neither Keras' numbering of layers nor its random
    numbers change.
    """
    known = inspect.signature(kind).parameters
    kernels = ("kernel", "recurrent", "depthwise", "pointwise")
    zeros = {name: "zeros" for name in known if name in [f"{kernel}_initializer" for kernel in kernels]}
    layer = kind(1, 1, data_format=data_format, dtype=dtype, name="tfbn_probe", **zeros)
    try:
        layer(tf.zeros([1] * RANKS[kind], dtype))
    except tf.errors.OpError:
        return False
    return True
