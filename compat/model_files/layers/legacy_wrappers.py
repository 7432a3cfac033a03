"""Wrappers that do what those of Keras 2 did, and Keras 3's do not."""

from __future__ import annotations

import inspect
from typing import Any, ClassVar

import keras
import tensorflow as tf


@keras.saving.register_keras_serializable(package="tfbn")
class InTraining(keras.layers.Wrapper):
    """A layer, or a model, that runs as in training always.

    What `layer(x, training=True)` says in a functional model of Keras 2. Keras 3 says so too, and then
    overrides it in `predict`.
    """

    def __init__(self, layer: keras.layers.Layer, **kwargs: Any) -> None:
        super().__init__(layer, **kwargs)
        self.supports_masking = True

    def build(self, input_shape: Any = None) -> None:
        if not self.layer.built:
            self.layer.build(input_shape)
        self.built = True

    def call(self, inputs: Any, **kwargs: Any) -> Any:
        return self.layer(inputs, training=True, **kwargs)

    def compute_output_shape(self, input_shape: Any) -> Any:
        return self.layer.compute_output_shape(input_shape)


@keras.saving.register_keras_serializable(package="tfbn")
class StepwiseLayer(keras.layers.TimeDistributed):
    """A layer at each step of sequences whose length is free: all steps of all samples as one batch.

    As Keras 2 did it. Keras 3's own `TimeDistributed` gives a wrong shape for a second length.
    """

    # For `tfbn.fold` and `tfbn.convert`: the same function as TimeDistributed, in one call of the layer.
    applies_its_layer_to_each_step: ClassVar[bool] = True

    def call(self, inputs: tf.Tensor, training: Any = None, mask: tf.Tensor | None = None) -> Any:
        shape = tf.shape(inputs)
        arguments: dict[str, Any] = {"training": training}
        if mask is not None:
            arguments["mask"] = tf.reshape(mask, [-1])
        taken = _accepted(self.layer)
        steps = tf.reshape(inputs, tf.concat([[-1], shape[2:]], 0))
        steps.set_shape([None, *inputs.shape[2:]])
        outputs = self.layer(steps, **{name: arguments[name] for name in arguments if name in taken})

        def apart(output: tf.Tensor) -> tf.Tensor:
            apart = tf.reshape(output, tf.concat([shape[:2], tf.shape(output)[1:]], 0))
            apart.set_shape([*inputs.shape[:2], *output.shape[1:]])
            return apart

        return tf.nest.map_structure(apart, outputs)


def _accepted(layer: keras.layers.Layer) -> set[str]:
    """Which of training and mask a layer's `call` takes; a model hands training on in any case."""
    return set(inspect.signature(layer.call).parameters) & {"training", "mask"}
