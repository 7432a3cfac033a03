"""Algorithm 1 on few axes: sums of small numbers, and a gradient of two sums, in several kinds.

`Flat` is for XLA, which makes loops of the operations as they are written. On a tensor whose positions
are one axis they are up to four times as fast as on images (docs/benchmarks.md). What the gradient needs
is computed again from the inputs, which XLA fuses into the sums. `compiled.Compiled` has XLA compile it
inside a graph that XLA does not; `plain.Plain` is for few values, where each operation counts.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Protocol

import tensorflow as tf

from .axes import Axis, channel_axes, known_shape, reduction_axes
from .functional import TensorLike, normalize
from .moments import Moments, batch_moments, broadcast_along, count_values, size_of, widen
from .sums import exact_sum, sum_each

Slope = tuple[tf.Tensor | None, ...]


class Kind(Protocol):
    """Algorithm 1 and its gradient, of a flat tensor."""

    def forward(self, x: tf.Tensor, beta: tf.Tensor, gamma: tf.Tensor) -> tuple[tf.Tensor, ...]:
        """The normalised batch, mean, variance, and what `backward` takes as `known`."""

    def backward(
        self, x: tf.Tensor, gamma: tf.Tensor, dy: tf.Tensor, *upstream_and_known: tf.Tensor | None
    ) -> tuple[tf.Tensor, ...]:
        """The gradients of x, beta and gamma.

        Mean and variance are results, too: their slopes follow dy. Both are `None` if both are zeros.
        """


def normalize_batch(
    x: tf.Tensor,
    beta: TensorLike | None,
    gamma: TensorLike | None,
    epsilon: float,
    axis: Axis,
    make_kind: Callable[[float, int], Kind],
) -> tuple[tf.Tensor, Moments]:
    """The batch normalised with its own moments, and those moments, as `kernels.normalize_batch`.

    Args:
        make_kind: gives what computes them for an epsilon and a channel axis.
    """
    (channel,) = channel_axes(axis, x.shape.rank)
    flat, channel = _flat(x, channel)
    size, dtype = flat.shape.as_list()[channel], tf.float64 if x.dtype == tf.float64 else tf.float32
    beta = tf.zeros([size], dtype) if beta is None else tf.cast(beta, dtype)
    gamma = tf.ones([size], dtype) if gamma is None else tf.cast(gamma, dtype)
    y, mean, variance = _normalized(flat, beta, gamma, epsilon, channel, make_kind(epsilon, channel))
    y = y if flat is x else shaped_as(y, x)
    return y, Moments(mean, variance, count_values(x, axis))


def _flat(x: tf.Tensor, channel: int) -> tuple[tf.Tensor, int]:
    """The tensor with one axis for its positions, and the number of its channel axis.

    [samples, positions, channels] or, of channels that are not last, [samples, channels, positions].
    """
    sizes, last = x.shape.as_list(), x.shape.rank - 1
    if last < 2:
        return x, channel
    first, second = (1, last) if channel == last else (channel, channel + 1)
    groups = [slice(first), slice(first, second), slice(second, None)]
    together = [None if None in sizes[each] else math.prod(sizes[each]) for each in groups]
    shape = known_shape(together) or [
        tf.reduce_prod(tf.shape(x)[each]) if size is None else size
        for each, size in zip(groups, together, strict=True)
    ]
    return tf.reshape(x, shape), 2 if channel == last else 1


def shaped_as(values: tf.Tensor, x: tf.Tensor) -> tf.Tensor:
    """The values in the shape of `x`."""
    values = tf.reshape(values, known_shape(x.shape.as_list()) or tf.shape(x))
    values.set_shape(x.shape)
    return values


def values_of(x: tf.Tensor) -> tf.Tensor:
    """[values, channels], of a tensor whose channels are last."""
    return tf.reshape(x, [-1, size_of(x, -1)])


def _normalized(
    x: tf.Tensor, beta: tf.Tensor, gamma: tf.Tensor, epsilon: float, channel: int, kind: Kind
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """The normalised batch, its mean and its variance; x is flat."""

    @tf.custom_gradient
    def normalized(
        x: tf.Tensor, beta: tf.Tensor, gamma: tf.Tensor
    ) -> tuple[tuple[tf.Tensor, ...], Callable[..., Slope]]:
        x, beta, gamma = _in_this_graph(x, beta, gamma)
        y, mean, variance, *known = kind.forward(x, beta, gamma)
        outputs = y, mean, variance

        def slopes(*upstream: tf.Tensor | None) -> Slope:
            dy, *of_moments = _or_zeros(upstream, outputs)
            backward = _backward(kind, epsilon, channel, skip=all(map(_are_zeros, of_moments)))
            return backward(x, gamma, dy, *of_moments, *known)

        return outputs, slopes

    return normalized(x, beta, gamma)


def _backward(kind: Kind, epsilon: float, channel: int, skip: bool) -> Callable[..., Slope]:
    """`kind.backward` that has a gradient; `skip` says that the slopes of the moments are zeros."""

    @tf.custom_gradient
    def backward(*arguments: tf.Tensor) -> tuple[Slope, Callable[..., Slope]]:
        arguments = _in_this_graph(*arguments)
        x, gamma, dy, *of_moments = arguments[:5]

        def slopes(*upstream: tf.Tensor | None) -> Slope:
            # Those of what `forward` knew are part of those of x.
            function = _in_a_graph if tf.executing_eagerly() else _slopes_of_slopes
            without = (None,) * len(arguments[5:])
            return *function(epsilon, channel, arguments[:5], upstream), *without

        return kind.backward(x, gamma, dy, *([None] * 2 if skip else of_moments), *arguments[5:]), slopes

    return backward


def _in_this_graph(*tensors: tf.Tensor) -> tuple[tf.Tensor, ...]:
    """The tensors as results of the graph that is being built.

    In the gradient of a branch or a loop, they are the forward graph's. A function that XLA compiles
    would capture them as if all was compiled, and the gradient's gradient could not reach them. Python
    takes 1 ms for a copy, so there is none of what is this graph's already.
    """
    graph = tf.compat.v1.get_default_graph()
    return tuple(
        tensor if getattr(tensor, "graph", None) is graph else tf.identity(tensor) for tensor in tensors
    )


def _or_zeros(upstream: Slope, like: Sequence[tf.Tensor]) -> list[tf.Tensor]:
    """The slopes from above; forward accumulation has `None` for those that are 0."""
    slopes = []
    for above, result in zip(upstream, like, strict=True):
        slopes.append(tf.zeros_like(result) if above is None else tf.convert_to_tensor(above))
        slopes[-1].set_shape(result.shape)  # of which a loss for tensors of any shape knows nothing
    return slopes


def _are_zeros(tensor: tf.Tensor) -> bool:
    """Whether that is known before the tensor is, as of the slopes of what nothing is made of."""
    value = tf.get_static_value(tensor)
    if value is not None:
        return not value.any()
    return not tf.executing_eagerly() and tensor.op.type == "ZerosLike"


class Flat:
    """Algorithm 1 and its gradient.

    Attributes:
        channel: the channel axis.
    """

    def __init__(self, epsilon: float, channel: int) -> None:
        self.epsilon, self.channel = epsilon, channel

    def forward(
        self,
        x: tf.Tensor,
        beta: tf.Tensor,
        gamma: tf.Tensor,
        samples: tf.Tensor | None = None,
        count: tf.Tensor | None = None,
    ) -> tuple[tf.Tensor, ...]:
        """As `Kind.forward`.

        Args:
            samples: how many of the batch count, the first ones; `None` for all.
            count: the `divisor` of those; `None` for that of the whole batch.
        """
        wide, count = widen(x), divisor(x, self.channel) if count is None else count
        shift = self._shift(wide)
        shifted = wide - self._along(shift, x)
        mean, variance, deviations = self._moments(shifted, count, partial(self._sum, samples=samples))
        factor = tf.math.rsqrt(variance + self.epsilon)
        y = deviations * self._along(factor * gamma, x) + self._along(beta, x)
        return tf.cast(y, x.dtype), shift + mean, variance, factor, *self._kept(deviations, shift, mean)

    def backward(
        self,
        x: tf.Tensor,
        gamma: tf.Tensor,
        dy: tf.Tensor,
        *upstream_and_known: tf.Tensor | None,
        share: tf.Tensor | None = None,
    ) -> tuple[tf.Tensor, ...]:
        """As `Kind.backward`.

        Args:
            share: one over the `divisor`; `None` for that of the whole batch.
        """
        *of_moments, factor = upstream_and_known[:3]
        dmean, dvariance = (0.0 if slope is None else slope for slope in of_moments)
        kept = upstream_and_known[3:]
        deviations = self._deviations(x, *kept)
        dy = widen(dy)
        dbeta = self._sum_of_slopes(dy)
        dgamma = tf.cast(self._sum_of_slopes(dy * deviations), dy.dtype) * factor
        share = 1 / divisor(x, self.channel) if share is None else share
        constant = (dmean - gamma * factor * tf.cast(dbeta, dy.dtype)) * share
        slope = (2 * dvariance - gamma * factor * factor * dgamma) * share
        dx = (
            dy * self._along(gamma * factor, x)
            + self._along(constant, x)
            + deviations * self._along(slope, x)
        )
        return tf.cast(dx, x.dtype), dbeta, dgamma

    def _moments(
        self, x: tf.Tensor, count: tf.Tensor, add_up: Callable[[tf.Tensor], tf.Tensor]
    ) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        """Mean, variance and deviations from the mean."""
        mean = add_up(x) / count
        deviations = x - self._along(mean, x)
        return mean, add_up(tf.square(deviations)) / count, deviations

    def _kept(self, deviations: tf.Tensor, shift: tf.Tensor, mean: tf.Tensor) -> tuple[tf.Tensor, ...]:
        """What `_deviations` takes, beside the batch."""
        del deviations  # computed again, they need not be written and read
        return shift, mean

    def _deviations(self, x: tf.Tensor, *kept: tf.Tensor) -> tf.Tensor:
        shift, mean = kept
        return widen(x) - self._along(shift, x) - self._along(mean, x)

    def _shift(self, x: tf.Tensor) -> tf.Tensor:
        """One value of each channel, near which sums have small terms; of no value 0."""
        axes = reduction_axes(self.channel, x.shape.rank)
        first = tuple(slice(1) if axis in axes else slice(None) for axis in range(x.shape.rank))
        return tf.reduce_sum(x[first], axes)

    def _sum(self, values: tf.Tensor, samples: tf.Tensor | None) -> tf.Tensor:
        axes = reduction_axes(self.channel, values.shape.rank)
        if samples is None:
            return exact_sum(values, axes)
        first, *others = axes
        counts = (tf.range(tf.shape(values)[0]) < samples)[:, tf.newaxis]

        def kept(values: tf.Tensor) -> tf.Tensor:
            # Not tf.where, whose gradient takes the booleans: in a conditional or loop the second
            # derivative of tf.cond would sum their slopes.
            return tf.math.multiply_no_nan(values, tf.cast(counts, values.dtype))

        if others:  # of samples that do not count there are few; they are left out of the last sum
            total = tf.reduce_sum(kept(sum_each(values, others)), 0)
        else:
            total = sum_each(kept(values), [first])
        return tf.cast(total, values.dtype)

    def _sum_of_slopes(self, values: tf.Tensor) -> tf.Tensor:
        return self._sum(values, None)

    def _along(self, per_channel: tf.Tensor, x: tf.Tensor) -> tf.Tensor:
        return broadcast_along(per_channel, self.channel, x.shape.rank)


def either(question: tf.Tensor, ways: Sequence[Callable[[], Any]]) -> Any:
    """The way if not, or the way if so. Of tf.cond a loop's second derivative would sum booleans."""
    return tf.switch_case(tf.cast(question, tf.int32), ways)


def divisor(x: tf.Tensor, channel: int) -> tf.Tensor:
    """How many values a channel has, at least 1: XLA gives `divide_no_nan` loops of its own."""
    return tf.maximum(count_values(x, channel), 1)


def _slopes_of_slopes(
    epsilon: float, channel: int, arguments: tuple[tf.Tensor, ...], upstream: Slope
) -> Slope:
    """The gradient of `backward`: that of the formulas. In a graph, where no tape need be recording."""
    # Copies, for some come of the others, which is not asked here.
    arguments = tuple(map(tf.identity, arguments))
    x, gamma, *above = arguments
    beta = tf.zeros_like(gamma)
    mean, variance, _ = batch_moments(x, channel)
    y = normalize(x, mean, variance, beta, gamma, epsilon, channel)
    first = tf.gradients((y, mean, variance), (x, beta, gamma), grad_ys=above)
    return tuple(tf.gradients(first, arguments, grad_ys=_or_zeros(upstream, first)))


_in_a_graph = tf.function(_slopes_of_slopes, autograph=False)
