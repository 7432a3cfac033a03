"""Models that several tests use."""

import re
from contextlib import contextmanager

import keras
import numpy as np
import tensorflow as tf

from tfbn.batch_norms import batch_norms, layer_paths, sublayers

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


def let_through(network):
    """Random weights that let images through a network, whatever its depth, and uneven batch norms.

    Kernels of variance 1 / inputs; gammas of either sign; a channel in eight
    with a variance of 1e-9, and the gamma that makes its scale as large as the others'.
    """
    rng = np.random.default_rng(0)
    for layer in layer_paths(network).values():
        for weight in [] if sublayers(layer) else layer.trainable_variables:
            alone = isinstance(layer, keras.layers.DepthwiseConv2D) or "depthwise" in weight.name
            inputs = np.prod(weight.shape[:2] if alone else weight.shape[:-1])
            deviation = np.sqrt(1 / inputs) if "kernel" in weight.name else 0.1
            factor = weight.name in ("gamma", "scale")  # of other normalisations, about 1
            weight.assign(factor + rng.normal(0, deviation, weight.shape))
    for layer in batch_norms(network).values():
        shape = layer.moving_mean.shape
        variance = np.where(np.arange(shape[0]) % 8, rng.uniform(0.5, 2, shape), 1e-9)
        layer.moving_mean.assign(rng.normal(0, 0.3, shape))
        layer.moving_variance.assign(variance)
        if layer.gamma is not None:
            scale = rng.uniform(0.5, 1.5, shape) * rng.choice([-1, 1], shape)
            layer.gamma.assign(scale * np.sqrt(variance + layer.epsilon))
        else:
            layer.moving_variance.assign(np.maximum(variance, 0.5))
    return network


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
