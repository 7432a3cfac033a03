"""Few values in few operations, which keep their digits."""

import numpy as np
import pytest
import tensorflow as tf

import reference
from tfbn import kernels

pytestmark = pytest.mark.both
EPSILON = 1e-2


def in_a_graph_for_any_batch(x):
    """The normalised batch, its moments and its slopes, and the graph's operations."""
    spec = tf.TensorSpec((None, *x.shape[1:]), x.dtype)

    @tf.function(input_signature=[spec])
    def step(x):
        with tf.GradientTape() as tape:
            tape.watch(x)
            y, moments = kernels.normalize_batch(x, None, None, EPSILON, -1)
            value = tf.reduce_sum(tf.sin(tf.cast(y, tf.float32)))
        return y, moments, tape.gradient(value, x)

    return step(x), {operation.type for operation in step.get_concrete_function().graph.get_operations()}


@pytest.mark.parametrize("mean", [0.0, 1e4])
@pytest.mark.parametrize("shape", [(8, 16), (1024, 3), (1025, 3), (131072, 4), (3, 4, 4, 8)])
def test_small_samples_take_few_operations_and_keep_their_variance(shape, mean):
    x = np.random.default_rng(0).normal(mean, 1, shape).astype("float32")
    (y, moments, slope), operations = in_a_graph_for_any_batch(tf.constant(x))
    assert "FusedBatchNormV3" not in operations
    expected = reference.moments(x, -1)
    np.testing.assert_allclose(moments.variance, expected[1], rtol=1e-5)
    np.testing.assert_allclose(moments.mean, expected[0], rtol=1e-6, atol=1e-5)
    want = reference.apply(x, *expected, epsilon=EPSILON)
    np.testing.assert_allclose(y, want, rtol=0, atol=1e-4 + 2e-7 * mean)
    dy, count = np.cos(want), x.size // shape[-1]
    wide, axes = want * np.sqrt(1 + EPSILON / expected[1]), tuple(range(len(shape) - 1))
    along = (dy * wide).sum(axes) * expected[1] / (expected[1] + EPSILON)
    dx = (dy - dy.sum(axes) / count - wide * along / count) / np.sqrt(expected[1] + EPSILON)
    np.testing.assert_allclose(slope, dx, rtol=0, atol=1e-4 + 4e-7 * mean)


def test_small_samples_ask_once_whether_they_are_few():
    @tf.function(input_signature=[tf.TensorSpec((None, 64))])
    def forward(x):
        return kernels.normalize_batch(x, None, None, EPSILON, -1)[0]

    definition = forward.get_concrete_function().graph.as_graph_def()
    inside = (node for function in definition.library.function for node in function.node_def)
    operations = [node.op for node in (*definition.node, *inside)]
    questions = [each for each in operations if each.endswith(("Case", "If"))]
    assert questions == ["StatelessCase"]


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
@pytest.mark.parametrize("shape", [(0, 16), (1, 16), (0, 4, 4, 8), (1, 4, 4, 8)])
def test_no_sample_and_a_single_one_are_small_batches_too(shape, dtype):
    (y, moments, slope), _ = in_a_graph_for_any_batch(tf.ones(shape, dtype))
    assert (y.shape, y.dtype, slope.dtype) == (shape, dtype, dtype)
    assert not tf.cast(y, tf.float32).numpy().any()
    assert not tf.cast(slope, tf.float32).numpy().any()
    np.testing.assert_array_equal(moments.mean, float(bool(shape[0])) * np.ones(shape[-1]))
    np.testing.assert_array_equal(moments.variance, np.zeros(shape[-1]))
