"""What is channels first in a model, and what this machine's TensorFlow has no kernel for."""

from __future__ import annotations

import inspect
from functools import cache
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from ..axes import bias_is_misplaced
from ..batch_norms import layer_paths
from ..cloning import has_readable_graph
from ..messages import join_some

# Layers that may lack a kernel, by the axes of what they take besides images: samples and channels, and
# steps. Which do, depends on processor, type, TensorFlow and Keras.
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
    models = [one for one in (model, *layers.values()) if has_readable_graph(one)]
    operations = [
        (operation.name, operation)
        for one in models
        if not isinstance(one, keras.Sequential)  # which has none
        for operation in one.operations
        if not isinstance(operation, keras.layers.Layer)
    ]
    return [
        f"{path!r} ({type(one).__name__})"
        for path, one in (*layers.items(), *operations)
        if getattr(one, "data_format", None) == "channels_first"
    ]


def misplaced_biases(model: keras.layers.Layer) -> list[str]:
    """The paths of the layers of which `bias_misplaced` holds, where their output has one shape."""
    found = []
    for path, layer in layer_paths(model).items():
        try:
            shape = tuple(layer.output.shape)
        except (AttributeError, ValueError):  # called on several tensors, on lists, or never on such
            continue
        if bias_misplaced(layer, shape):
            found.append(repr(path))
    return found


def bias_misplaced(operation: Any, shape: tuple[int | None, ...]) -> bool:
    """Whether Keras adds a bias that is not 0 along the last axis, as long as the channels' one is.

    Args:
        operation: a layer, one at each step (TimeDistributed) too, or a Keras operation.
        shape: of its output.
    """
    stepwise = type(operation) is keras.layers.TimeDistributed
    layer = operation.layer if stepwise else operation
    if getattr(layer, "data_format", None) != "channels_first" or not _has_bias(layer):
        return False
    shape = shape[1:] if stepwise else shape
    by_tensorflow = "ConvLSTM" in type(layer).__name__  # whose cell adds it where it belongs
    return bias_is_misplaced(shape) and not by_tensorflow


def _has_bias(layer: Any) -> bool:
    return getattr(layer, "bias", None) is not None and bool(np.any(layer.bias))


def check_kernels(model: keras.layers.Layer, convertible: bool = True) -> None:
    """Refuse a model with channels-first layers that TensorFlow cannot run on this machine.

    Args:
        convertible: whether to name `tfbn.convert` as a remedy, which takes open models only.

    Raises:
        RuntimeError: there are such; it names them and the remedies.
    """
    lacking = {path: layer for path, layer in layer_paths(model).items() if _lacks_kernel(layer)}
    if lacking:
        dtypes = {layer.compute_dtype for layer in lacking.values()}
        remedy = TURN if convertible and has_readable_graph(model) else IN_CODE
        raise RuntimeError(_message(join_some([*map(repr, lacking)]), dtypes, remedy))


def explained(error: Exception) -> str | None:
    """Our words for TensorFlow's error that a channels-first kernel is missing; `None` for others.

    For what `check_kernels` cannot see: functions of TensorFlow in a layer of the user's own.
    """
    if not isinstance(error, tf.errors.OpError) or "NHWC" not in str(error):
        return None
    return _message("a function of TensorFlow", {"float32"}, "Make it channels last in its code")


def _message(what: str, dtypes: set[str], remedy: str) -> str:
    # oneDNN has no float64; where it runs already, turning it on is no remedy.
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
    if type(layer).call is not kind.call:  # a subclass that may do it otherwise
        return False
    return not has_kernel(kind, layer.compute_dtype)


@cache
def has_kernel(kind: type[keras.layers.Layer], dtype: str) -> bool:
    """Whether this machine runs such a layer channels first, if it does channels last."""
    return _runs(kind, dtype, "channels_first") or not _runs(kind, dtype, "channels_last")


def _runs(kind: type[keras.layers.Layer], dtype: str, data_format: str) -> bool:
    """Whether the smallest layer runs, by running it.

    A name and zeros: neither Keras' numbering of layers nor its random numbers go on by this.
    """
    known = inspect.signature(kind).parameters
    kernels = ("kernel", "recurrent", "depthwise", "pointwise")
    zeros = {name: "zeros" for name in known if name in [f"{one}_initializer" for one in kernels]}
    layer = kind(1, 1, data_format=data_format, dtype=dtype, name="tfbn_probe", **zeros)
    try:
        layer(tf.zeros([1] * RANKS[kind], dtype))
    except tf.errors.OpError:
        return False
    return True
