"""Algorithm 2's affine map by TensorFlow's kernel, with the gradient of the formulas.

Of a frozen layer only the slope of x is asked. The kernel's gradient adds up those of beta and gamma,
too, which takes two to four times as long. And where TensorFlow takes a `tf.autodiff.ForwardAccumulator`
through a function, it has stopped all tapes, on one of which the gradient of the kernel's gradient is
made: the tangent was lost without a word.

The operation that carries a gradient of our own is gone before TensorFlow merges convolution, batch norm
and activation.
"""

from __future__ import annotations

from collections.abc import Callable

import tensorflow as tf

from . import fused, runtime
from .axes import Axis, channel_axes, reduction_axes
from .flat import values_of
from .functional import TensorLike
from .moments import broadcast_along, size_of, widen


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
    mean, variance = tf.cast(mean, tf.float32), tf.cast(variance, tf.float32)

    def along(per_channel: tf.Tensor) -> tf.Tensor:
        return broadcast_along(per_channel, channel, x.shape.rank)

    @tf.custom_gradient
    def normalized(
        x: tf.Tensor, beta: tf.Tensor, gamma: tf.Tensor
    ) -> tuple[tf.Tensor, Callable[[tf.Tensor], tuple[tf.Tensor, ...]]]:
        def slopes(dy: tf.Tensor) -> tuple[tf.Tensor, ...]:
            dy, factor = widen(dy), tf.math.rsqrt(variance + epsilon)
            dx = tf.cast(dy * along(gamma * factor), x.dtype)
            dgamma = _sum(dy * (widen(x) - along(mean)), channel) * factor
            return dx, _sum(dy, channel), dgamma

        return fused.normalize(x, mean, variance, beta, gamma, epsilon, channel), slopes

    size = size_of(mean, 0)
    beta = tf.zeros([size]) if beta is None else tf.cast(beta, tf.float32)
    gamma = tf.ones([size]) if gamma is None else tf.cast(gamma, tf.float32)
    return normalized(x, beta, gamma)


def _sum(values: tf.Tensor, channel: int) -> tf.Tensor:
    """Sum of each channel, by a product with ones: on a CPU it takes two thirds to all of the time."""
    if channel < values.shape.rank - 1 or runtime.has_gpu():  # whose products round to fewer digits
        return tf.reduce_sum(values, reduction_axes(channel, values.shape.rank))
    rows = values_of(values)
    return tf.squeeze(tf.ones([1, tf.shape(rows)[0]]) @ rows, 0)
