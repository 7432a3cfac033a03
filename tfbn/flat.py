"""Algorithm 1 as XLA compiles it best: few axes, sums of small numbers, and a gradient of two sums.

XLA makes loops of the operations as they are written. On a tensor whose positions are one axis they are
up to four times as fast as on images (docs/benchmarks.md). What the gradient needs is computed again
from the inputs, which XLA fuses into the sums.

In a graph that XLA does not compile, forward and backward are functions of their own that it does. They
are compiled when first run for a shape, so there are few shapes: a number of samples that is not known
is filled up with zeros to one of eight in an octave.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import tensorflow as tf

from . import runtime
from .axes import Axis, channel_axes, reduction_axes
from .functional import TensorLike, normalize
from .moments import Moments, batch_moments, broadcast_along, count_values, widen
from .sums import exact_sum, sum_each

FEW = 8  # values of each channel
STEPS = 8  # numbers of samples from one power of two to the next

Slope = tuple[tf.Tensor | None, ...]


def normalize_batch(
    x: tf.Tensor, beta: TensorLike | None, gamma: TensorLike | None, epsilon: float, axis: Axis
) -> tuple[tf.Tensor, Moments]:
    """The batch normalised with its own moments, and those moments, as `kernels.normalize_batch`."""
    (channel,) = channel_axes(axis, x.shape.rank)
    flat, channel = _flat(x, channel)
    size, dtype = flat.shape.as_list()[channel], tf.float64 if x.dtype == tf.float64 else tf.float32
    beta = tf.zeros([size], dtype) if beta is None else tf.cast(beta, dtype)
    gamma = tf.ones([size], dtype) if gamma is None else tf.cast(gamma, dtype)
    y, mean, variance = _normalized(flat, beta, gamma, epsilon, channel)
    y = tf.reshape(y, tf.shape(x))
    y.set_shape(x.shape)
    return y, Moments(mean, variance, count_values(x, axis))


def _flat(x: tf.Tensor, channel: int) -> tuple[tf.Tensor, int]:
    """The tensor with one axis for its positions, and the number of its channel axis.

    [samples, positions, channels] or, of channels that are not last, [samples, channels, positions].
    """
    shape, sizes, last = tf.shape(x), x.shape.as_list(), x.shape.rank - 1

    def together(first: int, end: int) -> Any:
        known = sizes[first:end]
        return tf.reduce_prod(shape[first:end]) if None in known else math.prod(known)

    if channel == last > 1:
        return tf.reshape(x, [shape[0], together(1, last), sizes[channel]]), 2
    if last in (channel, 1):
        return x, channel
    flat = tf.reshape(x, [together(0, channel), sizes[channel], together(channel + 1, last + 1)])
    return flat, 1


def _normalized(
    x: tf.Tensor, beta: tf.Tensor, gamma: tf.Tensor, epsilon: float, channel: int
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """The normalised batch, its mean and its variance; x is flat."""
    forward, backward = _functions(epsilon, channel)

    @tf.custom_gradient
    def normalized(
        x: tf.Tensor, beta: tf.Tensor, gamma: tf.Tensor
    ) -> tuple[tuple[tf.Tensor, ...], Callable[..., Slope]]:
        x, beta, gamma = _in_this_graph(x, beta, gamma)
        filled, samples = _filled(x)
        y, mean, variance, *known = forward(filled, beta, gamma, samples)
        outputs = _emptied(y, x), mean, variance

        def slopes(*upstream: tf.Tensor | None) -> Slope:
            above = _or_zeros(upstream, outputs)
            return differentiable(x, gamma, *above, *known)

        return outputs, slopes

    @tf.custom_gradient
    def differentiable(*arguments: tf.Tensor) -> tuple[Slope, Callable[..., Slope]]:
        arguments = _in_this_graph(*arguments)
        x, gamma, dy, *others = arguments
        (filled, samples), (above, _) = _filled(x), _filled(dy)
        dx, dbeta, dgamma = backward(filled, gamma, above, samples, *others)

        def slopes(*upstream: tf.Tensor | None) -> Slope:
            # Those of what `forward` knew are part of those of x.
            function = _in_a_graph if tf.executing_eagerly() else _slopes_of_slopes
            return *function(epsilon, channel, arguments[:5], upstream), None, None, None

        return (_emptied(dx, x), dbeta, dgamma), slopes

    return normalized(x, beta, gamma)


def _in_this_graph(*tensors: tf.Tensor) -> tuple[tf.Tensor, ...]:
    """The tensors as results of the graph that is being built.

    In the gradient of a branch or a loop, they are the forward graph's. A function that XLA compiles
    would capture them as if all was compiled, and the gradient's gradient could not reach them.
    """
    return tuple(map(tf.identity, tensors))


def _or_zeros(upstream: Slope, like: Sequence[tf.Tensor]) -> list[tf.Tensor]:
    """The slopes from above; forward accumulation has `None` for those that are 0."""
    pairs = zip(upstream, like, strict=True)
    return [tf.zeros_like(result) if above is None else above for above, result in pairs]


def _filled(x: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor | None]:
    """The batch with samples of zeros behind it, and how many are its own; `None` for all."""
    if runtime.inside_xla() or x.shape.as_list()[0] is not None:
        return x, None
    samples = tf.shape(x)[0]
    octave = tf.bitwise.left_shift(
        1, tf.cast(tf.math.log(tf.cast(tf.maximum(samples, 1), tf.float64)) / math.log(2), tf.int32)
    )
    step = tf.maximum(octave // STEPS, 1)
    missing = -samples % step
    return tf.pad(x, [[0, missing], *[[0, 0]] * (x.shape.rank - 1)]), samples


def _emptied(filled: tf.Tensor, x: tf.Tensor) -> tf.Tensor:
    """The first samples, as many as `x` has."""
    if filled.shape.as_list()[0] is not None or runtime.inside_xla():
        return filled
    sizes = x.shape.as_list()[1:]
    return tf.slice(filled, [0] * x.shape.rank, [tf.shape(x)[0], *sizes])


def _functions(epsilon: float, channel: int) -> tuple[Callable[..., Any], Callable[..., Any]]:
    """Forward and backward, as they are where XLA compiles them anyway, or compiled on their own."""
    kind = _Flat(epsilon, channel)
    if runtime.inside_xla():
        return kind.forward, kind.backward
    return _compiled(epsilon, channel)


@cache
def _compiled(epsilon: float, channel: int) -> tuple[Callable[..., Any], Callable[..., Any]]:
    """For all layers: a shape is traced and compiled once."""
    kind = _Flat(epsilon, channel)
    return tuple(
        tf.function(function, jit_compile=True, autograph=False)
        for function in (kind.forward, kind.backward)
    )


class _Flat:
    """Algorithm 1 and its gradient.

    Attributes:
        channel: the channel axis.
    """

    def __init__(self, epsilon: float, channel: int) -> None:
        self.epsilon, self.channel = epsilon, channel

    def forward(
        self, x: tf.Tensor, beta: tf.Tensor, gamma: tf.Tensor, samples: tf.Tensor | None
    ) -> tuple[tf.Tensor, ...]:
        """The normalised batch, mean, variance, and what `backward` takes as `known`.

        Args:
            samples: how many of the batch count, the first ones; `None` for all.
        """
        wide, count = widen(x), self._count(x, samples)
        shift = self._shift(wide)
        shifted = wide - self._along(shift, x)
        mean = tf.math.divide_no_nan(self._sum(shifted, samples), count)
        deviations = shifted - self._along(mean, x)
        variance = tf.math.divide_no_nan(self._sum(tf.square(deviations), samples), count)
        factor = tf.math.rsqrt(variance + self.epsilon)
        y = deviations * self._along(factor * gamma, x) + self._along(beta, x)
        return tf.cast(y, x.dtype), shift + mean, variance, shift, mean, factor

    def backward(
        self,
        x: tf.Tensor,
        gamma: tf.Tensor,
        dy: tf.Tensor,
        samples: tf.Tensor | None,
        *upstream_and_known: tf.Tensor,
    ) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        """The gradients of x, beta and gamma. Mean and variance are results, too: their slopes count."""
        dmean, dvariance, shift, mean, factor = upstream_and_known
        deviations = widen(x) - self._along(shift, x) - self._along(mean, x)
        dy = widen(dy)
        dbeta = self._sum(dy, samples)
        dgamma = self._sum(dy * deviations, samples) * factor
        share = tf.math.divide_no_nan(tf.ones([], dy.dtype), self._count(x, samples))
        constant = (dmean - gamma * factor * dbeta) * share
        slope = (2 * dvariance - gamma * factor * factor * dgamma) * share
        dx = (
            dy * self._along(gamma * factor, x)
            + self._along(constant, x)
            + deviations * self._along(slope, x)
        )
        return tf.cast(dx, x.dtype), dbeta, dgamma

    def _shift(self, x: tf.Tensor) -> tf.Tensor:
        """The mean of a few values of each channel, near which sums have small terms."""
        first, *others = reduction_axes(self.channel, x.shape.rank)
        part = [slice(None)] * x.shape.rank
        for axis in (first, *others):
            part[axis] = slice(1 if others and axis == first else FEW)
        few = x[tuple(part)]  # of a size that only the run tells, XLA could gather none
        total = tf.reduce_sum(few, [first, *others])
        return tf.math.divide_no_nan(total, count_values(few, self.channel))

    def _sum(self, values: tf.Tensor, samples: tf.Tensor | None) -> tf.Tensor:
        axes = reduction_axes(self.channel, values.shape.rank)
        if samples is None:
            return exact_sum(values, axes)
        # Of samples that do not count there are few; they are left out of the last sum.
        parts = sum_each(values, axes[1:])
        counts = tf.range(tf.shape(parts)[0]) < samples
        return tf.cast(tf.reduce_sum(tf.where(counts[:, tf.newaxis], parts, 0), 0), values.dtype)

    def _count(self, x: tf.Tensor, samples: tf.Tensor | None) -> tf.Tensor:
        if samples is None:
            return count_values(x, self.channel)
        shape = x.shape.as_list()
        others = math.prod(shape[axis] for axis in reduction_axes(self.channel, len(shape))[1:])
        return tf.cast(samples, widen(x).dtype) * others

    def _along(self, per_channel: tf.Tensor, x: tf.Tensor) -> tf.Tensor:
        return broadcast_along(per_channel, self.channel, x.shape.rank)


def _slopes_of_slopes(
    epsilon: float, channel: int, arguments: tuple[tf.Tensor, ...], upstream: Slope
) -> Slope:
    """The gradient of `backward`: that of the formulas. In a graph, where no tape need be recording."""
    arguments = _in_this_graph(*arguments)  # some come of the others, which is not asked here
    x, gamma, *above = arguments
    beta = tf.zeros_like(gamma)
    mean, variance, _ = batch_moments(x, channel)
    y = normalize(x, mean, variance, beta, gamma, epsilon, channel)
    first = tf.gradients((y, mean, variance), (x, beta, gamma), grad_ys=above)
    return tuple(tf.gradients(first, arguments, grad_ys=_or_zeros(upstream, first)))


_in_a_graph = tf.function(_slopes_of_slopes, autograph=False)
