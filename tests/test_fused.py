"""TensorFlow's kernel: how it is called, and that it keeps its digits."""

import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf

import reference
from far_from_zero import FAR, FAR_MEANS, assert_exact_far_from_zero
from paths import HELPERS
from sweeps import thinned
from tfbn import fused, kernels, runtime

pytestmark = pytest.mark.both
OUTPUT = {"float16": 2e-3, "bfloat16": 2e-2}  # the unit roundoff of the output


def nodes(function, *arguments):
    """Those of a function's graph, of what it calls not."""
    return tf.function(function).get_concrete_function(*arguments).graph.as_graph_def().node


def test_what_the_kernel_does_not_support(monkeypatch):
    x = tf.ones((4, 3))
    assert fused.supports(x, 1e-3, -1)
    assert not fused.supports(tf.cast(x, tf.float64), 1e-3, -1)
    assert not fused.supports(x, 1e-3, (0, 1))
    assert fused.supports(x, 1e-5, -1)
    monkeypatch.setattr(tf.config, "get_visible_devices", lambda kind: [kind])
    assert not fused.supports(x, 1e-5, -1)


@pytest.mark.parametrize("gpu", [False, True])
@pytest.mark.parametrize("shape", [(8, 3, 5, 4), (7, 3, 11), (4, 3, 2, 3, 5)])
def test_channels_second_by_either_way(shape, gpu, monkeypatch):
    """Transposed for the CPU; on a GPU the kernel takes them as they are, and so does this CPU's."""
    monkeypatch.setattr(runtime, "has_gpu", lambda: gpu)
    x = tf.constant(reference.data(shape, 1), tf.float32)
    p = {
        name: tf.constant(parameter, tf.float32)
        for name, parameter in reference.parameters((3,)).items()
    }
    graph = tf.function(
        lambda x: (
            kernels.normalize_batch(x, p["beta"], p["gamma"], 1e-3, 1),
            kernels.normalize_at_inference(x, p["mean"], p["variance"], p["beta"], p["gamma"], 1e-3, 1),
        )
    )
    definition = graph.get_concrete_function(x).graph.as_graph_def()
    called = [node for function in definition.library.function for node in function.node_def]
    nodes = [node for node in (*definition.node, *called) if node.op == "FusedBatchNormV3"]
    layouts = {node.attr["data_format"].s for node in nodes}
    assert layouts == {b"NCHW" if gpu else b"NHWC"}
    (y, (mean, variance, _)), inferred = graph(x)
    wide = x.numpy().astype("float64")
    expected = reference.moments(wide, 1)
    np.testing.assert_allclose(mean, expected[0], rtol=1e-6)
    np.testing.assert_allclose(variance, expected[1], rtol=2e-6)
    for got, moments in ((y, expected), (inferred, (p["mean"].numpy(), p["variance"].numpy()))):
        want = reference.apply(wide, *moments, p["beta"].numpy(), p["gamma"].numpy(), axis=1)
        np.testing.assert_allclose(got, want, rtol=0, atol=1e-5 * np.abs(want).max())


@pytest.mark.parametrize(("mode", "shape", "axis"), thinned(3, ["eager", "unknown", "jit"], FAR))
def test_values_far_from_zero_keep_their_variance(shape, axis, mode):
    noise = np.random.default_rng(0).standard_normal(shape)
    spec = tf.TensorSpec(
        [size if number == axis % len(shape) else None for number, size in enumerate(shape)]
    )
    function = lambda x: kernels.normalize_batch(x, None, None, 1e-3, axis)  # noqa: E731
    if mode != "eager":
        signature = [spec] if mode == "unknown" else None
        function = tf.function(function, jit_compile=mode == "jit", input_signature=signature)
    for mean in FAR_MEANS[:: 3 if mode == "jit" else 1]:
        assert_exact_far_from_zero(function, (noise + mean).astype("float32"), mean, axis)


def test_one_channel_far_from_zero_is_enough():
    x = reference.data((64, 20, 20, 8))
    x[..., 3] += 10100
    moments = kernels.normalize_batch(tf.constant(x), None, None, 1e-3, -1)[1]
    np.testing.assert_allclose(moments.variance, reference.moments(x)[1], rtol=1e-4)


ONE_THREAD = """
import tensorflow as tf
tf.config.threading.set_intra_op_parallelism_threads(1)
import numpy as np, far_from_zero
from tfbn import kernels
for shape, axis in far_from_zero.FAR[:3]:
    noise = np.random.default_rng(0).standard_normal(shape)
    for mean in (30.0, 1001.0, 10100.0):
        far_from_zero.assert_exact_far_from_zero(
            lambda x: kernels.normalize_batch(x, None, None, 1e-3, axis),
            (noise + mean).astype("float32"), mean, axis)
"""


def test_values_far_from_zero_on_one_thread():
    # The kernel gives each thread a part of the values: with one thread the sums are the longest.
    subprocess.run([sys.executable, "-c", ONE_THREAD], check=True, cwd=HELPERS)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_precision_of_unknown_size_keeps_float32_statistics(dtype):
    spec = tf.TensorSpec((None, 2), dtype)
    step = tf.function(
        lambda x: kernels.normalize_batch(x, None, None, 1e-3, -1), input_signature=[spec]
    )
    for mean in (0.3, 100.0):
        x = tf.cast(np.random.default_rng(0).normal(mean, 1, (200_000, 2)), dtype)
        y, moments = step(x)
        wide = tf.cast(x, tf.float64).numpy()
        expected = reference.moments(wide)
        np.testing.assert_allclose(moments.mean, expected[0], rtol=2e-5)
        np.testing.assert_allclose(moments.variance, expected[1], rtol=2e-4)  # the kernel's own sums
        np.testing.assert_allclose(
            tf.cast(y, tf.float64), reference.apply(wide, *expected), rtol=0, atol=2 * OUTPUT[dtype]
        )
    outlier = np.full((20000, 2), 30000, dtype=tf.as_dtype(dtype).as_numpy_dtype)
    outlier[0] = -60000
    assert np.isfinite(step(outlier)[1].variance).all()


@pytest.mark.parametrize("gpu", [False, True])
@pytest.mark.parametrize(("shape", "axis"), [((8, 5, 4, 3), -1), ((8, 3, 5, 4), 1), ((8, 5, 3), -1)])
def test_a_cpu_trains_on_images_of_a_pixel(shape, axis, gpu, monkeypatch):
    """OneDNN takes longer for others. At inference, images stay what they are: they are merged.

    So do those of TensorFlow 1's graphs, where programs look for the kernel's output by its name.
    """
    monkeypatch.setattr(runtime, "has_gpu", lambda: gpu)
    x, ones = tf.constant(reference.data(shape, axis), tf.float32), tf.ones(3)

    def ranks(function):
        """Of the images that the kernel is given: positions of more than a pixel count."""
        graph = tf.function(function).get_concrete_function(x).graph
        inputs = (op.inputs[0] for op in graph.get_operations() if op.type == "FusedBatchNormV3")
        return [[size for size in image.shape[1:] if size not in (1, 3)] for image in inputs]

    positions = [5, 4] if len(shape) == 4 and (axis == -1 or gpu) else []
    trained = ranks(lambda x: fused.normalize_batch(x, ones, ones, 1e-3, axis, False)[0])
    inferred = ranks(lambda x: fused.normalize(x, ones, ones, ones, ones, 1e-3, axis))
    copied = ranks(lambda x: fused.normalize_batch(x, ones, ones, 1e-3, axis, True)[0])
    assert trained == [positions if gpu else []]
    assert copied == [[5, 4] if len(shape) == 4 else []]
    if axis == -1 or gpu:
        assert inferred == [positions]


@pytest.mark.parametrize("samples", [0, 1, 2, 100, 101, 400])
def test_batches_of_any_size(samples):
    """Of 16 values a sample: up to 1600 values of a channel, nobody asks how far from zero they are."""

    @tf.function(input_signature=[tf.TensorSpec((None, 4, 4, 3))])
    def step(x):
        gamma = tf.fill([3], 2.0)
        with tf.GradientTape() as tape:
            tape.watch([x, gamma])
            y, moments = fused.normalize_batch(x, tf.ones(3), gamma, 1e-3, -1, False)
            loss = tf.reduce_sum(tf.sin(y))
        return y, moments, tape.gradient(loss, [x, gamma])

    x = np.random.default_rng(0).normal(300, 0.5, (samples, 4, 4, 3)).astype("float32")
    y, (mean, variance, count), slopes = step(x)
    assert count == samples * 16
    if not samples:
        assert y.shape == x.shape
        assert np.isfinite(slopes[1]).all()
        return
    wide, gamma = tf.constant(x, tf.float64), tf.fill([3], tf.constant(2.0, tf.float64))
    with tf.GradientTape() as tape:
        tape.watch([wide, gamma])
        want, moments = kernels.normalize_batch(wide, tf.ones(3), gamma, 1e-3, -1)
        loss = tf.reduce_sum(tf.sin(want))
    np.testing.assert_allclose(mean, moments.mean, rtol=3e-6)  # the kernel's own sums
    np.testing.assert_allclose(variance, moments.variance, rtol=1e-5)
    np.testing.assert_allclose(y, want, atol=2e-3)
    for slope, expected in zip(slopes, tape.gradient(loss, [wide, gamma]), strict=True):
        np.testing.assert_allclose(slope, expected, atol=2e-3 * np.abs(expected).max())


@pytest.mark.parametrize(("samples", "asked"), [(100, False), (101, True)])
def test_of_what_batches_it_is_asked_how_far_from_zero_they_are(samples, asked, monkeypatch):
    monkeypatch.setattr(fused, "_loses_digits", lambda *_: tf.constant(True))
    fused._centring.cache_clear()
    centre = tf.function(
        lambda x: fused._centre(x, -1), input_signature=[tf.TensorSpec((None, 4, 4, 3))], autograph=False
    )
    x = reference.data((samples, 4, 4, 3)).astype("float32")
    values, kept, *moments = centre(x)
    fused._centring.cache_clear()
    assert kept == (not asked)
    mean, variance = reference.moments(x.astype("float64")) if asked else (np.zeros(3), np.zeros(3))
    np.testing.assert_allclose(moments, [mean, variance], rtol=1e-6)
    np.testing.assert_allclose(values, x - mean, atol=1e-5)


@pytest.mark.parametrize("value", [7.0, np.nan])
def test_a_single_value(value):
    step = tf.function(
        lambda x: fused.normalize_batch(x, None, None, 1e-3, -1, False)[1],
        input_signature=[tf.TensorSpec((None, 2))],
    )
    mean, variance, _ = step([[value, 3.0]])
    np.testing.assert_array_equal(mean, [value, 3])
    np.testing.assert_array_equal(variance, [value - value, 0])


def test_small_batches_are_not_sampled():
    """The question costs ten operations and more: it stands in a branch that few batches take."""
    spec = tf.TensorSpec((None, 7, 7, 3))
    found = nodes(lambda x: fused.normalize_batch(x, None, None, 1e-3, -1, False)[0], spec)
    assert not {"GatherV2", "PartitionedCall", "StatefulPartitionedCall"} & {node.op for node in found}
    branches = {"If", "StatelessIf", "Case", "StatelessCase"}
    assert sum(node.op in branches for node in found) == 1
    known = nodes(
        lambda x: fused.normalize_batch(x, None, None, 1e-3, -1, False)[0], tf.TensorSpec((32, 7, 7, 3))
    )
    assert not {*branches, "PartitionedCall"} & {node.op for node in known}  # 1568 values
