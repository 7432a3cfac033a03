"""Models that several tests use."""

import re
from contextlib import contextmanager

import keras
import numpy as np
import tensorflow as tf

from tfbn.batch_norms import batch_norms

FLOAT32 = 1e-5  # relative to the largest output: rounding of float32 over some tens of layers


def randomize(model, seed=0):
    """Give every weight of a model non-trivial values: negative gammas, different variances."""
    rng = np.random.default_rng(seed)
    for variable in model.trainable_variables:
        variable.assign(rng.normal(0, 0.4, variable.shape))
    for layer in batch_norms(model).values():
        shape = layer.moving_mean.shape
        layer.moving_mean.assign(rng.normal(0, 1, shape))
        layer.moving_variance.assign(rng.uniform(0.2, 3, shape))
        if layer.gamma is not None:
            layer.gamma.assign(rng.uniform(0.5, 2, shape) * rng.choice([-1, 1], shape))
        if layer.beta is not None:
            layer.beta.assign(rng.normal(0, 1, shape))
    return model


def chain(shape, *layers, dtype="float32"):
    """A Functional model of layers called one after the other, with random weights."""
    inputs = x = keras.Input(shape, dtype=dtype, name="x")
    for layer in layers:
        x = layer(x)
    return randomize(keras.Model(inputs, x))


def relative_difference(got, want):
    got, want = np.asarray(got, "float64"), np.asarray(want, "float64")
    return np.abs(got - want).max() / np.abs(want).max()


def outputs(model, x, **arguments):
    """What a model computes, flat; by XLA, which has every layout, where TensorFlow lacks a kernel.

    On the CPU, TensorFlow has channels-first convolutions only with oneDNN, and none in float64.
    """
    try:
        found = model(x, **arguments)
    except (tf.errors.UnimplementedError, tf.errors.InvalidArgumentError) as error:
        if not re.search("only (supports|supported for) (the )?ND?HWC", str(error)):
            raise
        found = tf.function(lambda x: model(x, **arguments), jit_compile=True)(x)
    return keras.tree.flatten(found)


@contextmanager
def unchanged(model):
    """Fail if anything the model saves is different afterwards."""

    def state():
        return [variable.numpy() for variable in model.variables]

    before, config = state(), model.get_config() if hasattr(model, "inputs") else None
    yield
    after = state()
    assert len(before) == len(after)
    for old, new in zip(before, after, strict=True):
        np.testing.assert_array_equal(old, new)
    assert config is None or config == model.get_config()
