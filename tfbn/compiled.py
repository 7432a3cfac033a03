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

from .flat import Flat, Plain
from .moments import widen
from .traced_once import functions_of

LEAST_VALUES = 2**18  # of a batch of small samples; with fewer, XLA leaves sums in one loop
STEPS = 8  # numbers of samples from one power of two to the next


class Compiled:
    """A `flat.Kind`."""

    def __init__(self, epsilon: float, channel: int) -> None:
        self._forward, self._backward = _functions(epsilon, channel)

    def forward(self, x: tf.Tensor, beta: tf.Tensor, gamma: tf.Tensor) -> tuple[tf.Tensor, ...]:
        filled, samples = _filled(x)
        y, *others = self._forward(filled, beta, gamma, samples)
        return _emptied(y, x), *others

    def backward(
        self, x: tf.Tensor, gamma: tf.Tensor, dy: tf.Tensor, *upstream_and_known: tf.Tensor
    ) -> tuple[tf.Tensor, ...]:
        (filled, samples), (above, _) = _filled(x), _filled(dy)
        dx, *others = self._backward(filled, gamma, above, *upstream_and_known, samples=samples)
        return _emptied(dx, x), *others


class BySize:
    """A `flat.Kind`: `Plain`, or `Compiled` for a batch that turns out to be large."""

    def __init__(self, epsilon: float, channel: int) -> None:
        self._large, self._small = Compiled(epsilon, channel), Plain(epsilon, channel)

    def forward(self, x: tf.Tensor, beta: tf.Tensor, gamma: tf.Tensor) -> tuple[tf.Tensor, ...]:
        unknown = tf.zeros_like(beta), tf.zeros_like(beta)

        def large() -> tuple[tf.Tensor, ...]:
            *results, shift, mean = self._large.forward(x, beta, gamma)
            return *results, shift, mean, tf.zeros_like(widen(x[:0]))

        def small() -> tuple[tf.Tensor, ...]:
            *results, deviations = self._small.forward(x, beta, gamma)
            return *results, *unknown, deviations

        y, *others = tf.cond(_is_large(x), large, small)
        y.set_shape(x.shape)
        return y, *others

    def backward(
        self, x: tf.Tensor, gamma: tf.Tensor, dy: tf.Tensor, *upstream_and_known: tf.Tensor
    ) -> tuple[tf.Tensor, ...]:
        *others, shift, mean, deviations = upstream_and_known
        dx, *slopes = tf.cond(
            _is_large(x),
            lambda: self._large.backward(x, gamma, dy, *others, shift, mean),
            lambda: self._small.backward(x, gamma, dy, *others, deviations),
        )
        dx.set_shape(x.shape)
        return dx, *slopes


def _is_large(x: tf.Tensor) -> tf.Tensor:
    return tf.size(x, tf.int64) >= LEAST_VALUES


@cache
def _functions(epsilon: float, channel: int) -> tuple[Callable[..., Any], Callable[..., Any]]:
    """For all layers: a shape is traced and compiled once."""
    return functions_of(Flat(epsilon, channel), jit_compile=True)


def _filled(x: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor | None]:
    """The batch with samples of zeros behind it, and how many are its own; `None` for all."""
    if x.shape.as_list()[0] is not None:
        return x, None
    samples = tf.shape(x)[0]
    octave = tf.bitwise.left_shift(
        1, tf.cast(tf.math.log(tf.cast(tf.maximum(samples, 1), tf.float64)) / math.log(2), tf.int32)
    )
    step = tf.maximum(octave // STEPS, 1)
    missing = -samples % step
    return tf.pad(x, [[0, missing], *[[0, 0]] * (x.shape.rank - 1)]), samples


def _emptied(filled: tf.Tensor, x: tf.Tensor) -> tf.Tensor:
    """The first samples, as many as `x` has."""
    if filled.shape.as_list()[0] is not None:
        return filled
    sizes = x.shape.as_list()[1:]
    return tf.slice(filled, [0] * x.shape.rank, [tf.shape(x)[0], *sizes])
