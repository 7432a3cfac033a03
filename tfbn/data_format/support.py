"""What this machine's TensorFlow has no channels-first kernel for."""

from __future__ import annotations

import inspect
from functools import cache
from typing import Any

import keras
import tensorflow as tf

from ..batch_norms import layer_paths, some

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


def check_kernels(model: keras.layers.Layer) -> None:
    """Refuse a model with channels-first layers that TensorFlow cannot run on this machine.

    Raises:
        RuntimeError: there are such; it names them and both remedies.
    """
    lacking = {path: layer for path, layer in layer_paths(model).items() if _lacks_kernel(layer)}
    if lacking:
        dtypes = {layer.compute_dtype for layer in lacking.values()}
        raise RuntimeError(message(some([*map(repr, lacking)]), dtypes))


def explained(error: Exception) -> str | None:
    """Our words for TensorFlow's error that a channels-first kernel is missing; `None` for others.

    For what `check_kernels` cannot see: functions of TensorFlow in a layer of the user's own.
    """
    lacks = isinstance(error, tf.errors.OpError) and "NHWC" in str(error)
    return message("a layer", {"float32"}) if lacks else None


def message(what: str, dtypes: set[str]) -> str:
    # oneDNN has no float64; where it runs already, turning it on is no remedy.
    helps = "float64" not in dtypes and not has_kernel(keras.layers.Conv2D, "float32")
    switch = (
        ", or set the environment variable TF_ENABLE_ONEDNN_OPTS=1 before TensorFlow is imported"
        if helps
        else ""
    )
    return (
        f"The model runs {what} channels first, for which TensorFlow has no kernel on this machine's "
        f"CPU{' without oneDNN' if helps else ''}. Turn the model round with tfbn.convert(model, "
        f"data_format='channels_last'){switch}."
    )


def _lacks_kernel(layer: Any) -> bool:
    kind: Any = next((kind for kind in RANKS if isinstance(layer, kind)), None)
    if kind is None or layer.data_format != "channels_first" or getattr(layer, "groups", 1) > 1:
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
