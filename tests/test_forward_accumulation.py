"""Derivatives along a direction, and those of gradients: whatever computes the batch norm."""

import numpy as np
import pytest
import tensorflow as tf

import reference
import tfbn
from sweeps import thinned
from tfbn import functional
from tfbn.moments import batch_moments

pytestmark = pytest.mark.both
SHAPES = {  # of samples, and what computes 30 of them in a graph
    "few values": ((64,), -1),
    "the kernel": ((8, 8, 64), -1),
    "the kernel, transposed": ((64, 6, 6), 1),
    "compiled": ((32, 32, 4), -1),
}


def along(function):
    """The derivative of a function of a batch along a direction."""

    def derivative(x, direction):
        with tf.autodiff.ForwardAccumulator(x, direction) as accumulator:
            y = function(x)
        return accumulator.jvp(y)

    return derivative


def gradient(function):
    """That of a loss of the batch."""

    def slope(x):
        with tf.GradientTape() as tape:
            tape.watch(x)
            loss = tf.reduce_sum(tf.sin(function(x)))
        return tape.gradient(loss, x)

    return slope


def product(function):
    """Hessian times vector, forward over backward, as TensorFlow recommends to compute it."""
    return along(gradient(function))


def gradient_of_derivative(function):
    """Backward over forward."""

    def of(x, direction):
        return gradient(lambda x: along(function)(x, direction))(x)

    return of


def batch_of(sample):
    rng = np.random.default_rng(0)
    return rng.normal(2, 1, (30, *sample)), rng.normal(size=(30, *sample))


def expected(derivative, axis, given):
    def formulas(x):
        return functional.normalize(x, *batch_moments(x, axis)[:2], epsilon=1e-3, axis=axis)

    return derivative(formulas)(*map(tf.constant, given)).numpy()


def ours(sample, axis, training=True):
    layer = tfbn.BatchNorm(axis=axis, epsilon=1e-3)
    layer.build((None, *sample))
    return lambda x: layer(x, training=training)


def assert_equal(got, want):
    np.testing.assert_allclose(got, want, rtol=0, atol=1e-4 * np.abs(want).max())


@pytest.mark.parametrize(
    ("derivative", "samples", "jit", "shape"),
    thinned(
        3,
        [along, product, gradient_of_derivative],
        [(30, False), (None, False), (30, True)],
        SHAPES,
    ),
)
def test_in_a_graph(shape, samples, jit, derivative):
    sample, axis = SHAPES[shape]
    given = batch_of(sample)
    specs = [tf.TensorSpec((samples, *sample))] * 2
    function = tf.function(derivative(ours(sample, axis)), input_signature=specs, jit_compile=jit)
    got = function(*(each.astype("float32") for each in given))
    assert_equal(got, expected(derivative, axis, given))


@pytest.mark.parametrize("outer", [lambda function: function, tf.function], ids=["eager", "graph"])
@pytest.mark.parametrize("derivative", [along, product])
@pytest.mark.parametrize("shape", ["few values", "the kernel"])
def test_of_a_function_that_was_traced_before(shape, derivative, outer):
    """Where no accumulator is there to be seen: a loss that is a tf.function, too."""
    sample, axis = SHAPES[shape]
    given = batch_of(sample)
    x, direction = (tf.constant(each, tf.float32) for each in given)
    inner = tf.function(ours(sample, axis))
    inner(x)
    assert_equal(outer(derivative(inner))(x, direction), expected(derivative, axis, given))


@pytest.mark.parametrize(
    ("samples", "derivative", "shape"), thinned(2, [30, None], [along, product], SHAPES)
)
def test_of_a_function_at_inference(shape, derivative, samples):
    """TensorFlow's kernel alone has none there, which nothing says."""
    sample, axis = SHAPES[shape]
    given = batch_of(sample)
    x, direction = (tf.constant(each, tf.float32) for each in given)
    specs = [tf.TensorSpec((samples, *sample))]
    inner = tf.function(ours(sample, axis, training=False), input_signature=specs)

    def formulas(x):
        return x / np.sqrt(1 + 1e-3)

    want = derivative(formulas)(*map(tf.constant, given)).numpy()
    assert_equal(derivative(inner)(x, direction), want)
    frozen = tf.function(lambda x: 2 * tf.nn.relu(inner(x)) + x)
    want = derivative(lambda x: 2 * tf.nn.relu(formulas(x)) + x)(*map(tf.constant, given)).numpy()
    assert_equal(derivative(frozen)(x, direction), want)


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("shape", SHAPES)
def test_along_the_weights(shape, training):
    sample, axis = SHAPES[shape]
    x = batch_of(sample)[0]
    layer = tfbn.BatchNorm(axis=axis, epsilon=1e-3)
    layer.build(x.shape)
    channels = x.shape[axis]
    directions = [np.linspace(1, 2, channels), np.linspace(-1, 3, channels)]

    @tf.function
    def derivative(x):
        weights = [layer.gamma.value, layer.beta.value]
        tangents = [tf.cast(each, tf.float32) for each in directions]
        with tf.autodiff.ForwardAccumulator(weights, tangents) as accumulator:
            y = layer(x, training=training)
        return accumulator.jvp(y)

    moments = reference.moments(x, axis) if training else (np.zeros(channels), np.ones(channels))
    want = reference.apply(x, *moments, directions[1], directions[0], epsilon=1e-3, axis=axis)
    assert_equal(derivative(x.astype("float32")), want)
