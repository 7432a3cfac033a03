"""What layers of all shapes call: traced once, not inlined, with the numbers of each layer's own."""

from typing import ClassVar

import keras
import numpy as np
import pytest
import tensorflow as tf

import reference
import tfbn
from slopes import slopes
from tfbn import called, flat, functional, plain, room, runtime
from tfbn.moments import batch_moments

pytestmark = pytest.mark.both
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


def operations(layer, layers):
    """How many there are in a training step, once TensorFlow has inlined what it does inline."""
    inputs = keras.Input((8, 8, 80))
    outputs = inputs
    for _ in range(layers):
        outputs = layer()(outputs)
    model = keras.Model(inputs, outputs)
    weights = [variable.value for variable in model.trainable_variables]

    @tf.function(input_signature=[tf.TensorSpec((None, 8, 8, 80))], autograph=False)
    def step(x):
        with tf.GradientTape() as tape:
            tape.watch(x)
            loss = tf.reduce_sum(model(x, training=True) ** 2)
        return tape.gradient(loss, [x, *weights])

    definition = step.get_concrete_function().graph.as_graph_def()
    functions = {function.signature.name: function for function in definition.library.function}

    def inlined(node):
        values = [value for name, value in node.attr.items() if not name.startswith("_")]
        named = [value.func.name for value in values if value.HasField("func")]
        named += [function.name for value in values for function in value.list.func]
        return [functions[name] for name in named if not functions[name].attr["_noinline"].b]

    def count(nodes):
        return len(nodes) + sum(count(inside.node_def) for node in nodes for inside in inlined(node))

    return count(definition.node)


def test_layers_without_room_have_fewer_operations_than_keras_own(monkeypatch):
    """Python traces them and TensorFlow optimises them before the first step ends.

    Eighty more a layer were 1.5 s of MobileNetV2's.
    """

    def of_a_layer(layer, room_for):
        monkeypatch.setattr(room, "ROOM", room_for)
        return (operations(layer, 8) - operations(layer, 4)) / 4

    keras_own = of_a_layer(keras.layers.BatchNormalization, 0)
    assert of_a_layer(tfbn.BatchNorm, 0) <= 0.7 * keras_own
    assert of_a_layer(tfbn.BatchNorm, 16) > keras_own


def test_a_graph_of_layers_with_room_and_without(monkeypatch):
    """Small and large batches, against Keras' own layers with the same weights."""
    monkeypatch.setattr(room, "ROOM", 3)
    monkeypatch.setattr(runtime, "has_onednn", lambda: True)  # without it the shape would be compiled
    inputs = keras.Input((8, 8, 80))
    outputs = inputs
    for rate in (1.0, -2.0, 0.5, 1.5):
        outputs = keras.layers.Rescaling(rate)(outputs)
        outputs = keras.layers.BatchNormalization()(outputs)
    stock = keras.Model(inputs, outputs)
    ours = tfbn.convert(stock)

    def step(model):
        @tf.function(input_signature=[tf.TensorSpec((None, 8, 8, 80))], autograph=False)
        def slopes_of(x):
            with tf.GradientTape() as tape:
                tape.watch(x)
                loss = tf.reduce_sum(model(x, training=True) ** 3)
            return tape.gradient(loss, [x, *[each.value for each in model.trainable_variables]])

        return slopes_of

    steps = step(ours), step(stock)
    graph = steps[0].get_concrete_function().graph.as_graph_def()
    functions = {function.signature.name: function for function in graph.library.function}
    calls = [functions[node.attr["f"].func.name] for node in graph.node if node.op == "PartitionedCall"]
    assert sum(function.attr["_noinline"].b for function in calls) == 2 * 2  # forward and backward
    for samples in (3, 60):
        x = reference.data((samples, 8, 8, 80)).astype("float32")
        got, want = (each(tf.constant(x))[1:] for each in steps)
        largest = max(np.abs(slope).max() for slope in want)  # a layer before another's has none
        for slope, expected in zip(got, want, strict=True):
            np.testing.assert_allclose(slope, expected, rtol=0, atol=1e-5 * largest)
    for mine, its in zip(ours.non_trainable_variables, stock.non_trainable_variables, strict=True):
        np.testing.assert_allclose(mine, its, rtol=1e-5, atol=1e-6)
