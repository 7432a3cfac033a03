"""The Keras layer `BatchNorm`: variables, and what is computed in training, at inference and frozen."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import keras
import tensorflow as tf

from . import functional, kernels
from .arguments import name_what_is_meant, refuse_keras_arguments, valid_axis, valid_flag, valid_number
from .axes import Axis, channel_axes
from .moments import (
    Moments,
    batch_moments,
    combine_moments,
    fit_leading_axes,
    unbiased_variance,
    weighted_moments,
)

if TYPE_CHECKING:
    from typing_extensions import Unpack  # typing's from Python 3.11 on

    from .arguments import LayerArguments


@keras.saving.register_keras_serializable(package="tfbn")
class BatchNorm(keras.layers.Layer):
    """Batch normalisation (Ioffe & Szegedy, arXiv 1502.03167v3).

    **Training** (`training=True`): each channel is normalised with the mean and the biased variance of
    the batch (Algorithm 1). The moving statistics are then updated:
    `moving = decay · moving + (1 − decay) · batch`. Gradients reach the inputs through the batch's
    mean and variance, too.

    **Inference** (`training=False`): each channel is normalised with the moving mean and variance
    (Algorithm 2, line 11), which are not changed. Gradients reach the inputs, beta and gamma; the moving
    statistics are constants.

    **Frozen** (`trainable = False`): the layer runs as at inference, whatever `training` says, and none
    of its variables changes, as in Keras.

    Statistics are float32, or float64 if the layer's variables are. A training batch without any value
    (an empty one, or one that is masked entirely) updates nothing. NaN in a training batch makes the
    channel's outputs and moving statistics NaN, as in Keras; at a masked position it affects the output
    at that position only.

    `tf.recompute_grad` and `keras.RematScope` run a training batch through the layer twice, and the
    moving statistics are updated twice, as those of Keras' layer are; `decay=decay**0.5` makes up for
    that.

    Args:
        axis: the channel axis, 1 for channels-first images. Or a sequence of axes: each combination of
            their indices has statistics of its own. Negative axes count from the end.
        decay: weight of the old value in the moving average, in [0, 1]. Keras calls it momentum.
        epsilon: added to the variance, not negative.
        center: whether there is an offset, `beta`.
        scale: whether there is a factor, `gamma`.
        unbiased: the moving variance is an average of unbiased variances (the batch's variance times
            m/(m−1) for m values a channel; unchanged for m = 1), as in the paper and in Keras 2's fused
            path. Otherwise it is one of biased variances, as in Keras 1 and Keras 3. In training, the
            batch is always normalised with its biased variance.
        synchronized: under `tf.distribute`, use the moments of all replicas' batches together
            instead of each replica's own.
        beta_initializer, gamma_initializer, moving_mean_initializer, moving_variance_initializer:
            as in `keras.layers.Layer.add_weight`.
        beta_regularizer, gamma_regularizer, beta_constraint, gamma_constraint: likewise.
        **kwargs: of `keras.layers.Layer`: name, dtype, trainable.

    Call arguments:
        inputs: real tensor with any number of axes (integers are taken as float32); the sizes of the
            channel axes must be known, and stay what they were when the layer was built.
        training: batch statistics if true, moving ones otherwise.
        mask: booleans for the leading axes of `inputs`, e.g. `[batch, time]`; the statistics ignore
            positions where it is false. The output is normalised at all positions.

    Returns:
        A tensor of the inputs' shape in the layer's compute dtype.

    Raises:
        TypeError: an argument of the wrong kind, or `momentum`; inputs that are not real numbers.
        ValueError: an argument out of range; an axis that the inputs do not have or whose size is
            unknown; inputs that do not fit the layer's weights.

    >>> layer = BatchNorm(decay=0.9)
    >>> y = layer(tf.constant([[1.0, 20.0], [3.0, 40.0]]), training=True)
    >>> print(layer.moving_mean.numpy().round(3))
    [0.2 3. ]
    """

    # What the moving statistics are called among the weights.
    statistics_names: ClassVar[tuple[str, str]] = ("moving_mean", "moving_variance")

    def __init__(
        self,
        axis: Axis = -1,
        decay: float = 0.99,
        epsilon: float = 1e-3,
        center: bool = True,
        scale: bool = True,
        unbiased: bool = False,
        synchronized: bool = False,
        beta_initializer: Any = "zeros",
        gamma_initializer: Any = "ones",
        moving_mean_initializer: Any = "zeros",
        moving_variance_initializer: Any = "ones",
        beta_regularizer: Any = None,
        gamma_regularizer: Any = None,
        beta_constraint: Any = None,
        gamma_constraint: Any = None,
        **kwargs: Unpack[LayerArguments],
    ) -> None:
        refuse_keras_arguments(type(self).__name__, kwargs)
        try:
            super().__init__(**kwargs)
        except ValueError:
            name_what_is_meant(type(self), kwargs)
            raise
        self.axis = valid_axis(axis)
        self.decay = valid_number("decay", decay, 0.0, 1.0)
        self.epsilon = valid_number("epsilon", epsilon, 0.0, math.inf)
        self.center = valid_flag("center", center)
        self.scale = valid_flag("scale", scale)
        self.unbiased = valid_flag("unbiased", unbiased)
        self.synchronized = valid_flag("synchronized", synchronized)
        self.beta_initializer = keras.initializers.get(beta_initializer)
        self.gamma_initializer = keras.initializers.get(gamma_initializer)
        self.moving_mean_initializer = keras.initializers.get(moving_mean_initializer)
        self.moving_variance_initializer = keras.initializers.get(moving_variance_initializer)
        self.beta_regularizer = keras.regularizers.get(beta_regularizer)
        self.gamma_regularizer = keras.regularizers.get(gamma_regularizer)
        self.beta_constraint = keras.constraints.get(beta_constraint)
        self.gamma_constraint = keras.constraints.get(gamma_constraint)
        self.supports_masking = True
        self.beta: keras.Variable | None = None
        self.gamma: keras.Variable | None = None

    def build(self, input_shape: Sequence[int | None]) -> None:
        axes = channel_axes(self.axis, len(input_shape))
        shape = tuple(input_shape[axis] for axis in axes)
        if None in shape:
            raise ValueError(
                f"{self.name!r} needs to know the size of axis {self.axis!r} to create its weights, "
                f"received inputs of shape {tuple(input_shape)}. Give that axis a fixed size in "
                "keras.Input, or choose another axis."
            )
        # Weights keep their type under mixed precision (autocast=False): the arithmetic is float32.
        if self.scale:
            self.gamma = self.add_weight(
                name="gamma",
                shape=shape,
                initializer=self.gamma_initializer,
                regularizer=self.gamma_regularizer,
                constraint=self.gamma_constraint,
                autocast=False,
            )
        if self.center:
            self.beta = self.add_weight(
                name="beta",
                shape=shape,
                initializer=self.beta_initializer,
                regularizer=self.beta_regularizer,
                constraint=self.beta_constraint,
                autocast=False,
            )
        statistic = {
            "shape": shape,
            "dtype": keras.backend.result_type(self.variable_dtype, "float32"),
            "trainable": False,
            "autocast": False,
        }
        mean_name, variance_name = self.statistics_names
        self.moving_mean = self.add_weight(
            name=mean_name, initializer=self.moving_mean_initializer, **statistic
        )
        self.moving_variance = self.add_weight(
            name=variance_name, initializer=self.moving_variance_initializer, **statistic
        )
        self.input_spec = keras.layers.InputSpec(
            ndim=len(input_shape), axes={axis: input_shape[axis] for axis in axes}
        )
        self.built = True

    def call(
        self, inputs: tf.Tensor, training: bool | None = None, mask: tf.Tensor | None = None
    ) -> tf.Tensor:
        affine = (self.beta, self.gamma, self.epsilon, self.axis)
        if not (training and self.trainable):
            mean, variance = self.moving_mean, self.moving_variance
            outputs = _with_mask(
                mask, inputs, lambda x: kernels.normalize_at_inference(x, mean, variance, *affine)
            )
        elif mask is None and not self.synchronized:
            outputs, moments = kernels.normalize_batch(inputs, *affine)
            self._update(moments)
        else:
            moments = self._shared_moments(inputs, mask)
            outputs = self._normalize(inputs, mask, moments, self.beta, self.gamma)
            self._update(moments)
        return tf.cast(outputs, self.compute_dtype)

    def _normalize(
        self, inputs: tf.Tensor, mask: tf.Tensor | None, moments: Moments, beta: Any, gamma: Any
    ) -> tf.Tensor:
        affine = (moments.mean, moments.variance, beta, gamma, self.epsilon, self.axis)
        return _with_mask(mask, inputs, lambda x: functional.normalize(x, *affine))

    def _shared_moments(self, inputs: tf.Tensor, mask: tf.Tensor | None) -> Moments:
        """Moments of the positions that are not masked, of all replicas together if synchronized."""
        if mask is None:
            moments = batch_moments(inputs, self.axis)
        else:
            moments = weighted_moments(inputs, tf.cast(mask, tf.bool), self.axis)
        return _across_replicas(moments) if self.synchronized else moments

    def _update(self, moments: Moments) -> None:
        variance = unbiased_variance(moments) if self.unbiased else moments.variance
        moving = (self.moving_mean, self.moving_variance)
        self._step(moving, (moments.mean, variance), moments.count)

    def _step(
        self,
        averages: Sequence[keras.Variable],
        values: Sequence[tf.Tensor],
        count: tf.Tensor,
        decay: float | None = None,
    ) -> None:
        """Update moving averages of one type, but where a channel had no values."""
        decay = self.decay if decay is None else decay
        olds = [tf.convert_to_tensor(moving) for moving in averages]
        pairs = list(zip(olds, values, strict=True))
        had_values = count > 0
        if decay < 0.5:  # a step from the value, as `update_moving_average`
            updated = [
                tf.where(had_values, functional.update_moving_average(old, new, decay), old)
                for old, new in pairs
            ]
        else:  # the same in few operations, for small batches
            share = tf.cast(had_values, olds[0].dtype) * (1 - decay)
            updated = [
                old + tf.math.multiply_no_nan(tf.cast(new, old.dtype) - old, share) for old, new in pairs
            ]
        for moving, value in zip(averages, updated, strict=True):
            moving.assign(value)

    def compute_output_shape(self, input_shape: Sequence[int | None]) -> Sequence[int | None]:
        channel_axes(self.axis, len(input_shape))
        return input_shape

    def get_config(self) -> dict[str, Any]:
        return super().get_config() | {
            "axis": self.axis,
            "decay": self.decay,
            "epsilon": self.epsilon,
            "center": self.center,
            "scale": self.scale,
            "unbiased": self.unbiased,
            "synchronized": self.synchronized,
            "beta_initializer": keras.initializers.serialize(self.beta_initializer),
            "gamma_initializer": keras.initializers.serialize(self.gamma_initializer),
            "moving_mean_initializer": keras.initializers.serialize(self.moving_mean_initializer),
            "moving_variance_initializer": keras.initializers.serialize(
                self.moving_variance_initializer
            ),
            "beta_regularizer": keras.regularizers.serialize(self.beta_regularizer),
            "gamma_regularizer": keras.regularizers.serialize(self.gamma_regularizer),
            "beta_constraint": keras.constraints.serialize(self.beta_constraint),
            "gamma_constraint": keras.constraints.serialize(self.gamma_constraint),
        }


def _with_mask(
    mask: tf.Tensor | None, inputs: tf.Tensor, function: Callable[[tf.Tensor], tf.Tensor]
) -> tf.Tensor:
    """`function(inputs)`; NaN and infinity at masked positions reach no gradient.

    The gradients of beta and gamma are sums over all positions, and 0 times NaN is NaN.
    """
    outputs = function(inputs)
    mask = None if mask is None else tf.cast(mask, tf.bool)
    if mask is None or not fit_leading_axes(mask, inputs):
        return outputs
    for _ in range(inputs.shape.rank - mask.shape.rank):
        mask = mask[..., tf.newaxis]
    used = mask | tf.math.is_finite(outputs)
    return tf.where(used, function(tf.where(used, inputs, 0)), tf.stop_gradient(outputs))


def _across_replicas(moments: Moments) -> Moments:
    """The moments of all replicas' batches together: one all-gather, no E[x²] − E[x]²."""
    replica = tf.distribute.get_replica_context()
    if replica is None or replica.num_replicas_in_sync == 1:
        return moments
    count = tf.broadcast_to(moments.count, tf.shape(moments.mean))
    packed = tf.stack([moments.mean, moments.variance, count])[tf.newaxis]
    gathered = replica.all_gather(packed, axis=0)
    return combine_moments(Moments(gathered[:, 0], gathered[:, 1], gathered[:, 2]))
