"""Which TensorFlow kernel computes Algorithm 1 and inference: the one place where that is decided.

`FusedBatchNormV3` computes a training batch in one pass forward and one backward, with oneDNN several
times as fast as the formulas of `functional`, without it as fast or up to three times
(docs/benchmarks.md). They are used instead where

* the input is float64, or has several channel axes: the kernel has neither;
* epsilon is below 1.001e-5 and there is a GPU: older cuDNN kernels refuse it;
* a channel has more than 131 072 values, where the kernel's sums, one value after another, err by 1e-5;
* the batch is empty: the kernel's second derivative is NaN;
* XLA compiles: its own expansion of the kernel computes E[x²] − E[x]², 3.4 times off at a mean of 1e3
  and a deviation of 1 (tensorflow #118701). The formulas are fused by XLA itself, and lose nothing.
  A tf.function that was traced outside XLA first and is then called inside keeps the kernel.

Values far from 0 are centred before the kernel sees them: with N values of mean μ and deviation σ its
sums keep no digit of the variance from N·μ/σ = 2**24 on (131 072 values at mean 1e4: 90 times off). A
sample of the batch tells. Centring happens inside `tf.cond`, so well-scaled inputs pay nothing.
Normalisation is shift-invariant, so its gradient is the identity.

Masked and synchronized moments are not of one whole local batch: the layer takes them from `functional`.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import tensorflow as tf

from . import functional
from .axes import Axis, channel_axes
from .functional import Moments, TensorLike

FUSED_TYPES = (tf.float32, tf.float16, tf.bfloat16)
MOST_FUSED_VALUES = 2**17  # a channel
FAR = 2.0**22  # of N·μ/σ; below it the variance errs by 1e-5 at most
NEVER_FAR = 1600  # values; they reach 2**24 at 10 000 deviations
SAMPLE = 32  # values of a channel
LEAST_FUSED_EPSILON = 1.001e-5  # CUDNN_BN_MIN_EPSILON, with room for rounding


def normalize_batch(
    x: tf.Tensor, beta: TensorLike | None, gamma: TensorLike | None, epsilon: float, axis: Axis
) -> tuple[tf.Tensor, Moments]:
    """Algorithm 1: the batch normalised with its own moments, and those moments.

    Args:
        x: floating-point tensor of known rank.
        beta, gamma: per channel; `None` leaves one out.
        epsilon: added to the variance.
        axis: channel axes of `x`.

    Returns:
        A tensor of `x`'s shape and type, and its `Moments`, float32 or wider.
    """
    count = functional.count_values(x, axis)
    known = tf.get_static_value(count)
    if not _fused_can(x, epsilon, axis) or (known is not None and not 0 < known <= MOST_FUSED_VALUES):
        moments = functional.batch_moments(x, axis)
        mean, variance, _ = moments
        return functional.normalize(x, mean, variance, beta, gamma, epsilon, axis), moments
    exact = None
    if known is None or known > NEVER_FAR:
        x, centred, exact = _centred(x, count, axis)
    if known is None and gamma is not None:
        # Cuts the NaN that an empty batch has as second derivative.
        gamma = tf.where(count > 0, gamma, 1)
    empty = tf.zeros([0])
    y, mean, variance = _fused(x, beta, gamma, empty, empty, epsilon, axis, is_training=True)
    # The kernel corrects the variance by N/(N−1); for a single value it answers 0 or NaN, by device.
    biased = variance * ((count - 1) / tf.maximum(count, 1))
    biased = tf.where(count > 1, tf.maximum(biased, 0), mean - mean)  # 0, or NaN of a NaN
    if exact is not None:
        mean = tf.where(centred, exact.mean, mean)
        biased = tf.where(centred, exact.variance, biased)
    return y, Moments(mean, biased, count)


def normalize(
    x: tf.Tensor,
    mean: TensorLike,
    variance: TensorLike,
    beta: TensorLike | None,
    gamma: TensorLike | None,
    epsilon: float,
    axis: Axis,
) -> tf.Tensor:
    """Inference: `functional.normalize` by the fastest kernel.

    Gradients reach `x`, beta and gamma; the mean and variance are taken as constants.
    """
    mean, variance = tf.stop_gradient(mean), tf.stop_gradient(variance)
    if not _fused_can(x, epsilon, axis):
        return functional.normalize(x, mean, variance, beta, gamma, epsilon, axis)
    mean, variance = tf.cast(mean, tf.float32), tf.cast(variance, tf.float32)
    return _fused(x, beta, gamma, mean, variance, epsilon, axis, is_training=False)[0]


def _fused(
    x: tf.Tensor,
    beta: TensorLike | None,
    gamma: TensorLike | None,
    mean: tf.Tensor,
    variance: tf.Tensor,
    epsilon: float,
    axis: Axis,
    **arguments: Any,
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """The kernel on a tensor of any rank, seen as images with the channels last or, on a GPU, second."""
    (channel,) = channel_axes(axis, x.shape.rank)
    shape, size = tf.shape(x), x.shape.as_list()[channel]
    if channel < x.shape.rank - 1 and not _has_gpu():
        # On the CPU the kernel transposes likewise, more slowly: forward and backward 2.2 to 2.9 times.
        last = [*(one for one in range(x.shape.rank) if one != channel), channel]
        turned = _fused(tf.transpose(x, last), beta, gamma, mean, variance, epsilon, -1, **arguments)
        back = [last.index(one) for one in range(x.shape.rank)]
        return tf.transpose(turned[0], back), *turned[1:]
    images, layout = x, "NHWC"
    if channel == x.shape.rank - 1 and x.shape.rank != 4:
        images = tf.reshape(x, [-1, 1, 1, size])
    elif channel < x.shape.rank - 1:
        layout = "NCHW"
        if (channel, x.shape.rank) != (1, 4):
            before, after = tf.reduce_prod(shape[:channel]), tf.reduce_prod(shape[channel + 1 :])
            images = tf.reshape(x, [before, size, after, 1])
    y, *moments = tf.raw_ops.FusedBatchNormV3(
        x=images,
        scale=tf.ones([size]) if gamma is None else tf.cast(gamma, tf.float32),
        offset=tf.zeros([size]) if beta is None else tf.cast(beta, tf.float32),
        mean=mean,
        variance=variance,
        epsilon=epsilon,
        data_format=layout,
        **arguments,
    )[:3]
    if images is not x:
        y = tf.reshape(y, shape)
        y.set_shape(x.shape)
    return y, *moments


def _centred(x: tf.Tensor, count: tf.Tensor, axis: Axis) -> tuple[tf.Tensor, tf.Tensor, Moments]:
    """`x` less its mean if the kernel would lose digits, `x` itself otherwise.

    Returns:
        That tensor, whether the mean was taken off, and the moments of `x` if it was (zeros if not).
    """
    channels = [x.shape.as_list()[one] for one in channel_axes(axis, x.shape.rank)]
    if tf.get_static_value(count) is None:
        far = tf.cond(count > NEVER_FAR, lambda: _far_from_zero(x, count, axis), lambda: False)
    else:
        far = _far_from_zero(x, count, axis)
    # Shorter types would round the deviations, and gain nothing where the mean is near 0.
    centred = far | (count > MOST_FUSED_VALUES) if x.dtype == tf.float32 else far

    def less_mean(x: tf.Tensor) -> tuple[tf.Tensor, ...]:
        moments = functional.batch_moments(x, axis)
        mean = tf.cast(tf.cast(moments.mean, x.dtype), tf.float32)
        deviations = tf.cast(x, tf.float32) - functional.broadcast_along(mean, axis, x.shape.rank)
        deviations = tf.clip_by_value(deviations, x.dtype.min, x.dtype.max)
        return tf.cast(deviations, x.dtype), moments.mean, moments.variance

    @tf.custom_gradient
    def chosen(x: tf.Tensor) -> tuple[tuple[tf.Tensor, ...], Callable[..., tf.Tensor]]:
        zeros = tf.zeros(channels)
        return (
            tf.cond(centred, lambda: less_mean(x), lambda: (x, zeros, zeros)),
            lambda slope, *_: slope,
        )

    x, mean, variance = chosen(x)
    return x, centred, Moments(mean, variance, count)


def _far_from_zero(x: tf.Tensor, count: tf.Tensor, axis: Axis) -> tf.Tensor:
    """Whether a channel's N·μ/σ is too large for the kernel, judged by a sample of the batch."""
    (channel,) = channel_axes(axis, x.shape.rank)
    after = tf.reduce_prod(tf.shape(x)[channel + 1 :])
    sample = tf.reshape(tf.stop_gradient(x), [-1, x.shape.as_list()[channel], after])
    # Gathering a few rows is a handful of copies, ten times as fast as a strided slice.
    last = channel == x.shape.rank - 1
    for one, wanted in ((0, SAMPLE if last else SAMPLE // 4), *([] if last else [(2, SAMPLE // 4)])):
        size = tf.shape(sample, tf.int64)[one]
        sample = tf.gather(sample, tf.range(wanted, dtype=tf.int64) * size // wanted, axis=one)
    sample = tf.cast(sample, tf.float32)
    mean = tf.reduce_mean(sample, [0, 2], keepdims=True)
    variance = tf.reduce_mean(tf.math.squared_difference(sample, mean), [0, 2])
    return tf.reduce_any(tf.square(tf.squeeze(mean, [0, 2])) > tf.square(FAR / count) * variance)


def _fused_can(x: tf.Tensor, epsilon: float, axis: Axis) -> bool:
    """Whether the kernel takes such an input, however many values there are."""
    one_axis = len(channel_axes(axis, x.shape.rank)) == 1
    wide_enough = epsilon >= LEAST_FUSED_EPSILON or not _has_gpu()
    return one_axis and x.dtype in FUSED_TYPES and wide_enough and not inside_xla()


def _has_gpu() -> bool:
    return bool(tf.config.list_physical_devices("GPU"))


def inside_xla() -> bool:
    """Whether the graph being built is to be compiled by XLA, or may be by its auto-clustering.

    Private TensorFlow API, used here only: nothing public tells. Where it is gone the answer is yes:
    slower, and right. `tests/test_kernels.py` fails by name then.
    """
    try:
        from tensorflow.python.ops.control_flow_util import (  # noqa: PLC0415
            GraphOrParentsInXlaContext,
        )
    except ImportError:
        return True
    if tf.config.optimizer.get_jit() or "auto_jit" in os.environ.get("TF_XLA_FLAGS", ""):
        return True
    return GraphOrParentsInXlaContext(tf.compat.v1.get_default_graph())
