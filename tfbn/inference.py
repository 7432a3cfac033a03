"""Algorithm 2's affine map by TensorFlow's kernel, with the gradient of the formulas.

Of a frozen layer only the slope of x is asked. The kernel's gradient adds up those of beta and gamma,
too, which takes two to four times as long. And where TensorFlow takes a `tf.autodiff.ForwardAccumulator`
through a function, it has stopped all tapes, on one of which the gradient of the kernel's gradient is
made: the tangent was lost without a word.

TensorFlow keeps what a gradient of our own refers to, for good. So it stands in a function that refers
to nothing of a model, which layers of one shape share. TensorFlow inlines its calls and removes the
operation that carries the gradient, before it merges convolution, batch norm and activation.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any

import tensorflow as tf

from . import fused, runtime
from .axes import Axis, channel_axes, reduction_axes
from .flat import values_of
from .functional import TensorLike
from .moments import broadcast_along, size_of, widen
from .traced_once import MOST_SHAPES


def normalize(
    x: tf.Tensor,
    mean: tf.Tensor,
    variance: tf.Tensor,
    beta: TensorLike | None,
    gamma: TensorLike | None,
    epsilon: float,
    axis: Axis,
) -> tf.Tensor:
    """As `fused.normalize`; mean and variance have no gradient."""
    (channel,) = channel_axes(axis, x.shape.rank)
    size = size_of(x, channel)
    beta = tf.zeros([size]) if beta is None else beta
    gamma = tf.ones([size]) if gamma is None else gamma
    function = _function(epsilon, channel, runtime.has_gpu(), x.dtype, *x.shape)
    return function(x, *(tf.cast(each, tf.float32) for each in (mean, variance, beta, gamma)))


@lru_cache(MOST_SHAPES)
def _function(epsilon: float, channel: int, gpu: bool, dtype: tf.DType, *sizes: int | None) -> Any:
    """Of one shape, with a GPU or without: of x, mean, variance, beta and gamma."""
    del gpu  # which decides the layout that the kernel is given

    def normalized(x: tf.Tensor, mean: tf.Tensor, variance: tf.Tensor, *affine: tf.Tensor) -> tf.Tensor:
        @tf.custom_gradient
        def with_slopes(
            x: tf.Tensor, beta: tf.Tensor, gamma: tf.Tensor
        ) -> tuple[tf.Tensor, Callable[[tf.Tensor], tuple[tf.Tensor, ...]]]:
            def slopes(dy: tf.Tensor) -> tuple[tf.Tensor, ...]:
                return _slopes(x, mean, tf.math.rsqrt(variance + epsilon), gamma, dy, channel)

            return fused.normalize(x, mean, variance, beta, gamma, epsilon, channel), slopes

        return with_slopes(x, *affine)

    channels = tf.TensorSpec(sizes[channel : channel + 1])
    signature = [tf.TensorSpec(sizes, dtype), *[channels] * 4]
    return tf.function(normalized, input_signature=signature, autograph=False)


def _slopes(
    x: tf.Tensor, mean: tf.Tensor, factor: tf.Tensor, gamma: tf.Tensor, dy: tf.Tensor, channel: int
) -> tuple[tf.Tensor, ...]:
    """The gradients of x, beta and gamma; the factor is one over the deviation."""
    rank, dy = x.shape.rank, widen(dy)
    deviations = widen(x) - broadcast_along(mean, channel, rank)
    dx = dy * broadcast_along(gamma * factor, channel, rank)
    return tf.cast(dx, x.dtype), _sum(dy, channel), _sum(dy * deviations, channel) * factor


def _sum(values: tf.Tensor, channel: int) -> tf.Tensor:
    """Sum of each channel: of the last axis by a product with ones, in two thirds to all of the time.

    On a GPU, products may round to fewer digits.
    """
    if channel < values.shape.rank - 1 or runtime.has_gpu():
        return tf.reduce_sum(values, reduction_axes(channel, values.shape.rank))
    rows = values_of(values)
    return tf.squeeze(tf.ones([1, tf.shape(rows)[0]]) @ rows, 0)
