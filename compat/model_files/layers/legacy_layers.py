"""What layers of Keras 1 and 2 computed and no layer of Keras 3 does."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf

from ....data_format import rules, tables


@keras.saving.register_keras_serializable(package="tfbn")
def legacy_hard_sigmoid(x: Any) -> Any:
    """The piecewise linear sigmoid of Keras 1 and 2, of slope 0.2; Keras 3's has 1/6."""
    return keras.ops.clip(0.2 * x + 0.5, 0.0, 1.0)


class _Elementwise(keras.layers.Layer):
    """A layer of the same shape at its output, that hands masks on."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.supports_masking = True

    def compute_output_shape(self, input_shape: Sequence[int | None]) -> Sequence[int | None]:
        return input_shape


@keras.saving.register_keras_serializable(package="tfbn")
class ThresholdedReLU(_Elementwise):
    """x where x > theta, 0 elsewhere: `keras.layers.ThresholdedReLU` of Keras 1 and 2."""

    def __init__(self, theta: float = 1.0, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.theta = theta

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        return inputs * tf.cast(inputs > tf.cast(self.theta, inputs.dtype), inputs.dtype)

    def get_config(self) -> dict[str, Any]:
        return super().get_config() | {"theta": self.theta}


class _Parametric(_Elementwise):
    """An activation with trained parameters, a number each for every feature of a sample.

    Args:
        shared_axes: axes along which there is one parameter, counted from 1.
    """

    parameters: tuple[str, ...] = ()

    def __init__(self, shared_axes: Sequence[int] | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.shared_axes = list(shared_axes or ())

    def parameter_shape(self, input_shape: Sequence[int | None]) -> tuple[int | None, ...]:
        axes = enumerate(input_shape)
        return tuple(1 if axis in self.shared_axes else size for axis, size in axes)[1:]

    def build(self, input_shape: Sequence[int | None]) -> None:
        shape = self.parameter_shape(input_shape)
        for name in self.parameters:
            setattr(self, name, self.add_weight(name=name, shape=shape, initializer="zeros"))
        self.built = True

    def get_config(self) -> dict[str, Any]:
        return super().get_config() | {"shared_axes": self.shared_axes}


@keras.saving.register_keras_serializable(package="tfbn")
class ParametricSoftplus(_Parametric):
    """alphas · log(1 + exp(betas · x)) of Keras 1."""

    parameters = ("alphas", "betas")

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        return tf.math.softplus(self.betas * inputs) * self.alphas


@keras.saving.register_keras_serializable(package="tfbn")
class SReLU(_Parametric):
    """The S-shaped rectifier of Keras 1: three lines that meet at t_left and t_left + |t_right|."""

    parameters = ("t_left", "a_left", "t_right", "a_right")

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        low, high = self.t_left, self.t_left + tf.abs(tf.convert_to_tensor(self.t_right))
        middle = tf.clip_by_value(inputs, low, high)
        return (
            middle
            + self.a_left * tf.minimum(inputs - low, 0)
            + self.a_right * tf.maximum(inputs - high, 0)
        )


@keras.saving.register_keras_serializable(package="tfbn")
class Cosine(keras.layers.Layer):
    """The Merge of mode "cos" in Keras 1: x · y / max(sqrt(x · x y · y), 1e-7), with a new axis 1.

    Args:
        axes: the axis of each input that the products run along.
    """

    def __init__(self, axes: Sequence[int], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.axes = list(axes)

    def call(self, inputs: Sequence[tf.Tensor]) -> tf.Tensor:
        x, y = inputs
        first, second = self.axes
        norm = tf.sqrt(_product(x, x, first, first) * _product(y, y, second, second))
        return tf.expand_dims(_product(x, y, first, second) / tf.maximum(norm, 1e-7), 1)

    def get_config(self) -> dict[str, Any]:
        return super().get_config() | {"axes": self.axes}


def _product(x: tf.Tensor, y: tf.Tensor, first: int, second: int) -> tf.Tensor:
    return keras.layers.Dot(axes=(first % x.shape.rank, second % y.shape.rank))([x, y])


@keras.saving.register_keras_serializable(package="tfbn")
class CornerUpSampling2D(keras.layers.UpSampling2D):
    """Bilinear upsampling of Keras up to 2.3 and TensorFlow up to 1.14: pixel i samples i / size.

    Later releases sample (i + 0.5) / size − 0.5.
    """

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        first = self.data_format == "channels_first"
        x = tf.transpose(inputs, (0, 2, 3, 1)) if first else inputs
        x = tf.compat.v1.image.resize_bilinear(x, tf.shape(x)[1:3] * self.size)
        x = tf.cast(x, inputs.dtype)
        x = tf.transpose(x, (0, 3, 1, 2)) if first else x
        x.set_shape(self.compute_output_shape(inputs.shape))  # a graph loses the static sizes
        return x


@keras.saving.register_keras_serializable(package="tfbn")
class TheanoPooling(keras.layers.Layer):
    """Pooling of border_mode "same" on Theano, whose windows lie otherwise than TensorFlow's.

    Window i of p along an axis begins at i · stride − (p − 1), or − (p − 2) for odd p; there are
    ceil(size / stride) of them. Padding never counts, neither in the maximum nor in the average.

    Args:
        pool_size, strides: for each axis.
        mode: "MAX" or "AVG".
        data_format: "channels_last" or "channels_first".
    """

    def __init__(
        self,
        pool_size: Sequence[int],
        strides: Sequence[int],
        mode: str,
        data_format: str = "channels_last",
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.pool_size, self.strides = list(pool_size), list(strides)
        self.mode, self.data_format = mode, data_format

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        rank = len(self.pool_size)
        last = [0, *range(2, rank + 2), 1]
        back = [0, rank + 1, *range(1, rank + 1)]
        x = tf.transpose(inputs, last) if self.data_format == "channels_first" else inputs
        sizes = tf.shape(x)[1:-1]
        pads = [p - 2 if p % 2 and p > 1 else p - 1 for p in self.pool_size]
        around = [[0, 0], *([pad, pad] for pad in pads), [0, 0]]
        window = {"window_shape": self.pool_size, "strides": self.strides, "padding": "VALID"}
        if self.mode == "MAX":
            x = tf.nn.pool(tf.pad(x, around, constant_values=x.dtype.min), pooling_type="MAX", **window)
        else:
            here = tf.pad(tf.ones_like(x), around)
            total = tf.nn.pool(tf.pad(x, around), pooling_type="AVG", **window)
            x = tf.math.divide_no_nan(total, tf.nn.pool(here, pooling_type="AVG", **window))
        count = (sizes + self.strides - 1) // self.strides
        x = tf.slice(x, [0] * (rank + 2), tf.concat([[-1], count, [-1]], 0))
        x = tf.transpose(x, back) if self.data_format == "channels_first" else x
        x.set_shape(self.compute_output_shape(inputs.shape))  # a graph loses the static sizes
        return x

    def compute_output_shape(self, input_shape: Sequence[int | None]) -> tuple[int | None, ...]:
        start = 2 if self.data_format == "channels_first" else 1
        shape = list(input_shape)
        for axis, stride in enumerate(self.strides, start):
            size = shape[axis]
            shape[axis] = None if size is None else -(-size // stride)
        return tuple(shape)

    def get_config(self) -> dict[str, Any]:
        return super().get_config() | {
            "pool_size": self.pool_size,
            "strides": self.strides,
            "mode": self.mode,
            "data_format": self.data_format,
        }


class _Padded:
    """A transposed convolution with an `output_padding` that is saved, and may be 0 on an axis.

    Keras' own layer computes it, but leaves it out of its configuration before Keras 3.15, and refuses
    a 0 in it before 3.11.
    """

    output_padding: tuple[int, ...] | None

    def __init__(self, *args: Any, output_padding: Sequence[int] | None = None, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.output_padding = None if output_padding is None else tuple(output_padding)

    def get_config(self) -> dict[str, Any]:
        return super().get_config() | {"output_padding": self.output_padding}  # type: ignore[misc]


@keras.saving.register_keras_serializable(package="tfbn")
class PaddedConv1DTranspose(_Padded, keras.layers.Conv1DTranspose):
    """`Conv1DTranspose` that saves its `output_padding`."""


@keras.saving.register_keras_serializable(package="tfbn")
class PaddedConv2DTranspose(_Padded, keras.layers.Conv2DTranspose):
    """`Conv2DTranspose` that saves its `output_padding`."""


@keras.saving.register_keras_serializable(package="tfbn")
class PaddedConv3DTranspose(_Padded, keras.layers.Conv3DTranspose):
    """`Conv3DTranspose` that saves its `output_padding`."""


tables.RULES |= {
    ThresholdedReLU: rules.elementwise,
    ParametricSoftplus: rules.parametric,
    SReLU: rules.parametric,
    CornerUpSampling2D: rules.spatial,
    TheanoPooling: rules.spatial,
    PaddedConv1DTranspose: rules.spatial,
    PaddedConv2DTranspose: rules.spatial,
    PaddedConv3DTranspose: rules.spatial,
}
