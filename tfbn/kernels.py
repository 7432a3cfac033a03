"""Which TensorFlow kernel computes Algorithm 1 and inference: the one place where that is decided.

`FusedBatchNormV3` computes a training batch in one pass forward and one backward, three times as fast
as the formulas of `functional`. They are used instead where

* the input is float64, or has several channel axes: the kernel has neither;
* epsilon is below 1.001e-5 and there is a GPU: older cuDNN kernels refuse it;
* a channel has very many values: the kernel adds them one after the other, and at 400 000 values and a
  mean of 1e4 its variance is off by a factor of 140;
* the batch is empty: the kernel's second derivative is NaN;
* XLA compiles: its own expansion of the kernel computes E[x²] − E[x]², 3.4 times off at a mean of 1e3
  and a deviation of 1 (tensorflow #118701). The formulas are fused by XLA itself, and lose nothing.
  A tf.function that was traced outside XLA first and is then called inside keeps the kernel.

Where the number of values is known only at run time, a conditional takes the mean off very many values
before the kernel sees them: it costs nothing where it is not needed, and the kernel then errs by 1e-4.
Masked and synchronized moments are not of one whole local batch: the layer takes them from `functional`.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import tensorflow as tf

from . import functional
from .axes import Axis, along, channel_axes
from .functional import Moments, TensorLike

FUSED_TYPES = (tf.float32, tf.float16, tf.bfloat16)
MOST_FUSED_VALUES = {
    "few channels": 2**14,
    "many channels": 2**17,
}  # a channel; errors of 1e-2 at mean 1e4
FEW_CHANNELS = 8
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
    few = known is None or 0 < known <= _most_fused_values(x, axis)
    if not (_fused_can(x, epsilon, axis) and few):
        moments = functional.batch_moments(x, axis)
        mean, variance, _ = moments
        return functional.normalize(x, mean, variance, beta, gamma, epsilon, axis), moments
    empty, shift = tf.zeros([0]), None
    if known is None:
        x, shift = _centred(x, count, axis)
        # Cuts the NaN that an empty batch has as second derivative in gamma.
        gamma = None if gamma is None else tf.where(count > 0, gamma, 1)
    y, mean, variance = _fused(x, beta, gamma, empty, empty, epsilon, axis, is_training=True)
    # The kernel corrects the variance by N/(N−1); for a single value it answers 0 or NaN, by device.
    biased = variance * ((count - 1) / tf.maximum(count, 1))
    biased = tf.where(count > 1, tf.maximum(biased, 0), mean - mean)  # 0, or NaN of a NaN
    return y, Moments(mean if shift is None else mean + shift, biased, count)


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
    """The kernel on a tensor of any rank, seen as images with the channels last or second."""
    (channel,) = channel_axes(axis, x.shape.rank)
    shape, size = tf.shape(x), x.shape[channel]
    if channel == x.shape.rank - 1:
        images, layout = tf.reshape(x, [-1, 1, 1, size]) if x.shape.rank != 4 else x, "NHWC"
    else:
        after = tf.reduce_prod(shape[channel + 1 :])
        images = tf.reshape(x, [tf.reduce_prod(shape[:channel]), size, after, 1])
        layout = "NCHW"
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
    y = tf.reshape(y, shape)
    y.set_shape(x.shape)
    return y, *moments


def _centred(x: tf.Tensor, count: tf.Tensor, axis: Axis) -> tuple[tf.Tensor, tf.Tensor]:
    """`x` less a mean if it has more values than the kernel can add up, `x` itself otherwise.

    And that mean, or 0. Normalised values do not depend on it, so that the gradient passes unchanged.
    """
    channels = [x.shape[one] for one in channel_axes(axis, x.shape.rank)]

    def less_mean(x: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        mean = tf.cast(functional.batch_moments(x, axis).mean, x.dtype)
        return x - along(mean, axis, x.shape.rank), tf.cast(mean, tf.float32)

    @tf.custom_gradient
    def centred(x: tf.Tensor) -> tuple[tuple[tf.Tensor, tf.Tensor], Callable[..., tf.Tensor]]:
        many = count > _most_fused_values(x, axis)
        pair = tf.cond(many, lambda: less_mean(x), lambda: (x, tf.zeros(channels)))
        return pair, lambda slope, _: slope

    return centred(x)


def _fused_can(x: tf.Tensor, epsilon: float, axis: Axis) -> bool:
    """Whether the kernel takes such an input, however many values there are."""
    one_axis = len(channel_axes(axis, x.shape.rank)) == 1
    wide_enough = epsilon >= LEAST_FUSED_EPSILON or not tf.config.list_physical_devices("GPU")
    return one_axis and x.dtype in FUSED_TYPES and wide_enough and not inside_xla()


def _most_fused_values(x: tf.Tensor, axis: Axis) -> int:
    few = x.shape[channel_axes(axis, x.shape.rank)[0]] < FEW_CHANNELS
    return MOST_FUSED_VALUES["few channels" if few else "many channels"]


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
