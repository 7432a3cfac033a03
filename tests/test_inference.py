"""Inference in a graph: the kernel or the formulas, gradients, and what TensorFlow merges it with."""

import contextlib
import gc
import threading
import weakref
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import tensorflow as tf

import reference
import tfbn
from sweeps import thinned
from tfbn import kernels, runtime

pytestmark = pytest.mark.both
SHAPES = [((64, 5), -1), ((8, 5, 6), 1), ((4, 5, 6, 3), -1), ((4, 3, 5, 6), 1), ((2, 3, 4, 5, 3), 3)]


def in_a_graph(shape, axis):
    """A layer's inference, as a function of x, beta and gamma."""
    p = reference.parameters((shape[axis],))

    def normalized(x, beta, gamma):
        return kernels.normalize_at_inference(x, p["mean"], p["variance"], beta, gamma, 1e-2, axis)

    return normalized, p


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
@pytest.mark.parametrize("affine", [True, False])
@pytest.mark.parametrize(("shape", "axis"), SHAPES)
def test_values_and_gradients_equal_the_oracle(shape, axis, affine, dtype):
    normalized, p = in_a_graph(shape, axis)
    beta, gamma = (p["beta"], p["gamma"]) if affine else (None, None)
    x = tf.cast(reference.data(shape, axis), dtype)
    slope = tf.cast(reference.data(shape, axis, seed=1), dtype)

    @tf.function
    def step(x, *weights):
        y = normalized(x, *weights) if affine else normalized(x, None, None)
        return y, *tf.gradients(y, (x, *weights), slope)

    y, *got = step(x, *(tf.constant(each, tf.float32) for each in (beta, gamma) if affine))
    wide, dy = (tf.cast(each, tf.float64).numpy() for each in (x, slope))
    scale, _ = reference.affine(p["mean"], p["variance"], beta, gamma, 1e-2)
    zeros = np.zeros_like(scale)
    want = [
        reference.apply(wide, p["mean"], p["variance"], beta, gamma, 1e-2, axis),
        reference.apply(dy, zeros, zeros + 1, zeros, scale, 0, axis),
    ]
    if affine:
        ones = reference.apply(wide, p["mean"], p["variance"], None, None, 1e-2, axis)
        want += [reference.rows(each, axis)[0].sum(0) for each in (dy, dy * ones)]
    rounding = {"float32": 1e-5, "float16": 2e-3, "bfloat16": 2e-2}[dtype]
    for tensor, expected in zip((y, *got), want, strict=True):
        assert tensor.dtype == (dtype if tensor.shape == shape else "float32")
        tolerance = rounding * np.abs(expected).max()
        np.testing.assert_allclose(tf.cast(tensor, tf.float64), expected, rtol=0, atol=tolerance)


@pytest.mark.parametrize(("shape", "axis"), SHAPES)
def test_second_derivatives_equal_those_of_the_formulas_in_float64(shape, axis):
    normalized, p = in_a_graph(shape, axis)

    @tf.function
    def second(*arguments):
        loss = tf.reduce_sum(tf.sin(normalized(*arguments)))
        penalty = tf.add_n([tf.reduce_sum(each**2) for each in tf.gradients(loss, arguments)])
        return tf.gradients(penalty, arguments)

    given = reference.data(shape, axis), p["beta"], p["gamma"]
    got, want = (second(*(tf.constant(each, of) for each in given)) for of in ("float32", "float64"))
    for tensor, expected in zip(got, want, strict=True):
        tolerance = 1e-4 * np.abs(expected).max()
        np.testing.assert_allclose(tensor, expected, rtol=0, atol=tolerance)


def twice(normalized):
    """In a loop, whose gradient takes what the loop kept."""
    return lambda x, *weights: tf.while_loop(
        lambda number, _: number < 2, lambda number, x: (number + 1, normalized(x, *weights)), [0, x]
    )[1]


def in_a_branch(normalized):
    def function(x, *weights):
        return tf.cond(tf.reduce_sum(x) < 1e6, lambda: 2 * normalized(x, *weights), lambda: x)

    return function


def second(function):
    """The gradient of a penalty of gradients."""

    def derivative(*arguments):
        with tf.GradientTape() as outer:
            outer.watch(arguments)
            with tf.GradientTape() as tape:
                tape.watch(arguments)
                loss = tf.reduce_sum(tf.sin(function(*arguments)))
            penalty = tf.add_n([tf.reduce_sum(each**2) for each in tape.gradient(loss, arguments)])
        return outer.gradient(penalty, arguments)

    return derivative


def tangent(function):
    def derivative(x, *weights):
        with tf.autodiff.ForwardAccumulator(x, tf.cos(x)) as accumulator:
            y = function(x, *weights)
        return [accumulator.jvp(y)]

    return derivative


@pytest.mark.parametrize(
    ("derivative", "flow", "shape", "axis"),
    thinned(
        2,
        [second, tangent],
        [twice, in_a_branch, tf.function],
        [((64, 5), -1), ((4, 5, 6, 3), -1), ((4, 3, 5, 6), 1)],
    ),
)
def test_derivatives_of_control_flow(shape, axis, flow, derivative):
    """Of the kernel alone those of a loop, a branch and a function that is called are wrong."""
    normalized, p = in_a_graph(shape, axis)
    function = tf.function(derivative(flow(normalized)), autograph=False)
    given = reference.data(shape, axis), p["beta"], p["gamma"]
    got, want = (function(*(tf.constant(each, of) for each in given)) for of in ("float32", "float64"))
    for tensor, expected in zip(got, want, strict=True):
        np.testing.assert_allclose(tensor, expected, rtol=0, atol=1e-4 * np.abs(expected).max())


@pytest.mark.parametrize("tf1", [False, True])
def test_no_graph_is_kept(tf1):
    """TensorFlow keeps what a gradient of our own refers to, such as a model that is dropped."""
    graphs = []

    @tf.function
    def predict(x):
        graphs.append(weakref.ref(tf.compat.v1.get_default_graph()))
        normalized, _ = in_a_graph(x.shape, -1)
        return normalized(x, None, None)

    outer = tf.Graph()
    with outer.as_default() if tf1 else contextlib.nullcontext():
        predict(tf.ones((2, 5, 6, 3)))
    graphs.append(weakref.ref(outer))
    del predict, outer
    gc.collect()
    assert [graph() for graph in graphs] == [None, None]


def test_threads_differentiate_functions_of_one_shape():
    normalized, p = in_a_graph((4, 5, 6, 3), -1)
    x = tf.constant(reference.data((4, 5, 6, 3)))
    wait = threading.Barrier(4)

    def slope(_):
        @tf.function
        def step(x):
            return tf.gradients(normalized(x, p["beta"], p["gamma"]), x)[0]

        wait.wait()
        return step(x)

    with ThreadPoolExecutor(4) as pool:
        slopes = [*pool.map(slope, range(4))]
    scale, _ = reference.affine(p["mean"], p["variance"], None, p["gamma"], 1e-2)
    for each in slopes:
        np.testing.assert_allclose(each, np.broadcast_to(scale, x.shape), rtol=1e-5)


def operations_run(function, x):
    """The types of the operations that TensorFlow runs, once it has made the graph simpler."""
    concrete = function.get_concrete_function(tf.TensorSpec(x.shape))
    graph = runtime.freeze(concrete).graph.as_graph_def()
    (source,) = (node.name for node in graph.node if node.op == "Placeholder")
    metadata = tf.compat.v1.RunMetadata()
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        outputs = tf.import_graph_def(graph, return_elements=["Identity:0"], name="")
        options = tf.compat.v1.RunOptions(output_partition_graphs=True)
        session.run(outputs, {f"{source}:0": x}, options=options, run_metadata=metadata)
    return [node.op for part in metadata.partition_graphs for node in part.node]


def test_nothing_is_between_a_convolution_and_its_activation():
    layer = tfbn.BatchNorm()
    layer.build((None, None, None, 4))
    kernel = tf.constant(np.random.default_rng(0).normal(size=(3, 3, 4, 4)), tf.float32)

    @tf.function
    def network(x):
        return tf.nn.relu(layer(tf.nn.conv2d(x, kernel, 1, "SAME"), training=False))

    traced = network.get_concrete_function(tf.TensorSpec((2, 8, 8, 4))).graph.as_graph_def()
    called = [node.op for function in traced.library.function for node in function.node_def]
    assert "IdentityN" in called
    run = operations_run(network, reference.data((2, 8, 8, 4)))
    assert not {"IdentityN", "FusedBatchNormV3", "Relu"} & set(run)
    assert sum("FusedConv2D" in operation for operation in run) == 1


def test_a_graph_that_is_copied_is_differentiated():
    """A gradient of our own would reach for tensors of the graph that was copied."""
    normalized, p = in_a_graph((4, 5, 6, 3), -1)
    x = tf.constant(reference.data((4, 5, 6, 3)))
    whole = tf.compat.v1.wrap_function(
        lambda x: normalized(x, p["beta"], p["gamma"]), [tf.TensorSpec(x.shape)]
    )
    copy = whole.prune(whole.inputs[:1], whole.outputs)
    with tf.GradientTape() as tape:
        tape.watch(x)
        (y,) = copy(x)
    scale, _ = reference.affine(p["mean"], p["variance"], None, p["gamma"], 1e-2)
    np.testing.assert_allclose(tape.gradient(y, x), np.broadcast_to(scale, x.shape), rtol=1e-5)
