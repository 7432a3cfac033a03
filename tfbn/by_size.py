"""Algorithm 1 for batches whose size shows when they are there: small ones in few operations."""

from __future__ import annotations

from typing import Protocol

import tensorflow as tf

from . import flat
from .called import Called
from .compiled import Compiled
from .fused import Fused
from .moments import size_of, widen
from .plain import MOST_COUNT, Plain


class Kind(flat.Kind, Protocol):
    """One that can be left out."""

    def unknown(self, x: tf.Tensor) -> tuple[tf.Tensor, ...]:
        """In place of what `forward` knows, where another kind computes: of the same types.

        What has samples is no constant: loops would take its shape for that of all. XLA, too, if it
        compiles a function that was traced outside of it, takes a part of them for a dynamic shape.
        """


class _BySize:
    """A `flat.Kind`: `Plain`, or another for a batch that turns out to have many values."""

    LEAST_VALUES: int  # of the other

    def __init__(self, large: Kind, epsilon: float, channel: int) -> None:
        self._large, self._small = large, _Small(epsilon, channel, self.LEAST_VALUES)

    def forward(self, x: tf.Tensor, beta: tf.Tensor, gamma: tf.Tensor) -> tuple[tf.Tensor, ...]:
        count = self._count(x)

        def large() -> tuple[tf.Tensor, ...]:
            return *self._large.forward(x, beta, gamma), *self._small.unknown(x)

        def small() -> tuple[tf.Tensor, ...]:
            y, mean, variance, *known = self._small.forward(x, beta, gamma, count=count)
            return y, mean, variance, *self._large.unknown(x), *known

        y, *others = tf.cond(self._is_large(x), large, small)
        y.set_shape(x.shape)
        return y, *others

    def backward(
        self, x: tf.Tensor, gamma: tf.Tensor, dy: tf.Tensor, *upstream_and_known: tf.Tensor | None
    ) -> tuple[tf.Tensor, ...]:
        of_moments, known = upstream_and_known[:2], upstream_and_known[2:]
        number, share = len(known) - self._small.KNOWN, 1 / self._count(x)
        dx, *slopes = tf.cond(
            self._is_large(x),
            lambda: self._large.backward(x, gamma, dy, *of_moments, *known[:number]),
            lambda: self._small.backward(x, gamma, dy, *of_moments, *known[number:], share=share),
        )
        dx.set_shape(x.shape)
        return dx, *slopes

    def _count(self, x: tf.Tensor) -> tf.Tensor:
        """For small batches. Outside of the conditionals a graph computes it once, whoever asks."""
        return flat.divisor(x, self._small.channel)

    def _is_large(self, x: tf.Tensor) -> tf.Tensor:
        return tf.size(x, tf.int64) >= self.LEAST_VALUES


class CompiledIfLarge(_BySize):
    LEAST_VALUES = 2**18  # with fewer, XLA leaves sums in one loop

    def __init__(self, epsilon: float, channel: int) -> None:
        super().__init__(Compiled(epsilon, channel), epsilon, channel)


class CompiledUnlessSmall(CompiledIfLarge):
    LEAST_VALUES = 100_000  # of many positions or few channels, which TensorFlow adds up slowly, too


class CompiledUnlessTiny(CompiledIfLarge):
    LEAST_VALUES = 2**15  # of two to seven channels, which it adds up one value after another


class FusedIfLarge(_BySize):
    LEAST_VALUES = 100_000

    def __init__(self, epsilon: float, channel: int, inline: bool = False) -> None:
        super().__init__(Fused(epsilon, channel, inline), epsilon, channel)


class CalledIfLarge(Called):
    """`FusedIfLarge` for layers that have no room for code of their own."""

    def __init__(self, epsilon: float, channel: int) -> None:
        super().__init__(_whole, epsilon)
        del channel  # the last


def _whole(epsilon: float, channel: int) -> FusedIfLarge:
    """What is called, with nothing in it that is called."""
    return FusedIfLarge(epsilon, channel, inline=True)


class _Small(Plain):
    """`Plain`, of a batch of fewer values than a number."""

    KNOWN = 2

    def __init__(self, epsilon: float, channel: int, more: int) -> None:
        super().__init__(epsilon, channel)
        self._more = more

    def unknown(self, x: tf.Tensor) -> tuple[tf.Tensor, ...]:
        """As `Kind.unknown`."""
        return tf.zeros([size_of(x, self.channel)]), widen(x[:0])

    def _are_few(self, values: tf.Tensor) -> tf.Tensor | bool:
        channels = values.shape.as_list()[self.channel]
        few = channels is not None and MOST_COUNT * channels >= self._more
        return few or super()._are_few(values)
