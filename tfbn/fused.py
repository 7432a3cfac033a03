"""TensorFlow's `FusedBatchNormV3`, in one pass forward and one backward, and what it needs to be exact.

On a CPU, inputs whose mean is large beside their deviation are centred before the kernel sees them. With
N values of mean μ and deviation σ a channel, the variance that the kernel computes has no correct digit
from N·μ/σ = 2**24 on (it is 90 times off for 131 072 values of mean 1e4 and deviation 1). A sample of
the batch decides, where it has more values than could err. Centring happens inside `tf.cond`, so
well-scaled inputs pay nothing. Normalisation is shift-invariant, so the gradient of centring is the
identity. A GPU would wait for that condition in every layer and step, and its kernel does not add one
value after another.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import tensorflow as tf

from . import runtime
from .axes import Axis, channel_axes
from .called import NOT_INLINED
from .flat import divisor, either, shaped_as, values_of
from .functional import TensorLike
from .moments import Moments, batch_moments, broadcast_along, count_values, size_of

TYPES = (tf.float32, tf.float16, tf.bfloat16)
MOST_VALUES = 2**17  # in a channel
LEAST_EPSILON = 1.001e-5  # CUDNN_BN_MIN_EPSILON, with room for rounding
CANCELLATION_LIMIT = 2.0**22  # of N·μ/σ; below it the variance errs by 1e-5 at most
# Values in a channel; with no more, N·μ/σ reaches 2**24 only where the mean is 10 000 deviations off 0.
CANCELLATION_FREE_COUNT = 1600
SAMPLE = 32  # values of a channel


def supports(x: tf.Tensor, epsilon: float, axis: Axis) -> bool:
    """Whether the kernel supports such an input, apart from its number of values."""
    one_axis = len(channel_axes(axis, x.shape.rank)) == 1
    wide_enough = epsilon >= LEAST_EPSILON or not runtime.has_gpu()
    return one_axis and x.dtype in TYPES and wide_enough and not runtime.inside_xla()


def normalize_batch(
    x: tf.Tensor,
    beta: TensorLike | None,
    gamma: TensorLike | None,
    epsilon: float,
    axis: Axis,
    copied: bool,
) -> tuple[tf.Tensor, Moments]:
    """As `kernels.normalize_batch`."""
    count = count_values(x, axis)
    if tf.get_static_value(count) is None and gamma is not None:
        # So that the second derivative at an empty batch, which is NaN, reaches no gamma.
        gamma = tf.math.multiply_no_nan(tf.cast(gamma, count.dtype), tf.cast(count > 0, count.dtype))
    values, *centring = _centre(x, axis, copied)
    x = _shifted(x, values) if centring else x
    y, moments, _ = _train(x, beta, gamma, epsilon, axis, centring, copied)
    return y, moments


class Fused:
    """A `flat.Kind` of tensors whose channels are last: as `normalize_batch`, in fewer operations.

    Args:
        inline: whether what centres the values stands in the graph, in place of a call.
    """

    def __init__(self, epsilon: float, channel: int, inline: bool = False) -> None:
        self._epsilon, self._channel, self._inline = epsilon, channel, inline

    def forward(self, x: tf.Tensor, beta: tf.Tensor, gamma: tf.Tensor) -> tuple[tf.Tensor, ...]:
        values, *centring = _centre(values_of(x), 1, self._inline)  # traced once for all ranks
        y, moments, known = _train(values, beta, gamma, self._epsilon, 1, centring)
        # What the kernel's gradient takes third is empty on a CPU.
        return shaped_as(y, x), moments.mean, moments.variance, values, *known[:2]

    def backward(
        self, x: tf.Tensor, gamma: tf.Tensor, dy: tf.Tensor, *upstream_and_known: Any
    ) -> tuple[tf.Tensor, ...]:
        dmean, dvariance, values, mean, spread = upstream_and_known
        dx, dgamma, dbeta, *_ = tf.raw_ops.FusedBatchNormGradV3(
            y_backprop=_pixels(dy),
            x=_pixels(values),
            scale=gamma,
            reserve_space_1=mean,
            reserve_space_2=spread,
            reserve_space_3=tf.zeros([0]),
            epsilon=self._epsilon,
        )
        if dmean is not None:
            share = 1 / divisor(x, self._channel)
            deviations = tf.cast(values, mean.dtype) - mean
            more = tf.cast(share * (dmean + 2 * dvariance * deviations), x.dtype)
            dx = values_of(dx) + more
        return shaped_as(dx, x), dbeta, dgamma

    def unknown(self, x: tf.Tensor) -> tuple[tf.Tensor, ...]:
        """As `by_size.Kind.unknown`."""
        channels = tf.zeros([size_of(x, -1)])
        return values_of(x), channels, channels


def _train(
    x: tf.Tensor,
    beta: TensorLike | None,
    gamma: TensorLike | None,
    epsilon: float,
    axis: Axis,
    centring: Sequence[tf.Tensor],
    keeps_images: bool = False,
) -> tuple[tf.Tensor, Moments, list[tf.Tensor]]:
    """The kernel's result, the moments, and what the kernel's gradient takes, on a CPU its mean first.

    Args:
        centring: what `_centre` tells of `x`.
        keeps_images: as `_call` takes it.
    """
    count, empty = count_values(x, axis), tf.zeros([0])
    y, *known = _call(x, beta, gamma, empty, empty, epsilon, axis, keeps_images, is_training=True)
    mean, variance, *reserved = known
    # The kernel returns the unbiased variance; for a single value that is 0 or NaN, depending on the
    # device.
    share = tf.maximum(count - 1, 0) / tf.maximum(count, 1)
    biased = tf.maximum(tf.math.multiply_no_nan(variance, share), 0) + (mean - mean)  # NaN of a NaN
    moments = Moments(mean, biased, count)
    if centring:
        kept, exact_mean, exact_variance = centring
        moments = Moments(
            tf.math.multiply_no_nan(mean, kept) + exact_mean,
            tf.math.multiply_no_nan(biased, kept) + exact_variance,
            count,
        )
    return y, moments, reserved


def normalize(
    x: tf.Tensor,
    mean: tf.Tensor,
    variance: tf.Tensor,
    beta: TensorLike | None,
    gamma: TensorLike | None,
    epsilon: float,
    axis: Axis,
) -> tf.Tensor:
    """As `functional.normalize`."""
    mean, variance = tf.cast(mean, tf.float32), tf.cast(variance, tf.float32)
    return _call(x, beta, gamma, mean, variance, epsilon, axis, True, is_training=False)[0]


def _call(
    x: tf.Tensor,
    beta: TensorLike | None,
    gamma: TensorLike | None,
    mean: tf.Tensor,
    variance: tf.Tensor,
    epsilon: float,
    axis: Axis,
    keeps_images: bool,
    **arguments: Any,
) -> tuple[tf.Tensor, ...]:
    """The kernel on a tensor of any rank, reshaped to images: channels last or, on a GPU, first.

    Args:
        keeps_images: whether images stay that, though in training oneDNN's kernel takes 1.1 to 1.8 times
            as long for more than a pixel. At inference TensorFlow merges an image's batch norm with the
            convolution before it, and programs search TensorFlow 1's graphs for the kernel by its name.
    """
    (channel,) = channel_axes(axis, x.shape.rank)
    shape, size = tf.shape(x), size_of(x, channel)
    if channel < x.shape.rank - 1 and not runtime.has_gpu():
        # On the CPU the kernel would transpose, too, 2.2 to 2.9 times more slowly forward and backward.
        order = [*(number for number in range(x.shape.rank) if number != channel), channel]
        x = tf.transpose(x, order)
        y, *others = _call(x, beta, gamma, mean, variance, epsilon, -1, keeps_images, **arguments)
        return tf.transpose(y, [order.index(number) for number in range(len(order))]), *others
    images, layout = x, "NHWC"
    as_they_are = x.shape.rank == 4 and (runtime.has_gpu() or keeps_images)
    if channel == x.shape.rank - 1 and not as_they_are:
        images = _pixels(x)
    elif channel < x.shape.rank - 1:
        layout = "NCHW"
        if (channel, x.shape.rank) != (1, 4):
            before, after = tf.reduce_prod(shape[:channel]), tf.reduce_prod(shape[channel + 1 :])
            images = tf.reshape(x, [before, size, after, 1])
    y, *others = tf.raw_ops.FusedBatchNormV3(
        x=images,
        scale=tf.ones([size]) if gamma is None else tf.cast(gamma, tf.float32),
        offset=tf.zeros([size]) if beta is None else tf.cast(beta, tf.float32),
        mean=mean,
        variance=variance,
        epsilon=epsilon,
        data_format=layout,
        **arguments,
    )
    if images is not x:
        y = tf.reshape(y, shape)
        y.set_shape(x.shape)
    return y, *others


def _pixels(x: tf.Tensor) -> tf.Tensor:
    """A tensor whose channels are last as images of one pixel."""
    return tf.reshape(x, [-1, 1, 1, size_of(x, -1)])


def _centre(x: tf.Tensor, axis: Axis, inline: bool = False) -> tuple[tf.Tensor, ...]:
    """`x` without its mean if the kernel would lose digits, `x` itself otherwise.

    Returns:
        That tensor and, if not all of its batches are left as they are: 0 if the mean was subtracted, 1
        if not; mean and variance of `x` if it was, zeros if not.
    """
    (channel,) = channel_axes(axis, x.shape.rank)
    count, values = count_values(x, channel), tf.stop_gradient(x)
    known = tf.get_static_value(count)
    if runtime.has_gpu() or (known is not None and known <= CANCELLATION_FREE_COUNT):
        return (values,)
    function = _centring(channel, x.shape.rank, x.dtype)
    # A graph of TensorFlow 1 would be kept by the function.
    inline = inline or not tf.compat.v1.executing_eagerly_outside_functions()
    centre = function.python_function if inline else function
    if known is not None:
        deviations, kept, *moments = centre(values)
    else:  # the question alone would take small batches a tenth of their time
        ways = [lambda: _as_they_are(values, channel), lambda: centre(values)]
        deviations, kept, *moments = either(count > CANCELLATION_FREE_COUNT, ways)
    deviations.set_shape(x.shape)
    for each in moments:
        each.set_shape(x.shape[channel : channel + 1])
    return deviations, kept, *moments


@tf.custom_gradient
def _shifted(x: tf.Tensor, values: tf.Tensor) -> tuple[tf.Tensor, Callable[..., Any]]:
    """The values, whose gradient is that of `x`."""
    del x
    return tf.identity(values), lambda slope: (slope, None)


@cache
def _centring(channel: int, rank: int, dtype: tf.DType) -> Any:
    """A function for all layers, which is traced once."""

    def centring(x: tf.Tensor) -> tuple[tf.Tensor, ...]:
        count = count_values(x, channel)
        centred = _loses_digits(x, count, channel)
        # Shorter types would round the deviations, for no gain where the mean is near 0.
        centred = centred | (count > MOST_VALUES) if dtype == tf.float32 else centred
        return either(centred, [lambda: _as_they_are(x, channel), lambda: _less_mean(x, channel)])

    spec = tf.TensorSpec([None] * rank, dtype)
    return tf.function(
        centring, input_signature=[spec], autograph=False, experimental_attributes=NOT_INLINED
    )


def _as_they_are(x: tf.Tensor, channel: int) -> tuple[tf.Tensor, ...]:
    """`_centre` of what need not be."""
    zeros = tf.zeros([tf.shape(x)[channel]])
    return tf.identity(x), tf.constant(1.0), zeros, zeros


def _less_mean(x: tf.Tensor, channel: int) -> tuple[tf.Tensor, ...]:
    """`_centre` of what is."""
    moments = batch_moments(x, channel)
    mean = tf.cast(tf.cast(moments.mean, x.dtype), tf.float32)
    deviations = tf.cast(x, tf.float32) - broadcast_along(mean, channel, x.shape.rank)
    deviations = tf.clip_by_value(deviations, x.dtype.min, x.dtype.max)
    return tf.cast(deviations, x.dtype), tf.constant(0.0), moments.mean, moments.variance


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
