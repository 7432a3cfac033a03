"""`tf.layers.dense`, `flatten` and `dropout`."""

from __future__ import annotations

import math
from typing import Any

import keras
import tensorflow as tf

from ..bn_ops import static_training
from .layer import REQUIRED, WEIGHTS, Layer, function_of


class Dense(Layer):
    """`tf.layers.Dense`: `activation(inputs @ kernel + bias)` along the last axis."""

    parameters = {"units": REQUIRED, **WEIGHTS}  # noqa: RUF012
    base_name = "dense"
    keras_class = keras.layers.Dense

    def compute(self, x: tf.Tensor) -> tf.Tensor:
        units, size = int(self.arguments["units"]), x.shape.as_list()[-1]
        if size is None:
            raise ValueError(
                f"The last dimension of the inputs to `Dense` should be defined. Found {x.shape}. Give "
                "it a size with set_shape."
            )
        kernel = self.variable("kernel", [size, units], x)
        if x.shape.rank == 2:
            return self.with_bias(tf.matmul(x, kernel), units)
        y = tf.tensordot(x, kernel, [[x.shape.rank - 1], [0]])
        y.set_shape([*x.shape.as_list()[:-1], units])
        return self.with_bias(y, units)


class Flatten(Layer):
    """`tf.layers.Flatten`: all axes but the first as one."""

    parameters = {"data_format": "channels_last", "name": None}  # noqa: RUF012
    base_name = "flatten"
    keras_class = keras.layers.Flatten

    def compute(self, x: tf.Tensor) -> tf.Tensor:
        if self.arguments["data_format"] == "channels_first" and x.shape.rank > 2:
            x = tf.transpose(x, [0, *range(2, x.shape.rank), 1])
        sizes = x.shape.as_list()[1:]
        known = None if None in sizes else math.prod(sizes)
        y = tf.reshape(x, [tf.shape(x)[0], -1 if known is None else known])
        y.set_shape([x.shape.as_list()[0], known])
        return y


class Dropout(Layer):
    """`tf.layers.Dropout`: runs where `training` is true, which it is not by default."""

    parameters = {"rate": 0.5, "noise_shape": None, "seed": None, "name": None}  # noqa: RUF012
    base_name = "dropout"
    call_arguments = ("training",)
    keras_class = keras.layers.Dropout

    def compute(self, x: tf.Tensor, training: Any = False) -> tf.Tensor:
        def dropped() -> tf.Tensor:
            shape, seed = self.arguments["noise_shape"], self.arguments["seed"]
            return tf.nn.dropout(x, self.arguments["rate"], noise_shape=shape, seed=seed)

        constant = static_training(training)
        if constant is None:
            return tf.cond(tf.convert_to_tensor(training), dropped, lambda: tf.identity(x))
        return dropped() if constant else tf.identity(x)

    def keras_layer(self, inputs: keras.KerasTensor, **call: Any) -> keras.KerasTensor:
        """With `training=False` it is left out; with `True` and `None` it follows the model."""
        training = call.get("training", False)
        if tf.is_tensor(training):
            raise ValueError(
                "tf.layers.dropout on a Keras tensor cannot take a tensor as training. Pass True: the "
                "model says whether it trains, model(x, training=…)."
            )
        return inputs if training is not None and not training else super().keras_layer(inputs)


def flatten(inputs: Any, name: str | None = None, data_format: str = "channels_last") -> Any:
    """`tf.layers.flatten`, whose arguments are in another order than those of `Flatten`."""
    return Flatten(data_format, name)(inputs)


dense = function_of(Dense, "dense")
dropout = function_of(Dropout, "dropout", training=False)
