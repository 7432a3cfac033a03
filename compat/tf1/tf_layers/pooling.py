"""`tf.layers.max_pooling2d`, `average_pooling2d` and those of other ranks."""

from __future__ import annotations

from typing import Any, ClassVar

import keras
import tensorflow as tf

from .layer import REQUIRED, Layer, function_of

LAYOUTS = {
    ("channels_last", 1): "NWC",
    ("channels_last", 2): "NHWC",
    ("channels_last", 3): "NDHWC",
    ("channels_first", 1): "NCW",
    ("channels_first", 2): "NCHW",
    ("channels_first", 3): "NCDHW",
}


class _Pooling(Layer):
    parameters = {  # noqa: RUF012
        "pool_size": REQUIRED,
        "strides": REQUIRED,
        "padding": "valid",
        "data_format": "channels_last",
        "name": None,
    }
    pool: ClassVar[Any]

    def compute(self, x: tf.Tensor) -> tf.Tensor:
        given = self.arguments
        layout = LAYOUTS[given["data_format"], x.shape.rank - 2]
        sizes = given["pool_size"], given["strides"]
        return type(self).pool(x, *sizes, given["padding"].upper(), data_format=layout)


def _pooling(dimensions: int, kind: str, pool: Any) -> type[Layer]:
    """The class of TensorFlow 1 for so many dimensions."""
    name = f"{kind}Pooling{dimensions}D"
    members = {
        "__doc__": f"`tf.layers.{name}`.",
        "__module__": __name__,
        "base_name": f"{kind.lower()}_pooling{dimensions}d",
        "keras_class": getattr(keras.layers, name),
        "pool": staticmethod(pool),
    }
    return type(name, (_Pooling,), members)


MaxPooling1D, MaxPooling2D, MaxPooling3D = (_pooling(n, "Max", tf.nn.max_pool) for n in (1, 2, 3))
AveragePooling1D, AveragePooling2D, AveragePooling3D = (
    _pooling(n, "Average", tf.nn.avg_pool) for n in (1, 2, 3)
)
max_pooling1d = function_of(MaxPooling1D, "max_pooling1d")
max_pooling2d = function_of(MaxPooling2D, "max_pooling2d")
max_pooling3d = function_of(MaxPooling3D, "max_pooling3d")
average_pooling1d = function_of(AveragePooling1D, "average_pooling1d")
average_pooling2d = function_of(AveragePooling2D, "average_pooling2d")
average_pooling3d = function_of(AveragePooling3D, "average_pooling3d")
