"""A convolution, its bias, a sum and a leaky ReLU, which TensorFlow with oneDNN computes wrongly."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import tfbn
from networks import let_through
from tfbn.export.graphs.graph import frozen
from tfbn.export.graphs.signatures import of_named

pytestmark = pytest.mark.both
L = keras.layers


def residual(activation, use_bias=False, offset=True):
    """A convolution and a batch norm beside a shortcut."""
    inputs = keras.Input((8, 8, 4), name="x")
    x = L.BatchNormalization()(L.Conv2D(4, 3, padding="same", use_bias=use_bias)(inputs))
    model = let_through(keras.Model(inputs, activation(x + inputs)))
    if not offset:
        for layer in tfbn.batch_norms(model).values():
            layer.beta.assign(tf.zeros(4))
            layer.moving_mean.assign(tf.zeros(4))
    return model


def in_its_graph(model):
    def call(x):
        return {"y": model(x, training=False)}

    return frozen(of_named(call, {"x": tf.TensorSpec((None, 8, 8, 4))}), True, "it")


@pytest.mark.parametrize(
    ("activation", "arguments", "folds"),
    [
        (L.LeakyReLU(0.01), {}, False),
        (L.LeakyReLU(0.3), {"use_bias": True}, False),
        (L.LeakyReLU(0.01), {"use_bias": True, "offset": False}, False),
        (lambda x: keras.ops.leaky_relu(x, 0.1), {}, False),
        (L.LeakyReLU(0.2), {}, True),
        (L.LeakyReLU(0.01), {"offset": False}, True),
        (L.ReLU(), {}, True),
        (L.Activation("swish"), {}, True),
    ],
)
def test_what_is_folded_is_computed_as_before_with_either_kernels(activation, arguments, folds):
    model = residual(activation, **arguments)
    x = tf.constant(np.random.default_rng(0).normal(size=(3, 8, 8, 4)), tf.float32)
    want = model(x, training=False)  # not in a graph, where TensorFlow would fuse it
    folded, report = tfbn.fold(model)
    assert len(report.folded) == folds, str(report)
    assert folds or "computes with a slope of 0.2" in report.kept[0].reason
    np.testing.assert_allclose(tf.function(folded)(x), want, atol=1e-5)
    graph = in_its_graph(model)
    assert len(graph.fold.folded) == folds, str(graph.fold)
    np.testing.assert_allclose(graph.concrete(graph.definition, {})(x=x)["y"], want, atol=1e-5)


def test_without_a_sum_or_of_another_kind_it_is_folded():
    inputs = keras.Input((8, 8, 4))
    x = L.LeakyReLU(0.01)(L.BatchNormalization()(L.Conv2D(4, 3)(inputs)))
    y = L.BatchNormalization()(L.DepthwiseConv2D(3, padding="same")(x))
    model = let_through(keras.Model(inputs, L.LeakyReLU(0.01)(x + y)))
    assert not tfbn.fold(model)[1].kept
