"""Which code computes Algorithm 1 and inference: the one place where that is decided.

TensorFlow's `FusedBatchNormV3` (`fused`) computes a training batch in one pass forward and one backward.
With oneDNN it is several times as fast as the formulas of `functional`, without oneDNN once to three
times (docs/benchmarks.md). The formulas are used instead where

* the input is float64 or has several channel axes: the kernel supports neither;
* epsilon is below 1.001e-5 and there is a GPU: older cuDNN kernels refuse it;
* a channel has more than 131 072 values: the CPU's kernel adds them one after another and errs by 1e-5;
* the batch is empty: the kernel's second derivative is NaN;
* a `tf.autodiff.ForwardAccumulator` follows the tensors into a graph: there TensorFlow differentiates
  what is inside a gradient of our own, and the kernel in a function that is called it does not.

Where XLA compiles, `flat` is: XLA's version of the kernel computes E[x²] − E[x]², which is off by a
factor of 3.4 at a mean of 1e3 and a deviation of 1 (tensorflow #118701), and its code for `flat` is
faster. (A tf.function that was first traced outside XLA and is then called from inside keeps the
kernel.) On a CPU it is faster than the kernel, too, for large samples: 1.6 to 2.6 times without oneDNN,
and with it where there are more values than the kernel may sum; under either setting for images and
sequences of few channels. There `flat` is compiled on its own, for as many shapes as a graph has room
for.

For batches of few values `plain` is faster, 1.0 to 1.5 times, for the kernel takes 0.3 ms to start and
as long to end. In a graph for batches of any size those of the smallest samples are taken for such. For
others both ways stand there (`by_size`), or `compiled` in the kernel's place, which for many small
samples is 1.2 to 1.6 times as fast without oneDNN, also those of a batch whose size is known, and for
vectors more exact with it. All of this is code that TensorFlow optimises for each layer before the first
step, so it is inlined where the graph has room (`room`); the layers behind share functions, which are
called (`called`).

At inference the kernel computes images, which TensorFlow merges with what is around them: MobileNetV2
predicts at 1.1 to 1.4 times Keras' speed. Vectors and sequences it does not merge, and with oneDNN the
kernel takes small ones 0.1 ms to start, half of a dense layer's time: of float32, the formulas are used.

The kernel computes the moments of one whole local batch. Masked and synchronized moments are not that:
the layer takes them from `functional`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial

import tensorflow as tf

from . import flat, functional, fused, inference, runtime
from .axes import Axis, channel_axes
from .by_size import (
    CalledIfLarge,
    CompiledIfLarge,
    CompiledUnlessSmall,
    CompiledUnlessTiny,
    FusedIfLarge,
)
from .compiled import Compiled, shape_of
from .functional import TensorLike
from .moments import Moments, batch_moments, count_values
from .plain import Plain
from .room import finds_room, has_room
from .traced_once import TracedOnce

# From how many values of a sample on `flat` is compiled on its own. It is faster from fewer on, too, but
# each shape takes a while to compile, and a graph has room for few.
LEAST_COMPILED_VALUES = 60_000
LEAST_COMPILED_PLANE = 2**8  # positions: of large planes the kernel is slower
# Of so few channels the kernel is 0.6 to 1.3 times as fast as Keras' formulas, compiled code 1.0 to 2.9
# times from 100 000 values on; of 2 to 7 channels from 2**15 on. It takes 0.2 ms to start.
FEW_CHANNELS = 2**4
SLOW_CHANNELS = range(2, 8)
LEAST_COMPILED_OF_FEW_CHANNELS = 2**9  # values
LEAST_COMPILED_CHANNELS_FIRST = 2**12  # values, which would be transposed for the kernel, and back
LEAST_COMPILED_BESIDE_ONEDNN = 2**13  # positions of more channels: any batch of them is large
LEAST_OF_LARGE_BATCH = 2**8  # values of a sample; the question takes 0.05 ms
# More go without while small samples find room: tens of those are a small batch, and to build both ways
# takes the first step 0.2 to 0.5 s a shape.
MOST_OF_SMALL_IMAGE = 2**12  # or sequence
MOST_OF_SMALL_VECTOR = 2**9  # or sample of SLOW_CHANNELS
MOST_PLAIN_VALUES = 2**16  # of a batch
MOST_OF_SMALL_SAMPLE = 2**17  # values, for which a graph has less room
# Values of samples whose small batches are worth code of a layer's own.
MOST_BY_SIZE = 2**16
MOST_COMPILED_BY_SIZE = 2**13  # the same, whose large batches are compiled without oneDNN

LEAST_MERGED_RANK = 4  # of what the kernel computes at inference


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
    beta, gamma = (None if each is None else tf.convert_to_tensor(each) for each in (beta, gamma))
    copied = copied or runtime.inside_wrap_function()
    accumulated = runtime.in_function() and runtime.has_tangents(x, beta, gamma)
    kind = None if copied or accumulated else _kind_of(x, epsilon, axis)
    if kind is not None:
        as_it_is = kind in (flat.Flat, fused.Fused, CalledIfLarge)  # XLA's, or few operations
        make_kind = kind if as_it_is else partial(TracedOnce, kind)
        return flat.normalize_batch(x, beta, gamma, epsilon, axis, make_kind)
    known = tf.get_static_value(count_values(x, axis))
    most = math.inf if runtime.has_gpu() else fused.MOST_VALUES
    if not accumulated and fused.supports(x, epsilon, axis) and (known is None or 0 < known <= most):
        return fused.normalize_batch(x, beta, gamma, epsilon, axis, copied)
    moments = batch_moments(x, axis)
    mean, variance, _ = moments
    return functional.normalize(x, mean, variance, beta, gamma, epsilon, axis), moments


def _kind_of(x: tf.Tensor, epsilon: float, axis: Axis) -> type[flat.Kind] | None:
    """Which flat kind computes it, if any does: where XLA compiles everything, its code."""
    channel, *others = channel_axes(axis, x.shape.rank)
    if others or x.shape.rank == 1:
        return None
    if runtime.inside_xla():
        return flat.Flat
    sizes = x.shape.as_list()[1:]
    can = x.dtype in fused.TYPES and runtime.in_function() and not runtime.has_gpu()
    if not can or None in sizes or channel == 0:
        return None
    room = partial(finds_room, shape_of(x, epsilon, channel), math.prod(sizes) <= MOST_OF_SMALL_SAMPLE)
    if len(sizes) > 1 and _is_worth_compiling(sizes, channel) and room():
        return Compiled
    return _kind_of_channels_last(x.shape[0], sizes, room) if channel == len(sizes) else None


def _kind_of_channels_last(
    samples: int | None, sizes: list[int], room: Callable[[], bool]
) -> type[flat.Kind] | None:
    """The same, of channels that are last.

    Args:
        samples: how many the batch has, if that is known.
        sizes: the shape of one.
        room: whether the graph has room for another compiled shape.
    """
    values = math.prod(sizes)
    if samples is None and _are_taken_for_few(sizes):
        return Plain
    few = sizes[-1] <= FEW_CHANNELS and values >= LEAST_COMPILED_OF_FEW_CHANNELS
    large = values > MOST_COMPILED_BY_SIZE and values >= LEAST_COMPILED_PLANE * sizes[-1]
    if few or (large and not runtime.has_onednn()):
        by_size = _compiled_by_size(sizes, few)
        is_large = (1 if samples is None else samples) * values >= by_size.LEAST_VALUES
        if samples is not None and not is_large:
            return Plain
        if room():
            return Compiled if is_large else by_size
    if samples is not None:
        return _kind_of_known_batch(samples, sizes, room)
    if _are_small(sizes, room):
        return CompiledIfLarge
    return FusedIfLarge if values <= MOST_BY_SIZE and finds_room(small=True) else CalledIfLarge


def _compiled_by_size(sizes: list[int], few: bool) -> type[CompiledIfLarge]:
    """Which kind it is of few channels or large planes."""
    if sizes[-1] in SLOW_CHANNELS:
        return CompiledUnlessTiny
    if not few and math.prod(sizes) == LEAST_COMPILED_PLANE * sizes[-1]:
        return CompiledIfLarge  # XLA adds up small batches of such planes more slowly, by a fifth
    return CompiledUnlessSmall


def _kind_of_known_batch(
    samples: int, sizes: list[int], room: Callable[[], bool]
) -> type[flat.Kind] | None:
    """The same of so many samples that are not compiled for what one is."""
    values = samples * math.prod(sizes)
    if values <= MOST_PLAIN_VALUES:
        return Plain
    if not runtime.has_onednn() and values >= CompiledIfLarge.LEAST_VALUES and _are_small(sizes, room):
        return Compiled
    return fused.Fused if values <= fused.MOST_VALUES * sizes[-1] else None


def _are_taken_for_few(sizes: list[int]) -> bool:
    """Whether batches of such samples are small, as far as one can say before they are there."""
    values = math.prod(sizes)
    vector = values == sizes[-1] or sizes[-1] in SLOW_CHANNELS
    most = MOST_OF_SMALL_VECTOR if vector else MOST_OF_SMALL_IMAGE
    return values < LEAST_OF_LARGE_BATCH or (values <= most and has_room(small=True))


def _are_small(sizes: list[int], room: Callable[[], bool]) -> bool:
    """Whether large batches of such samples are compiled.

    Vectors always are, others without oneDNN while there is room.
    """
    values = math.prod(sizes)
    if values == sizes[-1]:
        return True
    return not runtime.has_onednn() and values <= MOST_COMPILED_BY_SIZE and room()


def _is_worth_compiling(sizes: list[int], channel: int) -> bool:
    """Whether samples are large enough; the channel axis counts the batch axis, the sizes do not."""
    values = math.prod(sizes)
    if channel < len(sizes):
        return values >= LEAST_COMPILED_CHANNELS_FIRST
    if runtime.has_onednn():
        return sizes[-1] > FEW_CHANNELS and math.prod(sizes[:-1]) >= LEAST_COMPILED_BESIDE_ONEDNN
    return values >= LEAST_COMPILED_VALUES


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
    arguments = (x, mean, variance, beta, gamma, epsilon, axis)
    own_gradient = runtime.in_function() and not runtime.inside_wrap_function()
    # A graph of TensorFlow 1 would be kept by the functions that are called in it.
    own_gradient = own_gradient and tf.compat.v1.executing_eagerly_outside_functions()
    merged = x.shape.rank >= LEAST_MERGED_RANK or x.dtype != tf.float32 or runtime.has_gpu()
    if not fused.supports(x, epsilon, axis) or (own_gradient and not merged):
        return functional.normalize(*arguments)
    return (inference if own_gradient else fused).normalize(*arguments)
