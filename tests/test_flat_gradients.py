"""Gradients of any order and direction, of large samples and small ones, in branches and loops."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import reference
import tfbn
from sweeps import thinned
from tfbn import functional, kernels, runtime
from tfbn.moments import batch_moments

EPSILON = 1e-2
SAMPLES = {"large": (64, 64, 8), "small": (8,)}  # compiled on its own, and in few operations


@pytest.fixture(autouse=True)
def no_onednn(monkeypatch):
    """The machine on which most samples are large."""
    monkeypatch.setattr(runtime, "has_onednn", lambda: False)


class Formulas(keras.layers.Layer):
    """Algorithm 1 in float64.

    The second derivatives of Keras' layer are wrong: in deviations, `tf.nn.moments` takes the mean to be
    constant.
    """

    def call(self, x, training):
        deviations = x - tf.reduce_mean(x, axes := list(range(len(x.shape) - 1)))
        return deviations / tf.sqrt(tf.reduce_mean(deviations**2, axes) + 1e-3)


NESTED = {
    "branch": lambda layer, x: tf.cond(
        tf.reduce_sum(x) < 1e9, lambda: layer(x, training=True), lambda: tf.identity(x)
    ),
    "loop": lambda layer, x: tf.while_loop(
        lambda i, _: i < 2,
        lambda i, x: (i + 1, 1.5 * layer(x, training=True) + tf.sin(x)),
        (0, x),
        maximum_iterations=2,
    )[1],
}


def slope_norm(layer, inner, order):
    """A function of the batch: the gradients, squared and summed, of those of it … of a loss."""

    def differentiated(x, order):
        if order == 0:
            return tf.reduce_sum(tf.sin(inner(layer, x)))
        with tf.GradientTape() as tape:
            tape.watch(x)
            below = differentiated(x, order - 1)
        return tf.reduce_sum(tape.gradient(below, x) ** 2)

    return lambda x: differentiated(x, order)


@pytest.mark.parametrize(
    ("order", "jit", "batch", "nested", "size"),
    thinned(4, [2, 1], [(False, None), (False, 4), (True, 4)], NESTED, SAMPLES),
)
def test_gradients_inside_branches_and_loops(size, nested, jit, batch, order):
    ours, theirs = tfbn.BatchNorm(), Formulas(dtype="float64")
    x = reference.data((4, *SAMPLES[size]), -1)
    ours.build(x.shape)
    step = slope_norm(ours, NESTED[nested], order)
    spec = tf.TensorSpec((batch, *SAMPLES[size]))
    step = tf.function(step, jit_compile=jit, input_signature=[spec])
    want = slope_norm(theirs, NESTED[nested], order)(tf.constant(x, tf.float64))
    np.testing.assert_allclose(step(x.astype("float32")), want, rtol=1e-4)


@pytest.mark.parametrize("jit", [False, True])
@pytest.mark.parametrize("size", SAMPLES)
def test_forward_over_backward(size, jit):
    """Hessian times vector, as TensorFlow recommends to compute it."""
    x = reference.data((4, *SAMPLES[size]), -1)

    def product(normalized):
        def of(x):
            with tf.autodiff.ForwardAccumulator(x, tf.sin(x)) as accumulator:
                with tf.GradientTape() as tape:
                    tape.watch(x)
                    value = tf.reduce_sum(tf.sin(normalized(x)))
                slope = tape.gradient(value, x)
            return accumulator.jvp(slope)

        return of

    def formulas(x):
        return functional.normalize(x, *batch_moments(x)[:2], epsilon=EPSILON)

    ours = product(lambda x: kernels.normalize_batch(x, None, None, EPSILON, -1)[0])
    got = tf.function(ours, jit_compile=jit)(tf.constant(x, tf.float32))
    want = product(formulas)(tf.constant(x, tf.float64))
    np.testing.assert_allclose(got, want, rtol=0, atol=1e-4 * np.abs(want).max())
