"""Stand-ins that measure what goes through batch norms, and the model put back afterwards."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from .. import functional
from ..batch_norms import Batchnorm, layer_paths, sublayers
from ..functional import Moments


class Gauge:
    """Stands in for a batch norm's `call` during the pass and sums up what goes through it.

    The sums are variables, so that they work inside tf.function, loops and conditionals.
    """

    def __init__(self, layer: Batchnorm) -> None:
        self.layer = layer
        self.moments: Moments | None = None
        # A model may build its layers in the pass; Keras' own has its statistics as None before.
        if getattr(layer, "moving_mean", None) is not None:
            self.moments = self._new_moments()

    def call(
        self, inputs: tf.Tensor, training: bool | None = None, mask: tf.Tensor | None = None
    ) -> tf.Tensor:
        layer, wide = self.layer, tf.cast(inputs, tf.float64)
        if mask is None or getattr(layer, "ignores_mask", False):
            batch = functional.batch_moments(wide, layer.axis)
        else:
            batch = functional.weighted_moments(wide, mask, layer.axis)
        self._add(batch)
        outputs = functional.normalize(
            inputs, batch.mean, batch.variance, layer.beta, layer.gamma, layer.epsilon, layer.axis
        )
        return tf.cast(outputs, layer.compute_dtype)

    def _new_moments(self) -> Moments:
        shape = self.layer.moving_mean.shape
        return Moments(*(tf.Variable(tf.zeros(shape, tf.float64)) for _ in range(3)))

    def _add(self, batch: Moments) -> None:
        with tf.init_scope():
            sums = self.moments = self.moments or self._new_moments()
        batch = batch._replace(count=tf.broadcast_to(batch.count, tf.shape(batch.mean)))
        both = Moments(*(tf.stack(pair) for pair in zip(sums, batch, strict=True)))
        for variable, value in zip(sums, functional.combine_moments(both), strict=True):
            variable.assign(value)

    def is_finite(self) -> bool:
        return self.moments is None or all(np.isfinite(one.numpy()).all() for one in self.moments)

    def read(self, path: str) -> tuple[np.ndarray, np.ndarray, int]:
        """Mean, unbiased variance and the smallest count of a channel.

        Raises:
            ValueError: fewer than two values in a channel.
        """
        if self.moments is None or not self.moments.count.numpy().any():
            raise ValueError(
                f"No value of the data reached the batch norm {path!r}. Is it used when the model is "
                "called, and not masked throughout? Freeze it (trainable = False) to leave it out."
            )
        count = int(self.moments.count.numpy().min())
        if count < 2:
            raise ValueError(
                f"{path!r} saw {count} value in a channel, and a variance needs two. Pass more data."
            )
        return self.moments.mean.numpy(), functional.unbiased_variance(self.moments).numpy(), count


@contextmanager
def gauged(model: keras.Model, gauges: Mapping[str, Gauge]) -> Iterator[None]:
    """Each gauge in its layer's place, on the instance; at the end the model is as it was.

    Where a layer's code is a `tf.function`, functions run eagerly meanwhile: one traced with a gauge
    inside would keep it.
    """
    state = [(variable, variable.numpy()) for variable in _state_written_at_inference(model)]
    eagerly = tf.config.functions_run_eagerly()
    try:
        tf.config.run_functions_eagerly(eagerly or _has_functions(model))
        for gauge in gauges.values():
            gauge.layer.__dict__["call"] = gauge.call
        yield
    finally:
        tf.config.run_functions_eagerly(eagerly)
        for gauge in gauges.values():
            gauge.layer.__dict__.pop("call", None)
        for variable, value in state:
            variable.assign(value)


def _layers(model: keras.Model) -> list[keras.layers.Layer]:
    return [model, *layer_paths(model).values()]


def _state_written_at_inference(model: keras.Model) -> list[keras.Variable]:
    """States of stateful RNNs, and counters and the like of layers; no frozen kernels (their size)."""
    found: dict[int, keras.Variable] = {}
    for layer in _layers(model):
        own = layer.non_trainable_variables if layer.trainable and not sublayers(layer) else []
        states = layer.states if getattr(layer, "stateful", False) else None
        for variable in [*own, *tf.nest.flatten(states)]:
            if variable is not None:
                found[id(variable)] = variable
    return list(found.values())


def _has_functions(model: keras.Model) -> bool:
    """Whether user code in the model is a tf.function; those of Keras' own `fit` do not run here."""

    def attributes(layer: keras.layers.Layer) -> Iterator[Any]:
        for kind in type(layer).__mro__:
            if not kind.__module__.startswith(("keras.", "tensorflow.")):
                yield from vars(kind).values()
        for name, value in vars(layer).items():
            if name not in ("train_function", "test_function", "predict_function"):
                yield value

    function = tf.types.experimental.PolymorphicFunction
    return any(isinstance(one, function) for layer in _layers(model) for one in attributes(layer))
