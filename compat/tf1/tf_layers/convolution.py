"""`tf.layers.conv2d` and the other convolutions."""

from __future__ import annotations

from typing import Any, ClassVar

import keras
import tensorflow as tf

from .layer import REQUIRED, WEIGHTS, Layer, function_of
from .pooling import LAYOUTS


class _Convolution(Layer):
    dimensions: ClassVar[int]

    def compute(self, x: tf.Tensor) -> tf.Tensor:
        filters = self.arguments["filters"]
        size = [*self.sizes("kernel_size"), self.channels(x), filters]
        kernel = self.variable("kernel", size, x)
        y = tf.nn.convolution(
            x,
            kernel,
            self.sizes("strides"),
            self.arguments["padding"].upper(),
            self.layout,
            self.sizes("dilation_rate"),
        )
        return self.with_bias(y, filters)

    @property
    def layout(self) -> str:
        return LAYOUTS[self.arguments["data_format"], self.dimensions]

    def sizes(self, name: str) -> list[int]:
        """An argument that is one number for all dimensions, or one for each."""
        value = self.arguments[name]
        return [value] * self.dimensions if isinstance(value, int) else [int(size) for size in value]

    def channels(self, x: tf.Tensor) -> int:
        size = x.shape.as_list()[1 if self.arguments["data_format"] == "channels_first" else -1]
        if size is None:
            raise ValueError(
                f"The channel dimension of the inputs should be defined. Found {x.shape}. Give it a "
                "size with set_shape."
            )
        return size


class _Transposed(_Convolution):
    def compute(self, x: tf.Tensor) -> tf.Tensor:
        filters, kernel_size = self.arguments["filters"], self.sizes("kernel_size")
        kernel = self.variable("kernel", [*kernel_size, filters, self.channels(x)], x)
        first = self.arguments["data_format"] == "channels_first"
        where = slice(2, None) if first else slice(1, -1)
        strides, same = self.sizes("strides"), self.arguments["padding"].lower() == "same"

        def made(sizes: Any) -> list[Any]:
            """What a convolution would have made these sizes of."""
            pairs = zip(sizes, kernel_size, strides, strict=True)
            return [
                None if size is None else size * stride + (0 if same else max(kernel - stride, 0))
                for size, kernel, stride in pairs
            ]

        known = made(x.shape.as_list()[where])
        free = made(tf.unstack(tf.shape(x), num=x.shape.rank)[where])
        sizes = [size if size is not None else other for size, other in zip(known, free, strict=True)]
        batch = tf.shape(x)[0]
        shape = tf.stack([batch, filters, *sizes] if first else [batch, *sizes, filters])
        operation = tf.nn.conv2d_transpose if self.dimensions == 2 else tf.nn.conv3d_transpose
        y = operation(x, kernel, shape, strides, self.arguments["padding"].upper(), self.layout)
        number = x.shape.as_list()[0]
        y.set_shape([number, filters, *known] if first else [number, *known, filters])
        return self.with_bias(y, filters)


def _parameters(dimensions: int, strides: Any = 1, dilation: bool = True) -> dict[str, Any]:
    def each(value: int) -> Any:
        return value if dimensions == 1 else (value,) * dimensions

    return {
        "filters": REQUIRED,
        "kernel_size": REQUIRED,
        "strides": each(strides),
        "padding": "valid",
        "data_format": "channels_last",
        **({"dilation_rate": each(1)} if dilation else {}),
        **WEIGHTS,
    }


class Conv1D(_Convolution):
    """`tf.layers.Conv1D`."""

    dimensions, base_name, keras_class = 1, "conv1d", keras.layers.Conv1D
    parameters = _parameters(1)


class Conv2D(_Convolution):
    """`tf.layers.Conv2D`."""

    dimensions, base_name, keras_class = 2, "conv2d", keras.layers.Conv2D
    parameters = _parameters(2)


class Conv3D(_Convolution):
    """`tf.layers.Conv3D`."""

    dimensions, base_name, keras_class = 3, "conv3d", keras.layers.Conv3D
    parameters = _parameters(3)


class Conv2DTranspose(_Transposed):
    """`tf.layers.Conv2DTranspose`."""

    dimensions, base_name, keras_class = 2, "conv2d_transpose", keras.layers.Conv2DTranspose
    parameters = _parameters(2, dilation=False)


class Conv3DTranspose(_Transposed):
    """`tf.layers.Conv3DTranspose`."""

    dimensions, base_name, keras_class = 3, "conv3d_transpose", keras.layers.Conv3DTranspose
    parameters = _parameters(3, dilation=False)


class SeparableConv2D(_Convolution):
    """`tf.layers.SeparableConv2D`."""

    dimensions, base_name, keras_class = 2, "separable_conv2d", keras.layers.SeparableConv2D
    _kinds = ("depthwise", "pointwise")
    parameters = {  # noqa: RUF012
        **{key: value for key, value in _parameters(2).items() if key not in WEIGHTS},
        "depth_multiplier": 1,
        "activation": None,
        "use_bias": True,
        **dict.fromkeys((f"{kind}_initializer" for kind in _kinds), None),
        "bias_initializer": WEIGHTS["bias_initializer"],
        **dict.fromkeys((f"{kind}_regularizer" for kind in _kinds), None),
        "bias_regularizer": None,
        "activity_regularizer": None,
        **dict.fromkeys((f"{kind}_constraint" for kind in _kinds), None),
        "bias_constraint": None,
        "trainable": True,
        "name": None,
    }

    def compute(self, x: tf.Tensor) -> tf.Tensor:
        filters, channels = self.arguments["filters"], self.channels(x)
        multiplier = self.arguments["depth_multiplier"]
        sizes = self.sizes("kernel_size")
        depthwise = self.variable("depthwise_kernel", [*sizes, channels, multiplier], x)
        pointwise = self.variable("pointwise_kernel", [1, 1, channels * multiplier, filters], x)
        first = self.arguments["data_format"] == "channels_first"
        strides = self.sizes("strides")
        y = tf.nn.separable_conv2d(
            x,
            depthwise,
            pointwise,
            [1, 1, *strides] if first else [1, *strides, 1],
            self.arguments["padding"].upper(),
            self.layout,
            self.sizes("dilation_rate"),
        )
        return self.with_bias(y, filters)


conv1d = function_of(Conv1D, "conv1d")
conv2d = function_of(Conv2D, "conv2d")
conv3d = function_of(Conv3D, "conv3d")
conv2d_transpose = function_of(Conv2DTranspose, "conv2d_transpose")
conv3d_transpose = function_of(Conv3DTranspose, "conv3d_transpose")
separable_conv2d = function_of(SeparableConv2D, "separable_conv2d")
