"""What this machine's TensorFlow has no channels-first kernel for."""

from __future__ import annotations

from functools import cache
from typing import Any

import keras
import tensorflow as tf

from ..batch_norms import layer_paths, some

L = keras.layers

# Rank of the input, of the layers that may lack one. Keras runs the others (pooling, depthwise, grouped
# and three-dimensional convolutions) by other kernels or through XLA, which are there everywhere.
RANKS: dict[type[keras.layers.Layer], int] = {
    L.Conv1D: 3,
    L.Conv2D: 4,
    L.Conv3D: 5,
    L.Conv1DTranspose: 3,
    L.Conv2DTranspose: 4,
    L.Conv3DTranspose: 5,
    L.ConvLSTM1D: 4,
    L.ConvLSTM2D: 5,
    L.ConvLSTM3D: 6,
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
    helps = "float64" not in dtypes and not has_kernel(L.Conv2D, "float32")
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
    """Whether this machine runs such a layer channels first, by running the smallest one."""
    # A name and zeros: neither Keras' numbering of layers nor its random numbers go on by this.
    arguments = {"name": "tfbn_probe", "kernel_initializer": "zeros", "dtype": dtype}
    if "LSTM" in kind.__name__:
        arguments["recurrent_initializer"] = "zeros"
    layer = kind(1, 1, data_format="channels_first", **arguments)
    try:
        layer(tf.zeros([1] * RANKS[kind], dtype))
    except tf.errors.OpError:
        return False
    return True
