"""What layers share in a graph: traced once, with the numbers and gradients of each layer's own."""

from typing import ClassVar

import keras
import numpy as np
import pytest
import tensorflow as tf

import reference
import tfbn
from slopes import slopes
from tfbn import flat, functional, fused, plain, traced_once
from tfbn.moments import batch_moments

pytestmark = pytest.mark.both
EPSILON = 1e-2


class Counting(plain.Plain):
    """Notes each time that Python runs it."""

    traces: ClassVar = []

    def forward(self, x, *args):
        self.traces.append(("forward", tuple(x.shape), x.dtype.name, self.epsilon))
        return super().forward(x, *args)

    def backward(self, x, *args):
        self.traces.append(("backward", tuple(x.shape), x.dtype.name, self.epsilon))
        return super().backward(x, *args)


def normalized(epsilon):
    def once(*made_for):
        return traced_once.TracedOnce(Counting, *made_for)

    return lambda *a: flat.normalize_batch(*a, epsilon, -1, once)


@pytest.fixture
def traces():
    traced_once._functions.cache_clear()
    Counting.traces.clear()
    return Counting.traces


@pytest.mark.parametrize("order", [1, 2])
def test_the_numbers_are_those_of_the_formulas(order, traces):
    x = reference.data((6, 3, 5)).astype("float32")
    p = {name: value.astype("float32") for name, value in reference.parameters((5,)).items()}
    given = x, p["beta"], p["gamma"]
    specs = [tf.TensorSpec((None, 3, 5)), *[tf.TensorSpec((5,))] * 2]
    step = tf.function(
        lambda *a: slopes(normalized(EPSILON), list(a), order), input_signature=specs, autograph=False
    )
    wide = [tf.constant(value, tf.float64) for value in given]

    def formulas(x, beta, gamma):
        moments = batch_moments(x)
        return functional.normalize(x, *moments[:2], beta, gamma, EPSILON), moments

    for got, want in zip(step(*given), slopes(formulas, wide, order), strict=True):
        np.testing.assert_allclose(got, want, rtol=0, atol=1e-5 * np.abs(want).max())
    assert traces


def test_one_trace_for_each_shape_type_and_epsilon(traces):
    @tf.function(autograph=False)
    def several(x, longer, short):
        with tf.GradientTape() as tape:
            tape.watch([x, longer, short])
            total = 0.0
            for value, epsilon in ((x, 1e-3), (longer, 1e-3), (x, 1e-2), (short, 1e-3)):
                for _ in range(3):
                    value, _ = normalized(epsilon)(value, None, None)  # noqa: PLW2901
                total += tf.reduce_sum(tf.cast(value, tf.float32) ** 3)
        return tape.gradient(total, [x, longer, short])

    several(tf.ones((4, 3)), tf.ones((4, 5)), tf.ones((4, 3), tf.bfloat16))
    assert len(traces) == len(set(traces)) == 2 * 4
    # In another graph it is not traced again.
    tf.function(lambda x: normalized(1e-3)(x, None, None)[0], autograph=False)(tf.ones((4, 3)))
    assert len(traces) == 2 * 4


def test_what_saves_the_kernel_s_digits_is_traced_once_and_left_a_function():
    """Inlined, TensorFlow optimises its conditional for each layer, for seconds."""
    fused._centring.cache_clear()
    layers = [keras.Input((None, None, 3))]
    layers += [layer for _ in range(3) for layer in (keras.layers.Conv2D(5, 3), tfbn.BatchNorm())]
    model = keras.Sequential(layers)
    for spec in (tf.TensorSpec((None, 40, None, 3)), tf.TensorSpec((None, None, None, 3))):
        step = tf.function(lambda x: model(x, training=True)).get_concrete_function(spec)
    assert fused._centring(3, 4, tf.float32).experimental_get_tracing_count() == 1
    (centring,) = (
        function
        for function in step.graph.as_graph_def().library.function
        if "centring" in function.signature.name
    )
    assert centring.attr["_noinline"].b
