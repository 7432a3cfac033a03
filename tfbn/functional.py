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

import math
from typing import Any, NamedTuple

import tensorflow as tf

from .axes import Axis, channel_axes, per_channel_shape, reduction_axes
from .sums import exact_sum

TensorLike = Any


class Moments(NamedTuple):
    """Mean and variance of some values, and how many values there were.

    Attributes:
        mean: per channel.
        variance: per channel, biased; 0 where `count` is 0.
        count: number of values behind each channel (for weighted moments the sum of their
            weights), a scalar or per channel, of the mean's type.
    """

    mean: tf.Tensor
    variance: tf.Tensor
    count: tf.Tensor


def batch_moments(x: TensorLike, axis: Axis = -1) -> Moments:
    """Mean and biased variance of a batch (Algorithm 1, lines 1 and 2).

    The variance is the mean of squared deviations from the mean, never E[x²] − E[x]², which loses
    all its digits when the mean is large. Without any value (an empty batch) mean, variance and
    count are 0.

    Args:
        x: tensor of known rank.
        axis: channel axes of `x`.

    Returns:
        Moments, of `x`'s type or float32 if that is wider; the count is a scalar.
    """
    with tf.name_scope("moments"):
        x = _widen(x)
        axes = reduction_axes(axis, x.shape.rank)
        count = count_values(x, axis)
        mean = tf.math.divide_no_nan(exact_sum(x, axes), count)
        deviations = x - broadcast_along(mean, axis, x.shape.rank)
        variance = tf.math.divide_no_nan(exact_sum(tf.square(deviations), axes), count)
    return Moments(mean, variance, count)


def count_values(x: TensorLike, axis: Axis = -1) -> tf.Tensor:
    """How many values of `x` each channel has: a scalar of `x`'s type, or float32 if that is wider.

    The scalar is a constant where the shape is known.
    """
    x = _widen(x)
    shape = x.shape.as_list()  # TF1's behaviour has no plain numbers in x.shape
    sizes = [(number, shape[number]) for number in reduction_axes(axis, x.shape.rank)]
    count = tf.constant(float(math.prod(size for _, size in sizes if size is not None)), x.dtype)
    for number, size in sizes:
        if size is None:
            count *= tf.cast(tf.shape(x)[number], x.dtype)
    return count


def weighted_moments(x: TensorLike, weights: TensorLike, axis: Axis = -1) -> Moments:
    """Mean and biased variance of weighted values, e.g. of those that a mask leaves.

    A value whose weight is 0, negative or NaN is left out, even where the value is NaN or infinite.

    Args:
        x: tensor of known rank.
        weights: non-negative (or boolean) weights for the leading axes of `x`: shape `[batch]`,
            `[batch, time]`, … up to the full shape; an axis of size 1 is broadcast.
        axis: channel axes of `x`.

    Returns:
        Moments whose per-channel count is the sum of weights; all 0 where that sum is 0.

    Raises:
        ValueError: the shape of `weights` does not fit that of `x`.
    """
    x = _widen(x)
    weights = tf.cast(weights, x.dtype)
    rank = x.shape.rank
    if not fit_leading_axes(weights, x):
        raise ValueError(
            f"weights (or a mask) of shape {weights.shape} do not fit values of shape {x.shape}. Pass "
            "one for each index of the leading axes, e.g. shape [batch] or [batch, time]."
        )
    for _ in range(rank - weights.shape.rank):
        weights = weights[..., tf.newaxis]
    x, weights = tf.where(weights > 0, x, 0), tf.where(weights > 0, weights, 0)
    weights = tf.broadcast_to(weights, tf.shape(x))
    axes = reduction_axes(axis, x.shape.rank)
    total = exact_sum(weights, axes)
    mean = tf.math.divide_no_nan(exact_sum(weights * x, axes), total)
    deviations = x - broadcast_along(mean, axis, rank)
    variance = tf.math.divide_no_nan(exact_sum(weights * tf.square(deviations), axes), total)
    return Moments(mean, variance, total)


def fit_leading_axes(weights: tf.Tensor, x: tf.Tensor) -> bool:
    """Whether weights, or a mask, are for the leading axes of `x`; an axis of size 1 is broadcast."""
    rank = weights.shape.rank
    return (
        rank is not None
        and rank <= x.shape.rank
        and all(
            own in (1, None) or size in (own, None)
            for own, size in zip(weights.shape.as_list(), x.shape.as_list(), strict=False)
        )
    )


def combine_moments(parts: Moments) -> Moments:
    """The moments of several sets of values together, from the moments of each.

    Each set weighs as much as it has values, and the variance of the sets' means is added to the mean
    of their variances: the result is what `batch_moments` gives for all values at once (Chan, Golub &
    LeVeque, 1979). An empty set changes nothing.

    Args:
        parts: moments stacked along a new first axis: mean and variance `[sets, …channels]`, count
            `[sets]` or `[sets, …channels]`.

    Returns:
        Moments; the count is per channel.
    """
    mean, variance = _widen(parts.mean), _widen(parts.variance)
    count = tf.cast(parts.count, mean.dtype)
    for _ in range(mean.shape.rank - count.shape.rank):
        count = count[..., tf.newaxis]
    count = tf.broadcast_to(count, tf.shape(mean))
    total = tf.reduce_sum(count, 0)
    share = tf.math.divide_no_nan(count, total)
    # Averaged relative to the first mean: means that are large and close together lose no digits.
    reference = mean[0]
    combined_mean = reference + tf.reduce_sum(share * (mean - reference), 0)
    squares = tf.square(mean - combined_mean)
    combined_variance = tf.reduce_sum(share * (variance + squares), 0)
    return Moments(combined_mean, combined_variance, total)


def unbiased_variance(moments: Moments) -> tf.Tensor:
    """The variance times m/(m−1), m being the count (Algorithm 2, line 10); unchanged where m ≤ 1."""
    count = tf.cast(moments.count, moments.variance.dtype)
    freedom = tf.where(count > 1, count - 1, 1)
    return moments.variance * tf.where(count > 1, count / freedom, 1)


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
    """
    x = tf.convert_to_tensor(x)
    with tf.name_scope("batchnorm"):  # the name that TensorFlow's own function gives its operations
        wide = _widen(x)
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
    """
    moving = _widen(moving)
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
    """
    scale = _scale(variance, gamma, epsilon, dtype)
    offset = -scale * tf.cast(mean, dtype)
    if beta is not None:
        offset += tf.cast(beta, dtype)
    return scale, offset


def broadcast_along(per_channel: tf.Tensor, axis: Axis, rank: int) -> tf.Tensor:
    """A per-channel tensor reshaped so that it broadcasts against a tensor of `rank`."""
    axes = channel_axes(axis, rank)
    if axes == (rank - 1,):
        return per_channel
    sizes = iter(tf.unstack(tf.shape(per_channel), num=len(axes)))
    return tf.reshape(per_channel, [next(sizes) if number in axes else 1 for number in range(rank)])


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


def _widen(x: TensorLike) -> tf.Tensor:
    x = tf.convert_to_tensor(x)
    if x.shape.rank is None:
        raise ValueError(
            "Batch normalisation needs to know the rank of its input, received a tensor of unknown "
            "rank. Give it one, e.g. x.set_shape([None, 3])."
        )
    if not (x.dtype.is_floating or x.dtype.is_integer):
        raise TypeError(
            f"Batch normalisation needs real numbers, received {x.dtype.name} of shape {x.shape}. "
            "Convert them first, e.g. tf.cast(x, tf.float32)."
        )
    return x if x.dtype == tf.float64 else tf.cast(x, tf.float32)
