"""Which TensorFlow kernel computes Algorithm 1 and inference: the one place where that is decided.

TensorFlow's `FusedBatchNormV3` computes a training batch in one pass forward and one backward. With
oneDNN it is several times as fast as the formulas of `functional`, without oneDNN once to three times
(docs/benchmarks.md). The formulas are used instead where

* the input is float64 or has several channel axes: the kernel supports neither;
* epsilon is below 1.001e-5 and there is a GPU: older cuDNN kernels refuse it;
* a channel has more than 131 072 values: the CPU's kernel adds them one after another and errs by 1e-5;
* the batch is empty: the kernel's second derivative is NaN.

Where XLA compiles, `flat` is: XLA's version of the kernel computes E[x²] − E[x]², which is off by a
factor of 3.4 at a mean of 1e3 and a deviation of 1 (tensorflow #118701), and its code for `flat` is
faster. (A tf.function that was first traced outside XLA and is then called from inside keeps the
kernel.) On a CPU it is faster than the kernel, too, for large samples: 1.6 to 2.6 times without oneDNN,
and with it where there are more values than the kernel may sum. There `flat` is compiled on its own,
for as many shapes as a graph has room for.
For small samples it is 1.0 to 1.7 times as fast uncompiled, for the kernel takes up to 0.3 ms to start;
where they make a batch of 2**18 values and more, compiled is 1.2 to 1.9 times as fast again.

On a CPU, inputs whose mean is large beside their deviation are centred before the kernel sees them. With
N values of mean μ and deviation σ a channel, the variance that the kernel computes has no correct digit
from N·μ/σ = 2**24 on (it is 90 times off for 131 072 values of mean 1e4 and deviation 1). A sample of
the batch decides. Centring happens inside `tf.cond`, so well-scaled inputs pay nothing. Normalisation is
shift-invariant, so the gradient of centring is the identity. A GPU would wait for that condition in
every layer and step, and its kernel does not add one value after another.

The kernel computes the moments of one whole local batch. Masked and synchronized moments are not that:
the layer takes them from `functional`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache, partial
from typing import Any

import tensorflow as tf

from . import flat, functional, runtime
from .axes import Axis, channel_axes
from .compiled import BySize, Compiled, finds_room
from .functional import TensorLike
from .moments import Moments, batch_moments, broadcast_along, count_values
from .traced_once import TracedOnce

FUSED_TYPES = (tf.float32, tf.float16, tf.bfloat16)
MOST_FUSED_VALUES = 2**17  # in a channel
CANCELLATION_LIMIT = 2.0**22  # of N·μ/σ; below it the variance errs by 1e-5 at most
# Values in a channel; with no more, N·μ/σ reaches 2**24 only where the mean is 10 000 deviations off 0.
CANCELLATION_FREE_COUNT = 1600
# From how many values of a sample on `flat` is compiled on its own. It is faster from fewer on, too, but
# each shape takes a while to compile, and a graph has room for few.
LEAST_COMPILED_VALUES = 60_000
LEAST_COMPILED_PLANE = 2**8, 2**14  # positions and values: of large planes the kernel is slower
LEAST_COMPILED_CHANNELS_FIRST = 2**12  # values, which would be transposed for the kernel, and back
LEAST_COMPILED_BESIDE_ONEDNN = 2**13  # positions: many of them, and 131 072 values are a small batch
LEAST_OF_LARGE_BATCH = 2**8  # values of a sample; the question takes 0.05 ms
MOST_PLAIN_VALUES = 2**16
MOST_PLAIN_SAMPLE, MOST_PLAIN_SAMPLE_BESIDE_ONEDNN = 2**12, 2**11  # values, of batches of any size
# Where TensorFlow inlines a conditional into a graph, it optimises its branches each time. That of 52
# layers takes 5 s, in the first step.
NOT_INLINED = {"_noinline": True}
SAMPLE = 32  # values of a channel
LEAST_FUSED_EPSILON = 1.001e-5  # CUDNN_BN_MIN_EPSILON, with room for rounding


def normalize_batch(
    x: tf.Tensor,
    beta: TensorLike | None,
    gamma: TensorLike | None,
    epsilon: float,
    axis: Axis,
    copied: bool = False,
) -> tuple[tf.Tensor, Moments]:
    """Algorithm 1: the batch normalised with its own moments, and those moments.

    Args:
        x: floating-point tensor of known rank.
        beta, gamma: per channel; `None` leaves beta or gamma out.
        epsilon: added to the variance.
        axis: channel axes of `x`.
        copied: whether the graph may be copied, as `wrap_function(…).prune` does, and the copy
            differentiated: a gradient of our own would still reach for tensors of the first graph.

    Returns:
        A tensor of `x`'s shape and type, and its `Moments`, float32 or wider.
    """
    count = count_values(x, axis)
    known = tf.get_static_value(count)
    kind = None if copied else _kind_of_flat(x, epsilon, axis)
    if kind is not None:
        make_kind = kind if runtime.inside_xla() else partial(TracedOnce, kind)
        return flat.normalize_batch(x, beta, gamma, epsilon, axis, make_kind)
    most = math.inf if runtime.has_gpu() else MOST_FUSED_VALUES
    if not _fused_can(x, epsilon, axis) or (known is not None and not 0 < known <= most):
        moments = batch_moments(x, axis)
        mean, variance, _ = moments
        return functional.normalize(x, mean, variance, beta, gamma, epsilon, axis), moments
    centred = None
    if not runtime.has_gpu() and (known is None or known > CANCELLATION_FREE_COUNT):
        x, centred, exact_mean, exact_variance = _centre(x, axis, copied)
    if known is None and gamma is not None:
        # So that the second derivative at an empty batch, which is NaN, reaches no gamma.
        gamma = tf.where(count > 0, gamma, 1)
    empty = tf.zeros([0])
    y, mean, variance = _fused(x, beta, gamma, empty, empty, epsilon, axis, is_training=True)
    # The kernel returns the unbiased variance; for a single value that is 0 or NaN, depending on the
    # device.
    biased = variance * ((count - 1) / tf.maximum(count, 1))
    biased = tf.where(count > 1, tf.maximum(biased, 0), mean - mean)  # 0, or NaN of a NaN
    if centred is not None:
        mean = tf.where(centred, exact_mean, mean)
        biased = tf.where(centred, exact_variance, biased)
    return y, Moments(mean, biased, count)


def _kind_of_flat(x: tf.Tensor, epsilon: float, axis: Axis) -> type[flat.Kind] | None:
    """What of `flat` beats the kernel, if anything does: where XLA compiles everything, its code."""
    channel, *others = channel_axes(axis, x.shape.rank)
    if others or x.shape.rank == 1:
        return None
    if runtime.inside_xla():
        return flat.Flat
    sizes = x.shape.as_list()[1:]
    can = x.dtype in FUSED_TYPES and runtime.in_function() and not runtime.has_gpu()
    if not can or None in sizes or channel == 0:
        return None
    if _is_small(x.shape[0], sizes, channel):
        may_be_large = x.shape[0] is None and math.prod(sizes) >= LEAST_OF_LARGE_BATCH
        return BySize if may_be_large else flat.Plain
    worth = len(sizes) > 1 and _is_worth_compiling(sizes, channel)
    return Compiled if worth and finds_room(x, epsilon, channel) else None


def _is_small(samples: int | None, sizes: list[int], channel: int) -> bool:
    """Whether so few values are summed that starting an operation is what takes the time."""
    if channel < len(sizes):
        return False
    values = math.prod(sizes)
    if samples is not None:
        return samples * values <= MOST_PLAIN_VALUES
    return values <= (MOST_PLAIN_SAMPLE_BESIDE_ONEDNN if runtime.has_onednn() else MOST_PLAIN_SAMPLE)


def _is_worth_compiling(sizes: list[int], channel: int) -> bool:
    """Whether samples are large enough; the channel axis counts the batch axis, the sizes do not."""
    values, positions = math.prod(sizes), math.prod(sizes[: channel - 1] + sizes[channel:])
    if channel < len(sizes):
        return values >= LEAST_COMPILED_CHANNELS_FIRST
    if runtime.has_onednn():
        return positions >= LEAST_COMPILED_BESIDE_ONEDNN
    plane, of_plane = LEAST_COMPILED_PLANE
    return values >= LEAST_COMPILED_VALUES or (positions >= plane and values >= of_plane)


def normalize_at_inference(
    x: tf.Tensor,
    mean: TensorLike,
    variance: TensorLike,
    beta: TensorLike | None,
    gamma: TensorLike | None,
    epsilon: float,
    axis: Axis,
) -> tf.Tensor:
    """Inference: `functional.normalize`, computed by the fastest kernel.

    Gradients reach `x`, beta and gamma; mean and variance are constants.
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
    """The kernel on a tensor of any rank, reshaped to images: channels last or, on a GPU, first."""
    (channel,) = channel_axes(axis, x.shape.rank)
    shape, size = tf.shape(x), x.shape.as_list()[channel]
    if channel < x.shape.rank - 1 and not runtime.has_gpu():
        # On the CPU the kernel would transpose, too, 2.2 to 2.9 times more slowly forward and backward.
        order = [*(number for number in range(x.shape.rank) if number != channel), channel]
        x = tf.transpose(x, order)
        y, *moments = _fused(x, beta, gamma, mean, variance, epsilon, -1, **arguments)
        return tf.transpose(y, [order.index(number) for number in range(len(order))]), *moments
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


def _centre(x: tf.Tensor, axis: Axis, copied: bool) -> tuple[tf.Tensor, ...]:
    """`x` without its mean if the kernel would lose digits, `x` itself otherwise.

    Returns:
        That tensor; whether the mean was subtracted; mean and variance of `x` if it was, zeros if not.
    """
    (channel,) = channel_axes(axis, x.shape.rank)
    function = _centring(channel, x.shape.rank, x.dtype)
    # A graph of TensorFlow 1 would be kept by the function.
    inline = copied or not tf.compat.v1.executing_eagerly_outside_functions()
    centre = function.python_function if inline else function
    deviations, centred, mean, variance = centre(tf.stop_gradient(x))
    deviations.set_shape(x.shape)
    mean.set_shape(x.shape[channel : channel + 1])
    variance.set_shape(x.shape[channel : channel + 1])

    @tf.custom_gradient
    def chosen(x: tf.Tensor) -> tuple[tf.Tensor, Callable[[tf.Tensor], tf.Tensor]]:
        del x
        return tf.identity(deviations), lambda slope: slope

    return chosen(x), centred, mean, variance


@cache
def _centring(channel: int, rank: int, dtype: tf.DType) -> Any:
    """A function for all layers, which is traced once."""

    def centring(x: tf.Tensor) -> tuple[tf.Tensor, ...]:
        count = count_values(x, channel)
        losing = (count > CANCELLATION_FREE_COUNT) & _loses_digits(x, count, channel)
        # Shorter types would round the deviations, for no gain where the mean is near 0.
        centred = losing | (count > MOST_FUSED_VALUES) if dtype == tf.float32 else losing
        zeros = tf.zeros([tf.shape(x)[channel]])
        y, *moments = tf.cond(centred, lambda: _less_mean(x, channel), lambda: (x, zeros, zeros))
        return y, centred, *moments

    spec = tf.TensorSpec([None] * rank, dtype)
    return tf.function(
        centring, input_signature=[spec], autograph=False, experimental_attributes=NOT_INLINED
    )


def _less_mean(x: tf.Tensor, channel: int) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """The deviations of `x` from its mean, the mean and the variance."""
    moments = batch_moments(x, channel)
    mean = tf.cast(tf.cast(moments.mean, x.dtype), tf.float32)
    deviations = tf.cast(x, tf.float32) - broadcast_along(mean, channel, x.shape.rank)
    deviations = tf.clip_by_value(deviations, x.dtype.min, x.dtype.max)
    return tf.cast(deviations, x.dtype), moments.mean, moments.variance


def _loses_digits(x: tf.Tensor, count: tf.Tensor, channel: int) -> tf.Tensor:
    """Whether N·μ/σ of any channel is too large for the kernel, judged by a sample of the batch."""
    shape = tf.shape(x)
    sample = tf.reshape(x, [-1, shape[channel], tf.reduce_prod(shape[channel + 1 :])])
    # Gathering a few rows is ten times as fast as a strided slice.
    last = channel == x.shape.rank - 1
    sizes = {0: SAMPLE} if last else {0: SAMPLE // 4, 2: SAMPLE // 4}
    for number, wanted in sizes.items():
        size = tf.shape(sample, tf.int64)[number]
        found = tf.minimum(size, wanted)
        places = tf.range(found, dtype=tf.int64) * size // tf.maximum(found, 1)
        sample = tf.gather(sample, places, axis=number)
    sample = tf.cast(sample, tf.float32)
    mean = tf.reduce_mean(sample, [0, 2], keepdims=True)
    variance = tf.reduce_mean(tf.math.squared_difference(sample, mean), [0, 2])
    limit = tf.square(CANCELLATION_LIMIT / count) * variance
    return tf.reduce_any(tf.square(tf.squeeze(mean, [0, 2])) > limit)


def _fused_can(x: tf.Tensor, epsilon: float, axis: Axis) -> bool:
    """Whether the kernel supports such an input, apart from its number of values."""
    one_axis = len(channel_axes(axis, x.shape.rank)) == 1
    wide_enough = epsilon >= LEAST_FUSED_EPSILON or not runtime.has_gpu()
    return one_axis and x.dtype in FUSED_TYPES and wide_enough and not runtime.inside_xla()
