"""Algorithm 2's affine map by TensorFlow's kernel, with the gradient of the formulas.

Of a frozen layer only the slope of x is asked. The kernel's gradient adds up those of beta and gamma,
too, which takes two to four times as long. And where TensorFlow takes a `tf.autodiff.ForwardAccumulator`
through a function, it has stopped all tapes, on one of which the gradient of the kernel's gradient is
made: the tangent was lost without a word.

TensorFlow keeps what a gradient of our own refers to, for good. So it stands in a function that refers
to nothing of a model, one for all layers of one shape in a graph. (One for all graphs would be shared by
threads, and TensorFlow has no lock where it makes a function's gradient.) TensorFlow inlines the calls
and removes the operation that carries the gradient, before it merges convolution, batch norm and
activation.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Any
from weakref import WeakKeyDictionary

import tensorflow as tf

from . import fused, runtime
from .axes import Axis, channel_axes, reduction_axes
from .functional import TensorLike
from .moments import broadcast_along, size_of, widen

_functions: WeakKeyDictionary[tf.Graph, dict[Hashable, Any]] = WeakKeyDictionary()


def normalize(
    x: tf.Tensor,
    mean: tf.Tensor,
    variance: tf.Tensor,
    beta: TensorLike | None,
    gamma: TensorLike | None,
    epsilon: float,
    axis: Axis,
) -> tf.Tensor:
    """As `fused.normalize`, in the graph of a function; mean and variance have no gradient."""
    (channel,) = channel_axes(axis, x.shape.rank)
    size = size_of(x, channel)
    beta = tf.zeros([size]) if beta is None else beta
    gamma = tf.ones([size]) if gamma is None else gamma
    made = _functions.setdefault(runtime.outermost_graph(), {})
    key = (epsilon, channel, x.dtype, *x.shape.as_list())
    if key not in made:
        made[key] = _function(*key)
    with tf.name_scope("batchnorm"):  # as the formulas have
        return made[key](x, *(tf.cast(each, tf.float32) for each in (mean, variance, beta, gamma)))


def _function(epsilon: float, channel: int, dtype: tf.DType, *sizes: int | None) -> Any:
    """Of one shape: of x, mean, variance, beta and gamma."""

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
    axes = reduction_axes(channel, rank)
    deviations = widen(x) - broadcast_along(mean, channel, rank)
    dx = dy * broadcast_along(gamma * factor, channel, rank)
    dgamma = tf.reduce_sum(dy * deviations, axes) * factor
    return tf.cast(dx, x.dtype), tf.reduce_sum(dy, axes), dgamma
