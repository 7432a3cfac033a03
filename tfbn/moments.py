"""Mean and variance of a batch, of weighted values, of several sets: pure functions of tensors.

As in `functional`, `axis` names the channel axes, a per-channel tensor has their shape, variances are
biased, and arithmetic is at least float32.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import tensorflow as tf

from .axes import Axis, channel_axes, reduction_axes
from .sums import exact_sum

TensorLike = Any
FEW_CHANNELS = 8


class Moments(NamedTuple):
    """Mean and variance of some values, and how many values there were.

    Attributes:
        mean: per channel.
        variance: per channel, biased; 0 where `count` is 0.
        count: number of values behind each channel (for weighted moments the sum of their
            weights), a scalar or per channel, of the mean's type.

    >>> Moments(mean=[2.0], variance=[1.0], count=2.0).mean
    [2.0]
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

    >>> mean, variance, count = batch_moments([[1.0, 20.0], [3.0, 40.0]])
    >>> print(mean.numpy(), variance.numpy(), count.numpy())
    [ 2. 30.] [  1. 100.] 2.0
    """
    with tf.name_scope("moments"):
        x = widen(x)
        axes = reduction_axes(axis, x.shape.rank)
        count = count_values(x, axis)
        mean = tf.math.divide_no_nan(exact_sum(x, axes), count)
        deviations = x - broadcast_along(mean, axis, x.shape.rank)
        variance = tf.math.divide_no_nan(exact_sum(tf.square(deviations), axes), count)
    return Moments(mean, variance, count)


def wide_moments(x: TensorLike, axis: Axis = -1) -> Moments:
    """`batch_moments` in float64, at the price of float32.

    Deviations from the rounded mean are exact or nearly so. Where channels are few, as those of data
    are, their own mean, which is not 0, corrects it: sums of blocks lose 1e-8 of it, which counts where
    values are thousands of deviations from 0. With many channels that would take a quarter of the time.
    """
    x = widen(x)
    axes, count = reduction_axes(axis, x.shape.rank), tf.cast(count_values(x, axis), tf.float64)
    mean = tf.math.divide_no_nan(exact_sum(x, axes, tf.float64), count)
    rounded = tf.cast(mean, x.dtype)
    deviations = x - broadcast_along(rounded, axis, x.shape.rank)
    rest = mean - tf.cast(rounded, tf.float64)
    if rounded.shape.num_elements() <= FEW_CHANNELS:
        rest = tf.math.divide_no_nan(exact_sum(deviations, axes, tf.float64), count)
        mean = tf.cast(rounded, tf.float64) + rest
    squares = exact_sum(tf.square(deviations), axes, tf.float64)
    variance = tf.math.divide_no_nan(squares, count) - tf.square(rest)
    return Moments(mean, tf.where(variance < 0, tf.zeros_like(variance), variance), count)


def count_values(x: TensorLike, axis: Axis = -1) -> tf.Tensor:
    """How many values of `x` each channel has: a scalar of `x`'s type, or float32 if that is wider.

    The scalar is a constant where the shape is known.
    """
    dtype = widen(x).dtype
    x = tf.convert_to_tensor(x)  # as it is: to learn a size, a graph would widen all values
    shape = x.shape.as_list()  # TF1's behaviour has no plain numbers in x.shape
    sizes = [shape[number] for number in reduction_axes(axis, x.shape.rank)]
    if None not in sizes:
        return tf.constant(float(math.prod(sizes)), dtype)
    kept = [shape[number] for number in channel_axes(axis, x.shape.rank)]
    if None not in kept and 0 not in kept:  # in fewer operations
        return tf.cast(tf.size(x, tf.int64) // math.prod(kept), dtype)
    count = tf.constant(float(math.prod(size for size in sizes if size is not None)), dtype)
    for number in reduction_axes(axis, x.shape.rank):
        if shape[number] is None:
            count *= tf.cast(tf.shape(x)[number], dtype)
    return count


def size_of(x: tf.Tensor, axis: int) -> int | tf.Tensor:
    """How long an axis is: a number where that is known."""
    size = x.shape.as_list()[axis]
    return tf.shape(x)[axis] if size is None else size


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

    >>> mean, variance, count = weighted_moments([[1.0], [3.0], [99.0]], weights=[True, True, False])
    >>> print(mean.numpy(), variance.numpy(), count.numpy())
    [2.] [1.] [2.]
    """
    x = widen(x)
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

    >>> parts = Moments(mean=[[1.0], [4.0]], variance=[[0.0], [0.0]], count=[2.0, 1.0])
    >>> print(combine_moments(parts).mean.numpy())  # of 1, 1 and 4
    [2.]
    """
    mean, variance = widen(parts.mean), widen(parts.variance)
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


def add_moments(sums: Moments, batch: Moments) -> Moments:
    """The moments of two sets of values together, as `combine_moments`, in few operations.

    Args:
        sums: of one set; the count is per channel.
        batch: of the other, perhaps of a shorter type; the count may be a scalar.

    Returns:
        Moments of the type of `sums`.
    """
    mean, variance, count = (tf.convert_to_tensor(part) for part in sums)
    added = tf.cast(batch.count, mean.dtype)
    total = count + added
    share = tf.math.divide_no_nan(added, total)
    step = tf.cast(batch.mean, mean.dtype) - mean
    wider = tf.cast(batch.variance, mean.dtype) - variance + tf.square(step) * (1 - share)
    return Moments(mean + step * share, variance + wider * share, total)


def unbiased_variance(moments: Moments) -> tf.Tensor:
    """The variance times m/(m−1), m being the count (Algorithm 2, line 10); unchanged where m ≤ 1.

    >>> print(unbiased_variance(batch_moments([[1.0], [3.0]])).numpy())
    [2.]
    """
    count = tf.cast(moments.count, moments.variance.dtype)
    freedom = tf.where(count > 1, count - 1, 1)
    return moments.variance * tf.where(count > 1, count / freedom, 1)


def broadcast_along(per_channel: tf.Tensor, axis: Axis, rank: int) -> tf.Tensor:
    """A per-channel tensor reshaped so that it broadcasts against a tensor of `rank`."""
    axes = channel_axes(axis, rank)
    if axes == (rank - 1,):
        return per_channel
    sizes = iter(tf.unstack(tf.shape(per_channel), num=len(axes)))
    return tf.reshape(per_channel, [next(sizes) if number in axes else 1 for number in range(rank)])


def widen(x: TensorLike) -> tf.Tensor:
    """`x` in the type of its arithmetic: float32, or float64 if it is that."""
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
