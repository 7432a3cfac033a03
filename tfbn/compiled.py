"""Algorithm 1 compiled by XLA on its own, inside a graph that XLA does not compile.

Forward and backward are compiled when first run for a shape, so there are few shapes: a number of
samples that is not known is filled up with zeros to one of eight in an octave.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache
from typing import Any

import tensorflow as tf

from .axes import reduction_axes
from .flat import Flat, divisor
from .sums import exact_sum
from .traced_once import functions_of

STEPS = 8  # numbers of samples from one power of two to the next
LAST_DIGITS = 2**52 // STEPS - 1  # of a float64: those behind the ones that tell the steps apart


def shape_of(x: tf.Tensor, epsilon: float, channel: int) -> tuple[Any, ...]:
    """What is compiled once for all tensors that have it alike."""
    samples, *sizes = x.shape.as_list()
    before, channels, after = sizes[: channel - 1], sizes[channel - 1], sizes[channel:]
    return epsilon, x.dtype, samples, math.prod(before), channels, math.prod(after)


class Compiled:
    """A `flat.Kind`."""

    def __init__(self, epsilon: float, channel: int) -> None:
        self._channel = channel
        self._forward, self._backward = _functions(epsilon, channel)

    def forward(self, x: tf.Tensor, beta: tf.Tensor, gamma: tf.Tensor) -> tuple[tf.Tensor, ...]:
        missing = _missing(x)
        y, *others = self._forward(_filled(x, missing), beta, gamma, _samples(x), self._count(x))
        return _emptied(y, x), *others, missing

    def backward(
        self, x: tf.Tensor, gamma: tf.Tensor, dy: tf.Tensor, *upstream_and_known: tf.Tensor | None
    ) -> tuple[tf.Tensor, ...]:
        *others, missing = upstream_and_known
        # What is filled up has no part in the sums: its slopes from above are zeros.
        filled, above = _filled(x, missing), _filled(dy, missing)
        dx, dbeta, dgamma = self._backward(filled, gamma, above, *others, share=self._share(x))
        return _emptied(dx, x), tf.cast(dbeta, gamma.dtype), dgamma

    def unknown(self, x: tf.Tensor) -> tuple[tf.Tensor, ...]:
        """As `by_size.Kind.unknown`."""
        channels = tf.zeros([x.shape.as_list()[self._channel]])
        return channels, channels, channels, tf.constant(0)

    def _count(self, x: tf.Tensor) -> tf.Tensor | None:
        """As the argument of `Flat.forward`."""
        return divisor(x, self._channel) if _varies(x) else None

    def _share(self, x: tf.Tensor) -> tf.Tensor | None:
        """As the argument of `Flat.backward`."""
        count = self._count(x)
        return None if count is None else 1 / count


class _Unrounded(Flat):
    """`Flat`, whose gradient of beta is float64: XLA would compile a cast of it as a loop of its own."""

    def _sum_of_slopes(self, values: tf.Tensor) -> tf.Tensor:
        return exact_sum(values, reduction_axes(self.channel, values.shape.rank), tf.float64)


@cache
def _functions(epsilon: float, channel: int) -> tuple[Callable[..., Any], Callable[..., Any]]:
    """For all layers: a shape is traced and compiled once."""
    return functions_of(_Unrounded(epsilon, channel), jit_compile=True)


def _varies(x: tf.Tensor) -> bool:
    """Whether the number of samples is known only when a batch is there."""
    return x.shape.as_list()[0] is None


def _samples(x: tf.Tensor) -> tf.Tensor | None:
    """How many of a filled batch are its own; `None` for all."""
    return tf.shape(x)[0] if _varies(x) else None


def _missing(x: tf.Tensor) -> tf.Tensor:
    """How many samples the batch is short of a number that is compiled."""
    samples = _samples(x)
    if samples is None:
        return tf.constant(0)
    # As float64, whose digits behind the leading ones are rounded up.
    digits = tf.bitcast(tf.cast(samples, tf.float64), tf.int64) + LAST_DIGITS
    number = tf.bitcast(tf.bitwise.bitwise_and(digits, ~LAST_DIGITS), tf.float64)
    return tf.cast(number, tf.int32) - samples


def _filled(x: tf.Tensor, missing: tf.Tensor) -> tf.Tensor:
    """The batch with samples of zeros behind it."""
    return tf.pad(x, [[0, missing], *[[0, 0]] * (x.shape.rank - 1)]) if _varies(x) else x


def _emptied(filled: tf.Tensor, x: tf.Tensor) -> tf.Tensor:
    """The first samples, as many as `x` has."""
    if not _varies(x):
        return filled
    return tf.slice(filled, [0] * x.shape.rank, [tf.shape(x)[0], *x.shape.as_list()[1:]])
