"""What the pass over the data sums up for a diagnosis: the sums of recalibration, and two more."""

from __future__ import annotations

from typing import Any

import numpy as np
import tensorflow as tf

from ..batch_norms import AnyBatchNorm
from ..moments import Moments
from ..population.accumulator import MomentAccumulator


class ScatterAccumulator(MomentAccumulator):
    """A `MomentAccumulator` that also tells how much of the variance is between batches.

    A frozen layer computes as it does in training, with its moving statistics, and is measured on the
    way. Sums that are not finite are no error here: they are what is diagnosed.
    """

    def __init__(self, layer: AnyBatchNorm) -> None:
        self._within: tf.Variable | None = None
        super().__init__(layer, observes=not layer.trainable)
        self._batches = tf.Variable(0.0, dtype=tf.float64)
        self._samples = tf.Variable(0.0, dtype=tf.float64)
        self._rows: Any = 0

    def call(
        self, inputs: tf.Tensor, training: Any = None, mask: tf.Tensor | None = None
    ) -> tf.Tensor | None:
        self._rows = tf.shape(inputs)[0]
        return super().call(inputs, training, mask)

    def total(self) -> tf.Tensor:
        return tf.zeros([], tf.float64)

    def _zeros(self) -> Moments:
        # With the others, where variables may be made: not inside TF1 code.
        self._within = tf.Variable(tf.zeros(self.layer.moving_mean.shape, tf.float64))
        return super()._zeros()

    def _add(self, batch: Moments) -> None:
        super()._add(batch)
        assert self._moments is not None
        assert self._within is not None
        added = tf.cast(batch.count, tf.float64)
        # The count has this batch in it by now.
        share = tf.math.divide_no_nan(added, tf.convert_to_tensor(self._moments.count))
        self._within.assign_add(share * (tf.cast(batch.variance, tf.float64) - self._within))
        counts = tf.cast(tf.reduce_any(added > 0), tf.float64)
        self._batches.assign_add(counts)
        self._samples.assign_add(counts * tf.cast(self._rows, tf.float64))

    @property
    def batches(self) -> int:
        return int(self._batches.numpy())

    @property
    def samples(self) -> int:
        """Entries of the first axis of the inputs."""
        return int(self._samples.numpy())

    def between_batches(self) -> np.ndarray | None:
        """Per channel, the share of the variance that is between batches; `None` of a single one.

        Batches of n independent values have a share of 1/n: it is the variance of their means,
        unbiased, over that of the values. NaN where nothing varies.
        """
        if self._moments is None or self._within is None or self.batches < 2:
            return None
        variance = self._moments.variance.numpy()
        with np.errstate(all="ignore"):
            share = 1 - self._within.numpy() / variance
        return np.clip(share * self.batches / (self.batches - 1), 0, 1)
