"""Algorithm 1 as XLA compiles it best: few axes, sums of small numbers, and a gradient of two sums.

XLA makes loops of the operations as they are written. On a tensor whose positions are one axis they are
up to four times as fast as on images (docs/benchmarks.md). What the gradient needs is computed again
from the inputs, which XLA fuses into the sums.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import tensorflow as tf

from . import functional
from .axes import Axis, channel_axes
from .functional import TensorLike
from .moments import Moments, batch_moments, broadcast_along, count_values
from .sums import exact_sum

FEW = 8  # values of each channel

Slope = tuple[tf.Tensor | None, ...]


def normalize_batch(
    x: tf.Tensor, beta: TensorLike | None, gamma: TensorLike | None, epsilon: float, axis: Axis
) -> tuple[tf.Tensor, Moments]:
    """The batch normalised with its own moments, and those moments, as `kernels.normalize_batch`."""
    (channel,) = channel_axes(axis, x.shape.rank)
    wide = x if x.dtype == tf.float64 else tf.cast(x, tf.float32)
    flat, channel = _flat(wide, channel)
    size = flat.shape.as_list()[channel]
    beta = tf.zeros([size], wide.dtype) if beta is None else tf.cast(beta, wide.dtype)
    gamma = tf.ones([size], wide.dtype) if gamma is None else tf.cast(gamma, wide.dtype)
    y, mean, variance = _Flat(channel, flat.shape.rank, epsilon).normalized(flat, beta, gamma)
    y = tf.reshape(y, tf.shape(x))
    y.set_shape(x.shape)
    return tf.cast(y, x.dtype), Moments(mean, variance, count_values(x, axis))


def _flat(x: tf.Tensor, channel: int) -> tuple[tf.Tensor, int]:
    """The tensor with one axis for its positions, and the number of its channel axis.

    [samples, positions, channels] or, of channels that are not last, [samples, channels, positions].
    """
    shape, last = tf.shape(x), x.shape.rank - 1
    size = x.shape.as_list()[channel]
    if channel == last > 1:
        return tf.reshape(x, [shape[0], tf.reduce_prod(shape[1:-1]), size]), 2
    if last in (channel, 1):
        return x, channel
    before, after = tf.reduce_prod(shape[:channel]), tf.reduce_prod(shape[channel + 1 :])
    return tf.reshape(x, [before, size, after]), 1


class _Flat:
    """Algorithm 1 and its gradient for tensors of one rank and channel axis."""

    def __init__(self, channel: int, rank: int, epsilon: float) -> None:
        self.channel, self.rank, self.epsilon = channel, rank, epsilon
        self.axes = tuple(number for number in range(rank) if number != channel)

    def normalized(
        self, x: tf.Tensor, beta: tf.Tensor, gamma: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        """The normalised batch, its mean and its variance."""

        @tf.custom_gradient
        def forward(
            x: tf.Tensor, beta: tf.Tensor, gamma: tf.Tensor
        ) -> tuple[tuple[tf.Tensor, ...], Callable[..., Slope]]:
            shift = self._shift(x)
            shifted_mean = self._mean(x - self._along(shift))
            deviations = x - self._along(shift) - self._along(shifted_mean)
            variance = self._mean(tf.square(deviations))
            factor = tf.math.rsqrt(variance + self.epsilon)
            y = deviations * self._along(factor * gamma) + self._along(beta)
            mean = shift + shifted_mean
            known = tuple(map(tf.stop_gradient, (shift, shifted_mean, factor)))
            return (y, mean, variance), lambda *slopes: self._slopes(known, x, gamma, *slopes)

        return forward(x, beta, gamma)

    def _slopes(self, known: tuple[tf.Tensor, ...], *arguments: tf.Tensor) -> Slope:
        """The gradients of x, beta and gamma, which have gradients themselves: those of the formulas."""

        @tf.custom_gradient
        def backward(*arguments: tf.Tensor) -> tuple[Slope, Callable[..., Slope]]:
            def second(*slopes: tf.Tensor) -> Slope:
                with tf.GradientTape() as tape:
                    tape.watch(arguments)
                    first = self._by_formulas(*arguments)
                return tuple(tape.gradient(first, arguments, output_gradients=slopes))

            return self._by_two_sums(*arguments, *known), second

        return backward(*arguments)

    def _by_two_sums(
        self,
        x: tf.Tensor,
        gamma: tf.Tensor,
        dy: tf.Tensor,
        dmean: tf.Tensor,
        dvariance: tf.Tensor,
        shift: tf.Tensor,
        shifted_mean: tf.Tensor,
        factor: tf.Tensor,
    ) -> Slope:
        deviations = x - self._along(shift) - self._along(shifted_mean)
        normalized = deviations * self._along(factor)
        dbeta = exact_sum(dy, self.axes)
        dgamma = exact_sum(dy * normalized, self.axes)
        share = tf.math.divide_no_nan(tf.ones([], x.dtype), count_values(x, self.channel))
        # Of the mean and the variance as results in their own right, too: 0 as a rule.
        constant = dmean * share - gamma * factor * dbeta * share
        along = 2 * dvariance * share - gamma * factor * factor * dgamma * share
        dx = dy * self._along(gamma * factor) + self._along(constant) + deviations * self._along(along)
        return dx, dbeta, dgamma

    def _by_formulas(
        self, x: tf.Tensor, gamma: tf.Tensor, dy: tf.Tensor, dmean: tf.Tensor, dvariance: tf.Tensor
    ) -> Slope:
        beta = tf.zeros_like(gamma)
        with tf.GradientTape() as tape:
            tape.watch((x, beta, gamma))
            mean, variance, _ = batch_moments(x, self.channel)
            y = functional.normalize(x, mean, variance, beta, gamma, self.epsilon, self.channel)
        return tape.gradient(
            (y, mean, variance), (x, beta, gamma), output_gradients=(dy, dmean, dvariance)
        )

    def _shift(self, x: tf.Tensor) -> tf.Tensor:
        """The mean of a few values of each channel, near which sums have small terms."""
        few = tf.gather(x, tf.range(tf.minimum(FEW, tf.shape(x)[self.axes[0]])), axis=self.axes[0])
        if self.rank > 2:
            few = tf.gather(few, tf.range(tf.minimum(1, tf.shape(x)[self.axes[1]])), axis=self.axes[1])
        return tf.math.divide_no_nan(tf.reduce_sum(few, self.axes), count_values(few, self.channel))

    def _mean(self, values: tf.Tensor) -> tf.Tensor:
        count = count_values(values, self.channel)
        return tf.math.divide_no_nan(exact_sum(values, self.axes), count)

    def _along(self, per_channel: Any) -> tf.Tensor:
        return broadcast_along(per_channel, self.channel, self.rank)
