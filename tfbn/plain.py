"""Algorithm 1 for few values, where each operation of a graph counts."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import tensorflow as tf

from .axes import reduction_axes
from .flat import Flat, either
from .moments import count_values

MOST_COUNT = 2**10  # values of a channel, added up one after another with a rounding each


class Plain(Flat):
    """The same in few operations. The gradients' sums are as those of TensorFlow's own gradients."""

    def _kept(self, deviations: tf.Tensor, *_: tf.Tensor) -> tuple[tf.Tensor, ...]:
        return (deviations,)

    def _deviations(self, x: tf.Tensor, *kept: tf.Tensor) -> tf.Tensor:
        (deviations,) = kept
        return deviations

    def _moments(
        self, x: tf.Tensor, count: tf.Tensor, add_up: Callable[[tf.Tensor], tf.Tensor]
    ) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        moments = super()._moments
        ways = [partial(moments, x, count, each) for each in (add_up, self._sum_of_slopes)]
        few = self._are_few(x)
        if not tf.is_tensor(few):
            return ways[few]()
        mean, variance, deviations = either(few, ways)
        deviations.set_shape(x.shape)
        return mean, variance, deviations

    def _are_few(self, values: tf.Tensor) -> tf.Tensor | bool:
        """Whether a channel has few values; a tensor where that is not known of a batch of any size."""
        count = count_values(values, self.channel)
        known = tf.get_static_value(count)
        return count <= MOST_COUNT if known is None else bool(known <= MOST_COUNT)

    def _sum_of_slopes(self, values: tf.Tensor) -> tf.Tensor:
        return tf.reduce_sum(values, reduction_axes(self.channel, values.shape.rank))
