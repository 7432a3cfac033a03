"""Batch normalisation as pure functions of tensors: no variable, no Keras.

Algorithm 1 and Algorithm 2, lines 10 and 11, of Ioffe & Szegedy (arXiv 1502.03167v3). Everywhere here:

* `axis` names the *channel* axes, the ones that keep statistics of their own; all others are
  averaged over. It is an integer or a sequence of integers; negative ones count from the end.
* A *per-channel* tensor has the shape of those axes in ascending order: `[channels]` for one axis,
  `[height, channels]` for axes 1 and 3 of `[batch, height, width, channels]`.
* Variances are biased (divided by the count) unless a name says otherwise.
* Arithmetic is at least float32: shorter types and integers are widened, float64 stays.
"""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from .axes import Axis, per_channel_shape
from .moments import (
    Moments,
    batch_moments,
    broadcast_along,
    combine_moments,
    unbiased_variance,
    weighted_moments,
    widen,
)

__all__ = [  # noqa: RUF022  in the order of Algorithms 1 and 2
    "Moments",
    "batch_moments",
    "weighted_moments",
    "combine_moments",
    "normalize",
    "update_moving_average",
    "unbiased_variance",
    "scale_and_offset",
    "fold_into_kernel",
]

TensorLike = Any


def normalize(
    x: TensorLike,
    mean: TensorLike,
    variance: TensorLike,
    beta: TensorLike | None = None,
    gamma: TensorLike | None = None,
    epsilon: float = 1e-3,
    axis: Axis = -1,
) -> tf.Tensor:
    """`gamma · (x − mean) / sqrt(variance + epsilon) + beta` (Algorithm 1, lines 3 and 4).

    The mean is subtracted first. As part of the offset, a large mean would cancel and cost digits.

    Args:
        x: tensor of known rank.
        mean, variance, beta, gamma: per channel; `None` leaves beta or gamma out.
        epsilon: added to the variance.
        axis: channel axes of `x`.

    Returns:
        A tensor of `x`'s shape, in its type if that is floating-point and float32 otherwise.

    >>> print(normalize([[1.0], [3.0]], mean=[2.0], variance=[1.0], epsilon=0.0).numpy().ravel())
    [-1.  1.]
    """
    x = tf.convert_to_tensor(x)
    with tf.name_scope("batchnorm"):  # the name that TensorFlow's own function gives its operations
        wide = widen(x)
        dtype, rank = wide.dtype, x.shape.rank
        scale = _scale(variance, gamma, epsilon, dtype)
        y = (wide - broadcast_along(tf.cast(mean, dtype), axis, rank)) * broadcast_along(
            scale, axis, rank
        )
        if beta is not None:
            y += broadcast_along(tf.cast(beta, dtype), axis, rank)
        return tf.cast(y, x.dtype) if x.dtype.is_floating else y


def update_moving_average(moving: TensorLike, value: TensorLike, decay: float) -> tf.Tensor:
    """`decay · moving + (1 − decay) · value`: the decay, in [0, 1], weighs the old value.

    Computed as a step from whichever of the two weighs more towards the other. So the moving average of
    a constant is that constant exactly, a decay of 0 gives exactly the value, and a decay of 1 exactly
    the old value.

    >>> float(update_moving_average(4.0, 8.0, decay=0.75))
    5.0
    """
    moving = widen(moving)
    value = tf.cast(value, moving.dtype)
    if decay < 0.5:
        return value + (moving - value) * decay
    return moving + (value - moving) * (1.0 - decay)


def scale_and_offset(
    mean: TensorLike,
    variance: TensorLike,
    beta: TensorLike | None = None,
    gamma: TensorLike | None = None,
    epsilon: float = 1e-3,
    dtype: tf.DType | str = "float64",
) -> tuple[tf.Tensor, tf.Tensor]:
    """The affine map `scale · x + offset` that a batch norm is at inference (Algorithm 2, line 11).

    Args:
        mean, variance, beta, gamma: per channel; `None` leaves beta (0) or gamma (1) out.
        epsilon: added to the variance.
        dtype: type of the arithmetic and of the result. Folding computes in float64 and rounds once,
            at the end.

    Returns:
        scale = gamma / sqrt(variance + epsilon) and offset = beta − scale · mean, per channel.

    >>> scale, offset = scale_and_offset(mean=[3.0], variance=[4.0], epsilon=0.0)
    >>> print(scale.numpy(), offset.numpy())
    [0.5] [-1.5]
    """
    scale = _scale(variance, gamma, epsilon, dtype)
    offset = -scale * tf.cast(mean, dtype)
    if beta is not None:
        offset += tf.cast(beta, dtype)
    return scale, offset


def fold_into_kernel(
    kernel: TensorLike,
    bias: TensorLike | None,
    scale: TensorLike,
    offset: TensorLike,
    axis: Axis = -1,
) -> tuple[tf.Tensor, tf.Tensor]:
    """The kernel and bias of a linear layer with `scale · y + offset` applied to its output.

    Args:
        kernel: weights of a linear layer.
        bias: `[channels]`, or `None` for a layer without one.
        scale, offset: `[channels]`, the affine map of the layer's output channels.
        axis: the output-channel axis of the kernel. Where several axes hold the output channels, in
            row-major order, all of them: `(-2, -1)` for a depthwise kernel `[h, w, in, multiplier]`.

    Returns:
        The new kernel, of `kernel`'s shape and type, and the new bias, `[channels]`, of the same
        type. Computed in float64 and rounded once.

    >>> kernel, bias = fold_into_kernel([[2.0]], None, scale=[0.5], offset=[-1.5])
    >>> print(kernel.numpy(), bias.numpy())
    [[1.]] [-1.5]
    """
    kernel = tf.convert_to_tensor(kernel)
    scale, offset = tf.cast(scale, tf.float64), tf.cast(offset, tf.float64)
    folded = tf.cast(kernel, tf.float64) * tf.reshape(scale, per_channel_shape(kernel.shape, axis))
    if bias is not None:
        offset += tf.cast(bias, tf.float64) * scale
    return tf.cast(folded, kernel.dtype), tf.cast(offset, kernel.dtype)


def _scale(
    variance: TensorLike, gamma: TensorLike | None, epsilon: float, dtype: tf.DType | str
) -> tf.Tensor:
    scale = tf.math.rsqrt(tf.cast(variance, dtype) + tf.constant(epsilon, dtype))
    return scale if gamma is None else scale * tf.cast(gamma, dtype)
