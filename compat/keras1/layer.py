"""Keras 1's BatchNormalization (mode 0, 1 and 2) as a Keras 3 layer."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from typing import Any, ClassVar

import keras
import numpy as np
import tensorflow as tf

from ... import kernels
from ...arguments import valid_number
from ...axes import channel_axes
from ...batch_norms import undeclared_because
from ...data_format import rules, tables
from ...layer import BatchNorm
from ...moments import batch_moments
from .arguments import input_arguments, valid_weights
from .data_flow import same_flow
from .initializers import initializer, regularizer, written_initializer, written_regularizer

_WEIGHTS = ("gamma", "beta", "running_mean", "running_std")


@keras.saving.register_keras_serializable(package="tfbn")
class BatchNormalization(BatchNorm):
    """The batch normalisation layer of Keras 1, with its arguments, weights and arithmetic.

    Mode 0, per feature: in training the mean and biased variance of the batch, elsewhere the running
    ones, `gamma · (x − running_mean) / sqrt(running_std + epsilon) + beta`. Each training batch moves
    them: `running = momentum · running + (1 − momentum) · batch`.

    Mode 1, per sample: `gamma · (x − mean) / (sqrt(variance + epsilon) + epsilon) + beta` with the mean
    and variance of the sample's last axis: epsilon twice, and no layer normalisation. Inputs of more
    than two axes have one mean for each index of the axes before the last.

    Mode 2: the batch's own mean and variance, in training and elsewhere. It may be shared.

    In modes 1 and 2 the running statistics are there, and stay 0 and 1.

    `running_std` holds a variance, whatever its name says, as in Keras 1.0.8 to 1.2.2; some earlier
    releases stored a standard deviation in it. `weights` in every mode: gamma, beta, running_mean,
    running_std.

    Masks are handed on, and change nothing here: masked positions count in the statistics, as in
    Keras 1. (`tfbn.convert` makes a `tfbn.BatchNorm`, which leaves them out in training.)

    A mode 0 layer serves one data flow: a call on a second Keras tensor is an error. The same model
    on other data, or nested in another model, is the same flow; so is a Sequential model each time
    that a layer is added. Calls on values, as in a model's own `call`, are not watched.

    With `trainable = False` mode 0 is frozen as a layer of Keras 3 is: it runs as at inference, and its
    running statistics stay. In Keras 1 only gamma and beta did.

    Args:
        epsilon: added to the variance, not negative. Keras 1.2 has 1e-3 as its default.
        mode: 0, 1 or 2.
        axis: the axis of the features; 1 for images (samples, channels, rows, columns). Mode 1
            normalises along the last axis, whose size this one's must equal.
        momentum: weight of the old value in the running statistics, in [0, 1].
        weights: initial values: [gamma, beta] or [gamma, beta, running_mean, running_std], each a
            number for each feature. They come before beta_init and gamma_init.
        beta_init, gamma_init: "zero", "one", "uniform", "normal", "lecun_uniform", "glorot_uniform",
            "glorot_normal", "he_uniform" or "he_normal", which are what they were in Keras 1 (its
            fan of a vector of n is sqrt(n)); a function f(shape, name=None) or f(shape, dtype=None);
            or a Keras initialiser. A function is not saved.
        gamma_regularizer, beta_regularizer: "l1", "l2", "l1l2"; Keras 1's configuration
            {"name": "WeightRegularizer", "l1": …, "l2": …}; or a Keras regulariser.
        **kwargs: name, trainable and dtype of `keras.layers.Layer`; for the first layer of a Sequential
            model input_shape, input_dim or batch_input_shape (whose batch size is not enforced), and
            input_dtype, which is kept and has no effect.

    Call arguments:
        inputs: real tensor, at least two axes in mode 1.
        training: decides in mode 0.
        mask: accepted and ignored.

    Returns:
        A tensor of the inputs' shape in the layer's compute dtype.

    Raises:
        TypeError: an argument of the wrong kind.
        ValueError: an argument out of range, an unknown name; inputs without that axis, or of
            unknown size there; weights that do not fit; mode 0 on a second data flow.

    Source: `keras.layers.normalization.BatchNormalization` of Keras 1.0.8.

    >>> from tfbn import compat
    >>> layer = compat.BatchNormalization(mode=1, epsilon=0.0)
    >>> print(layer(tf.constant([[1.0, 3.0]])).numpy())
    [[-1.  1.]]
    """

    statistics_names: ClassVar[tuple[str, str]] = ("running_mean", "running_std")
    ignores_mask = True

    def __init__(
        self,
        epsilon: float = 1e-5,
        mode: int = 0,
        axis: int = -1,
        momentum: float = 0.99,
        weights: Sequence[Any] | None = None,
        beta_init: Any = "zero",
        gamma_init: Any = "one",
        gamma_regularizer: Any = None,
        beta_regularizer: Any = None,
        **kwargs: Any,
    ) -> None:
        if isinstance(mode, bool) or mode not in (0, 1, 2):
            raise ValueError(
                "mode must be 0 (per feature, running statistics at inference), 1 (per sample) or 2 "
                f"(per feature, batch statistics always), received {mode!r}."
            )
        if isinstance(axis, bool) or not isinstance(axis, (int, np.integer)):
            raise TypeError(
                f"axis must be an integer, received {axis!r}. Pass -1 for channels last, 1 for channels "
                "first; tfbn.BatchNorm takes several axes."
            )
        initial = valid_weights(weights)
        shape, input_dtype = input_arguments(kwargs)
        if shape is not None:
            kwargs["input_shape"] = shape[1:]
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Do not pass an `input_shape`")
            super().__init__(
                axis=axis,
                decay=valid_number("momentum", momentum, 0.0, 1.0),
                epsilon=valid_number("epsilon", epsilon, 0.0, math.inf),
                gamma_regularizer=regularizer("gamma_regularizer", gamma_regularizer),
                beta_regularizer=regularizer("beta_regularizer", beta_regularizer),
                **kwargs,
            )
        self.mode = int(mode)
        self.beta_init, self.gamma_init = beta_init, gamma_init
        self.batch_input_shape, self._dtype_of_input = shape, input_dtype
        self.beta_initializer, self.gamma_initializer = self._initializers()
        self._initial = initial
        names = ("gamma", "beta", "moving_mean", "moving_variance")
        for name, value in zip(names, initial, strict=False):
            setattr(self, f"{name}_initializer", _constant(value))

    def build(self, input_shape: Sequence[int | None]) -> None:
        rank = len(input_shape)
        if self.mode == 1 and rank < 2:
            raise ValueError(
                f"{self.name!r} normalises each sample along its last axis (mode 1) and needs at least "
                f"two axes, received inputs of shape {tuple(input_shape)}. Pass (samples, features)."
            )
        (channel,) = channel_axes(self.axis, rank)
        size = input_shape[channel]
        if self.mode == 1 and size is not None and size not in (1, input_shape[-1]):
            raise ValueError(
                f"{self.name!r} normalises each sample along its last axis (mode 1), and "
                f"axis={self.axis} gives gamma and beta {size} numbers, which do not fit it: received "
                f"inputs of shape {tuple(input_shape)}. Use axis=-1."
            )
        for name, value in zip(_WEIGHTS, self._initial, strict=False):
            if size is not None and value.shape != (size,):
                raise ValueError(
                    f"weights gives {self.name!r} a {name} of shape {value.shape}, and its inputs of "
                    f"shape {tuple(input_shape)} have {size} features along axis {self.axis}. Pass "
                    f"arrays of shape ({size},)."
                )
        super().build(input_shape)

    def __call__(self, inputs: Any, *args: Any, **kwargs: Any) -> Any:
        if self.mode == 0 and isinstance(inputs, keras.KerasTensor):
            self._check_flow(inputs)
        return super().__call__(inputs, *args, **kwargs)

    def call(
        self, inputs: tf.Tensor, training: bool | None = None, mask: tf.Tensor | None = None
    ) -> tf.Tensor:
        if self.mode == 0:
            return super().call(inputs, training=training)
        if self.mode == 1:
            outputs = _normalize_samples(inputs, self.beta, self.gamma, self.epsilon)
        else:
            outputs, _ = kernels.normalize_batch(inputs, self.beta, self.gamma, self.epsilon, self.axis)
        return tf.cast(outputs, self.compute_dtype)

    @property
    def momentum(self) -> float:
        return self.decay

    @property
    def running_mean(self) -> keras.Variable:
        return self.moving_mean

    @property
    def running_std(self) -> keras.Variable:
        """The running variance."""
        return self.moving_variance

    @property
    def not_a_batch_norm_because(self) -> str | None:
        """Why this is no `tfbn.BatchNorm` (see `tfbn.batch_norms`); `None` in mode 0, where it is."""
        if type(self).call is not BatchNormalization.call:
            return undeclared_because(type(self))
        return {
            0: None,
            1: "mode 1 normalises each sample by itself, at inference too",
            2: "mode 2 uses each batch's own statistics, at inference too",
        }[self.mode]

    def as_batch_norm(self) -> BatchNorm:
        """A new `tfbn.BatchNorm` for a layer of mode 0, without weights yet."""
        beta, gamma = self._initializers()
        return BatchNorm(
            axis=self.axis,
            decay=self.decay,
            epsilon=self.epsilon,
            beta_initializer=beta,
            gamma_initializer=gamma,
            beta_regularizer=self.beta_regularizer,
            gamma_regularizer=self.gamma_regularizer,
            name=self.name,
            trainable=self.trainable,
            dtype=self.dtype_policy,
        )

    def get_config(self) -> dict[str, Any]:
        config = keras.layers.Layer.get_config(self) | {
            "epsilon": self.epsilon,
            "mode": self.mode,
            "axis": self.axis,
            "momentum": self.momentum,
            "gamma_regularizer": written_regularizer(self.gamma_regularizer),
            "beta_regularizer": written_regularizer(self.beta_regularizer),
        }
        for name in ("beta_init", "gamma_init"):
            if (written := written_initializer(getattr(self, name))) is not None:
                config[name] = written
        if self.batch_input_shape is not None:
            config["batch_input_shape"] = list(self.batch_input_shape)
        if self._dtype_of_input is not None:
            config["input_dtype"] = self._dtype_of_input
        return config

    def _initializers(self) -> tuple[Any, Any]:
        return (
            initializer("beta_init", self.beta_init, f"{self.name}_beta"),
            initializer("gamma_init", self.gamma_init, f"{self.name}_gamma"),
        )

    def _check_flow(self, inputs: keras.KerasTensor) -> None:
        try:
            first = self.input
        except (AttributeError, ValueError):  # what Keras' versions raise before the first call
            return
        if not same_flow(first, inputs):
            raise ValueError(
                f"You are attempting to share the BatchNormalization layer {self.name!r} across "
                f"different data flows: it was called on {first!r} and is now called on {inputs!r}. "
                "With mode=0 its running statistics describe one flow. Use mode=2, which normalises "
                "each batch by its own statistics and is shareable, or a layer for each flow."
            )


def _normalize_samples(inputs: tf.Tensor, beta: Any, gamma: Any, epsilon: float) -> tf.Tensor:
    """Mode 1, at least float32; `beta` and `gamma` lie along the last axis."""
    before_last = tuple(range(inputs.shape.rank - 1))
    mean, variance, _ = batch_moments(inputs, before_last)
    dtype = mean.dtype
    deviations = tf.cast(inputs, dtype) - mean[..., tf.newaxis]
    normalized = deviations / (tf.sqrt(variance + epsilon) + epsilon)[..., tf.newaxis]
    return tf.cast(gamma, dtype) * normalized + tf.cast(beta, dtype)


def _constant(values: np.ndarray) -> Any:
    return lambda shape, dtype=None: tf.cast(values, dtype or keras.config.floatx())


# How it follows transposed tensors; mode 1 reads the last axis, which `axis` does not tell.
tables.RULES[BatchNormalization] = lambda layer, given: (
    rules.as_it_was if layer.mode == 1 else rules.along_axis
)(layer, given)
