"""Batch renormalisation, for small batches or samples that depend on each other (arXiv 1702.03275)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf

from .arguments import valid_number
from .layer import BatchNorm
from .moments import Moments, unbiased_variance


@keras.saving.register_keras_serializable(package="tfbn")
class BatchRenorm(BatchNorm):
    """Batch renormalisation (Ioffe, arXiv 1702.03275): training outputs close to those at inference.

    **Training.** The batch is normalised to x̂ with its own moments, as in `BatchNorm`. The output is
    `gamma · (r · x̂ + d) + beta` with `r = σ_batch / σ` and `d = (μ_batch − μ) / σ`, both clipped to
    their bounds and treated as constants by the gradient (Algorithm 1). μ and σ are moving averages,
    `renorm_mean` and `renorm_stddev`, which are updated after each batch with `renorm_decay`.

    **Inference** and **frozen**: as `BatchNorm`. The moving variance is computed from `moving_stddev`, a
    moving average of the standard deviation `sqrt(variance + epsilon)`.

    State and arithmetic are those of `keras.layers.BatchNormalization(renorm=True)`. Start training with
    tight bounds (rmin = rmax = 1 and dmax = 0 make the layer a `BatchNorm`) and widen them.

    Args:
        *args, **kwargs: arguments of `BatchNorm`.
        renorm_decay: weight of the old value in `renorm_mean` and `renorm_stddev`, in [0, 1].
        rmin, rmax: bounds of r, not negative; `None` for no bound.
        dmax: bound of |d|, not negative; `None` for no bound.

    Raises:
        TypeError, ValueError: as `BatchNorm`; a bound out of range, or rmax below rmin.

    >>> layer = BatchRenorm(rmin=1 / 3, rmax=3, dmax=5)
    >>> y = layer(tf.constant([[1.0], [3.0]]), training=True)  # the moving mean is 0, the deviation 1
    >>> print(y.numpy().ravel().round(3))
    [1. 3.]
    """

    def __init__(
        self,
        *args: Any,
        renorm_decay: float = 0.99,
        rmin: float | None = None,
        rmax: float | None = None,
        dmax: float | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, **kwargs)
        self.renorm_decay = valid_number("renorm_decay", renorm_decay, 0.0, 1.0)
        self.rmin = None if rmin is None else valid_number("rmin", rmin)
        self.rmax = None if rmax is None else valid_number("rmax", rmax)
        self.dmax = None if dmax is None else valid_number("dmax", dmax)
        if self.rmin is not None and self.rmax is not None and self.rmax < self.rmin:
            raise ValueError(
                f"rmax must not be below rmin, received rmin={rmin!r}, rmax={rmax!r}. Swap them."
            )

    def build(self, input_shape: Sequence[int | None]) -> None:
        super().build(input_shape)

        def root(initializer: Any) -> Any:
            return lambda shape, dtype=None: tf.sqrt(initializer(shape, dtype=dtype))

        def again(initializer: Any) -> Any:
            return keras.initializers.get(keras.initializers.serialize(initializer))

        mean, variance = again(self.moving_mean_initializer), again(self.moving_variance_initializer)
        statistic = {
            "shape": self.moving_mean.shape,
            "dtype": self.moving_mean.dtype,
            "trainable": False,
            "autocast": False,
        }
        self.moving_stddev = self.add_weight(
            name="moving_stddev", initializer=root(variance), **statistic
        )
        self.renorm_mean = self.add_weight(name="renorm_mean", initializer=mean, **statistic)
        self.renorm_stddev = self.add_weight(
            name="renorm_stddev", initializer=root(variance), **statistic
        )

    def call(
        self, inputs: tf.Tensor, training: bool | None = None, mask: tf.Tensor | None = None
    ) -> tf.Tensor:
        if not (training and self.trainable):
            return super().call(inputs, training=False, mask=mask)
        moments = self._shared_moments(inputs, mask)
        beta, gamma = self._corrected(moments)
        outputs = self._normalize(inputs, mask, moments, beta, gamma)
        self._update(moments)
        return tf.cast(outputs, self.compute_dtype)

    def _corrected(self, moments: Moments) -> tuple[tf.Tensor, tf.Tensor]:
        """Beta and gamma that apply r and d first, and then the layer's own beta and gamma."""
        dtype = moments.mean.dtype
        mean, stddev = tf.cast(self.renorm_mean, dtype), tf.cast(self.renorm_stddev, dtype)
        r, d = correction(moments, mean, stddev, self.epsilon, self.rmin, self.rmax, self.dmax)
        gamma = tf.ones_like(r) if self.gamma is None else tf.cast(self.gamma, dtype)
        beta = tf.zeros_like(d) if self.beta is None else tf.cast(self.beta, dtype)
        return beta + d * gamma, r * gamma

    def _update(self, moments: Moments) -> None:
        variance = unbiased_variance(moments) if self.unbiased else moments.variance
        stddev = tf.sqrt(variance + self.epsilon)
        values, count = (moments.mean, stddev), moments.count
        self._step((self.renorm_mean, self.renorm_stddev), values, count, self.renorm_decay)
        self._step((self.moving_mean, self.moving_stddev), values, count)
        squared = tf.nn.relu(tf.square(tf.convert_to_tensor(self.moving_stddev)) - self.epsilon)
        self._step((self.moving_variance,), (squared,), count, decay=0.0)

    def get_config(self) -> dict[str, Any]:
        return super().get_config() | {
            "renorm_decay": self.renorm_decay,
            "rmin": self.rmin,
            "rmax": self.rmax,
            "dmax": self.dmax,
        }


def correction(
    moments: Moments,
    mean: tf.Tensor,
    stddev: tf.Tensor,
    epsilon: float,
    rmin: Any = None,
    rmax: Any = None,
    dmax: Any = None,
) -> tuple[tf.Tensor, tf.Tensor]:
    """The corrections r and d of a batch (arXiv 1702.03275, Algorithm 1), without gradients.

    Args:
        moments: those of the batch.
        mean, stddev: the averages over past batches, per channel.
        epsilon: added to the batch's variance; `stddev` is taken to be at least its square root.
        rmin, rmax, dmax: bounds of r and |d|; `None` for no bound.
    """
    stddev = tf.maximum(stddev, epsilon**0.5)
    r = tf.sqrt(moments.variance + epsilon) / stddev
    d = (moments.mean - mean) / stddev
    r = r if rmin is None else tf.maximum(r, rmin)
    r = r if rmax is None else tf.minimum(r, rmax)
    d = d if dmax is None else tf.clip_by_value(d, -dmax, dmax)
    return tf.stop_gradient(r), tf.stop_gradient(d)
