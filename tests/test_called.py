"""What layers of all shapes call: traced once, not inlined, with the numbers of each layer's own."""

from typing import ClassVar

import keras
import numpy as np
import pytest
import tensorflow as tf

import reference
import tfbn
from slopes import slopes
from tfbn import called, flat, functional, plain, room
from tfbn.moments import batch_moments

EPSILON = 1e-2
SHAPES = [(6, 5), (7, 3, 4), (2, 3, 5, 2)]


class Counting(plain.Plain):
    """Notes each time that Python runs it."""

    traces: ClassVar = []

    def forward(self, x, *args):
        self.traces.append(("forward", x.dtype.name, self.epsilon))
        return super().forward(x, *args)

    def backward(self, x, *args):
        self.traces.append(("backward", x.dtype.name, self.epsilon, args[2] is not None))
        return super().backward(x, *args)


def normalized(x, beta, gamma, epsilon=EPSILON):
    return flat.normalize_batch(
        x, beta, gamma, epsilon, -1, lambda epsilon, channel: called.Called(Counting, epsilon)
    )


def forget():
    called._forward.cache_clear()
    called._backward.cache_clear()


@pytest.fixture
def traces():
    forget()
    Counting.traces.clear()
    yield Counting.traces
    forget()


@pytest.mark.parametrize("order", [1, 2])
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.usefixtures("traces")
def test_the_numbers_are_those_of_the_formulas(shape, order):
    p = reference.parameters(shape[-1:])
    given = [value.astype("float32") for value in (reference.data(shape), p["beta"], p["gamma"])]
    specs = [tf.TensorSpec((None, *shape[1:])), *[tf.TensorSpec(shape[-1:])] * 2]
    step = tf.function(
        lambda *a: slopes(normalized, list(a), order), input_signature=specs, autograph=False
    )

    def formulas(x, beta, gamma):
        moments = batch_moments(x)
        return functional.normalize(x, *moments[:2], beta, gamma, EPSILON), moments

    wide = [tf.constant(value, tf.float64) for value in given]
    for got, want in zip(step(*given), slopes(formulas, wide, order), strict=True):
        np.testing.assert_allclose(got, want, rtol=0, atol=1e-5 * np.abs(want).max())


def test_one_trace_for_all_shapes_of_a_type_and_epsilon(traces):
    """Forward, and backward with slopes of the moments or without."""

    @tf.function(autograph=False)
    def several(*tensors):
        with tf.GradientTape() as tape:
            tape.watch(tensors)
            total = 0.0
            for tensor in tensors:
                for epsilon in (1e-3, 1e-2):
                    y, moments = normalized(tensor, None, None, epsilon)
                    total += tf.reduce_sum(tf.cast(y, tf.float32) ** 3)
                    if tensor.shape.rank == 2:
                        total += tf.reduce_sum(moments.mean)
        return tape.gradient(total, tensors)

    tensors = [tf.ones(shape) for shape in SHAPES] + [tf.ones(SHAPES[1], tf.bfloat16)]
    slopes_of = several(*tensors)
    assert [slope.shape for slope in slopes_of] == [tensor.shape for tensor in tensors]
    of_float32 = [trace for trace in traces if trace[1] == "float32"]
    assert len(of_float32) == len(set(of_float32)) == 2 * 3
    assert len(traces) == len(set(traces)) == 2 * 3 + 2 * 2


def operations(layer, monkeypatch, room_for):
    """How many there are in a training step of twelve layers, once TensorFlow has inlined what it does.

    Those of functions that are called are counted once.
    """
    monkeypatch.setattr(room, "ROOM", room_for)
    inputs = keras.Input((6, 6, 80))
    outputs = inputs
    for _ in range(12):
        outputs = layer()(outputs)
    model = keras.Model(inputs, outputs)
    weights = [variable.value for variable in model.trainable_variables]

    @tf.function(input_signature=[tf.TensorSpec((None, 6, 6, 80))], autograph=False)
    def step(x):
        with tf.GradientTape() as tape:
            tape.watch(x)
            loss = tf.reduce_sum(model(x, training=True) ** 2)
        return tape.gradient(loss, [x, *weights])

    definition = step.get_concrete_function().graph.as_graph_def()
    functions = {function.signature.name: function for function in definition.library.function}
    counted = set()

    def count(nodes):
        total = 0
        for node in nodes:
            inside = [value.func.name for value in node.attr.values() if value.HasField("func")]
            for name in inside:
                once = functions[name].attr["_noinline"].b
                total += 0 if once and name in counted else count(functions[name].node_def)
                counted.add(name)
        return total + len(nodes)

    return count(definition.node)


def test_layers_without_room_have_no_more_operations_than_keras_own(monkeypatch):
    """Which TensorFlow optimises in the first step: eighty more a layer were 1.5 s of MobileNetV2's."""
    forget()
    keras_own = operations(keras.layers.BatchNormalization, monkeypatch, 0)
    once = 600
    assert operations(tfbn.BatchNorm, monkeypatch, 0) < keras_own + once
    assert operations(tfbn.BatchNorm, monkeypatch, 12) > keras_own + once
