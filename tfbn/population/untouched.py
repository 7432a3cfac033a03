"""A model used, and put back as it was."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import keras
import tensorflow as tf

from ..batch_norms import layer_paths


@contextmanager
def untouched(model: keras.Model) -> Iterator[None]:
    """At the end every variable of the model has its value of before.

    Memory: a copy of the variables.
    """
    state = [(variable, tf.identity(variable)) for variable in _variables(model)]
    try:
        yield
    finally:
        for variable, value in state:
            variable.assign(value)


@contextmanager
def functions_run_eagerly(when: bool) -> Iterator[None]:
    """With `when`, no `tf.function` is traced meanwhile: its trace would keep the stand-ins."""
    before = tf.config.functions_run_eagerly()
    tf.config.run_functions_eagerly(before or when)
    try:
        yield
    finally:
        tf.config.run_functions_eagerly(before)


def has_functions(model: keras.Model) -> bool:
    """Whether user code in the model is a tf.function; those of Keras' own `fit` do not count."""

    def attributes(layer: keras.layers.Layer) -> Iterator[Any]:
        for kind in type(layer).__mro__:
            if not kind.__module__.startswith(("keras.", "tensorflow.")):
                yield from vars(kind).values()
        for name, value in vars(layer).items():
            if name not in ("train_function", "test_function", "predict_function"):
                yield value

    function = tf.types.experimental.PolymorphicFunction
    return any(isinstance(value, function) for layer in _layers(model) for value in attributes(layer))


def _layers(model: keras.Model) -> list[keras.layers.Layer]:
    return [model, *layer_paths(model).values()]


def _variables(model: keras.Model) -> list[Any]:
    """Keras' variables, those of metrics, states of RNNs, and TensorFlow's that layers hold."""
    found: dict[int, Any] = {id(variable): variable for variable in model.variables}
    for layer in _layers(model):
        states = layer.states if getattr(layer, "stateful", False) else None
        for value in [states, *vars(layer).values()]:
            found |= {id(variable): variable for variable in _held(value)}
    return list(found.values())


def _held(value: Any, depth: int = 0) -> Iterator[Any]:
    """The variables in an attribute, in lists and dictionaries, too."""
    if isinstance(value, (keras.Variable, tf.Variable)):
        yield value
    elif isinstance(value, keras.metrics.Metric):
        yield from value.variables
    elif depth < 4 and isinstance(value, (list, tuple, dict)):
        for inner in value.values() if isinstance(value, dict) else value:
            yield from _held(inner, depth + 1)
