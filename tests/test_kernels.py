"""Fused and plain kernels compute the same, and the fused one is used only where it is right."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import reference
import tfbn
from tfbn import fused, kernels, room, runtime
from tfbn.moments import batch_moments

pytestmark = pytest.mark.both
SHAPES = [((64, 5), -1), ((8, 6, 5), -1), ((8, 5, 6), 1), ((4, 5, 6, 3), -1), ((4, 3, 5, 6), 1)]
SHAPES += [((4, 5, 3, 6), 2), ((2, 3, 4, 5, 3), -1), ((2, 3, 4, 5, 3), 1), ((6, 1), -1), ((3, 8), 0)]
OUTPUT = {"float32": 1e-5, "float16": 2e-3, "bfloat16": 2e-2}  # the unit roundoff of the output


def graph_operations(function, *arguments):
    """The types of all operations of a function's graph, and of what it calls."""
    graph = tf.function(function).get_concrete_function(*arguments).graph.as_graph_def()
    nodes = [*graph.node, *(node for called in graph.library.function for node in called.node_def)]
    return {node.op for node in nodes}


@pytest.mark.parametrize("dtype", OUTPUT)
@pytest.mark.parametrize(("shape", "axis"), SHAPES)
def test_fused_training_equals_the_oracle(shape, axis, dtype):
    x = tf.cast(reference.data(shape, axis), dtype)
    assert fused.supports(x, 1e-3, axis)
    wide = tf.cast(x, tf.float64).numpy()
    mean, variance = reference.moments(wide, axis)
    p = reference.parameters(mean.shape)
    for beta, gamma in ((p["beta"], p["gamma"]), (None, None)):
        y, moments = kernels.normalize_batch(x, beta, gamma, 1e-3, axis)
        assert y.dtype == dtype
        assert y.shape == x.shape
        want = reference.apply(wide, mean, variance, beta, gamma, axis=axis)
        tolerance = OUTPUT[dtype] * np.abs(want).max()
        np.testing.assert_allclose(tf.cast(y, tf.float64), want, rtol=0, atol=tolerance)
        np.testing.assert_allclose(moments.mean, mean, rtol=1e-6, atol=1e-6)
        np.testing.assert_allclose(moments.variance, variance, rtol=2e-6)
        assert float(moments.count) == x.shape.num_elements() / mean.size


@pytest.mark.parametrize("dtype", OUTPUT)
@pytest.mark.parametrize(("shape", "axis"), SHAPES)
def test_fused_inference_equals_the_oracle(shape, axis, dtype):
    x = tf.cast(reference.data(shape, axis), dtype)
    p = reference.parameters((shape[axis],))
    arguments = (p["mean"], p["variance"], p["beta"], p["gamma"], 1e-2, axis)
    want = reference.apply(tf.cast(x, tf.float64).numpy(), *arguments)
    got = tf.cast(kernels.normalize_at_inference(x, *arguments), tf.float64)
    np.testing.assert_allclose(got, want, rtol=0, atol=OUTPUT[dtype] * np.abs(want).max())


@pytest.mark.parametrize(
    ("onednn", "shape", "expected"),
    [
        # Few channels, whatever the machine has, unless the batch is small.
        *((onednn, (None, 65, 64, 1), "CompiledUnlessSmall") for onednn in (False, True)),
        *((onednn, (None, 257, 16), "CompiledUnlessSmall") for onednn in (False, True)),
        *((onednn, (None, 32, 32, 3), "CompiledUnlessTiny") for onednn in (False, True)),
        *((onednn, (8, 64, 16), "Plain") for onednn in (False, True)),
        *((onednn, (128, 64, 16), "Compiled") for onednn in (False, True)),
        *((onednn, (None, 16), "Plain") for onednn in (False, True)),
        # Of small samples, batches are taken to be small.
        *((onednn, (None, 64, 64, 1), "Plain") for onednn in (False, True)),
        *((onednn, (None, 8, 8, 64), "Plain") for onednn in (False, True)),
        *((onednn, (None, 512), "Plain") for onednn in (False, True)),
        *((onednn, (None, 513), "CompiledIfLarge") for onednn in (False, True)),
        *((onednn, (None, 13, 13, 3), "Plain") for onednn in (False, True)),
        *((onednn, (None, 14, 14, 3), "CompiledUnlessTiny") for onednn in (False, True)),
        *((onednn, (None, 1, 1, 1024), "CompiledIfLarge") for onednn in (False, True)),
        *((onednn, (None, 96, 96, 1), "CompiledUnlessSmall") for onednn in (False, True)),
        *((onednn, (1, 96, 96, 1), "Plain") for onednn in (False, True)),
        *((onednn, (16, 32, 32, 3), "Compiled") for onednn in (False, True)),
        *((onednn, (10, 32, 32, 3), "Plain") for onednn in (False, True)),
        *((onednn, (20_000, 3), "Plain") for onednn in (False, True)),
        *((onednn, (None, 224, 224, 3), "Compiled") for onednn in (False, True)),
        (True, (None, 96, 96, 20), "Compiled"),
        # More channels: the size of the batch decides.
        *((onednn, (None, 50, 768), "FusedIfLarge") for onednn in (False, True)),
        *((onednn, (None, 7, 7, 768), "FusedIfLarge") for onednn in (False, True)),
        (True, (None, 90, 768), "CalledIfLarge"),
        (True, (None, 14, 14, 512), "CalledIfLarge"),
        (True, (16, 14, 14, 512), "Fused"),
        (True, (20_000, 8, 64), None),
        (True, (256, 1024), "Fused"),
        (False, (256, 1024), "Compiled"),
        (False, (255, 1024), "Fused"),
        (False, (64, 8, 8, 64), "Compiled"),
        (False, (None, 16, 16, 32), "CompiledIfLarge"),
        (True, (None, 16, 16, 32), "FusedIfLarge"),
        (False, (None, 8, 8, 80), "CompiledIfLarge"),
        (True, (None, 8, 8, 80), "FusedIfLarge"),
        # Large samples and planes.
        (False, (None, 90, 768), "Compiled"),
        (False, (None, 16, 16, 64), "CompiledIfLarge"),
        (False, (None, 20, 20, 64), "CompiledUnlessSmall"),
        (False, (None, 24, 24, 24), "CompiledUnlessSmall"),
        (False, (4, 16, 16, 64), "Plain"),
        (False, (15, 16, 16, 64), "Plain"),
        (False, (32, 16, 16, 64), "Compiled"),
        (True, (None, 24, 24, 24), "FusedIfLarge"),
    ],
)
def test_what_decides(onednn, shape, expected, monkeypatch):
    monkeypatch.setattr(runtime, "has_onednn", lambda: onednn)
    assert kinds_of(shape) == [expected]


def kinds_of(*shapes):
    """By what each is computed in a graph that has all of them."""
    kinds = []

    @tf.function(input_signature=[tf.TensorSpec(shape) for shape in shapes], autograph=False)
    def step(*tensors):
        kinds.extend(kernels._kind_of(x, 1e-3, -1) for x in tensors)

    step.get_concrete_function()
    return [getattr(kind, "__name__", None) for kind in kinds]


def test_small_samples_find_half_of_the_room(monkeypatch):
    """Beside large ones. Where there is none left, the size of batches is asked for."""
    monkeypatch.setattr(runtime, "has_onednn", lambda: False)
    small = [(None, positions, 700) for positions in (100, 110, 120, 130)]
    large, smallest = (None, 200, 700), (None, 8, 8, 64)
    expected = ["Compiled"] * 3 + ["CalledIfLarge", "Compiled", "CalledIfLarge"]
    assert kinds_of(*small, large, smallest) == expected
    assert kinds_of(large, smallest) == ["Compiled", "Plain"]


@pytest.mark.parametrize("shape", [(5, 32, 32, 16), (15, 16, 16, 64)])
def test_what_is_known_to_be_small_takes_no_room(shape, monkeypatch):
    monkeypatch.setattr(runtime, "has_onednn", lambda: False)
    monkeypatch.setattr(room, "ROOM", 1)
    assert kinds_of(shape, (None, 200, 700), shape) == ["Plain", "Compiled", "Plain"]


def gradients(function, x, beta, gamma, order):
    """First or second gradients of a non-linear loss in x, beta and gamma."""
    variables = [tf.cast(tensor, x.dtype) for tensor in (x, beta, gamma)]
    with tf.GradientTape() as outer:
        outer.watch(variables)
        with tf.GradientTape() as tape:
            tape.watch(variables)
            loss = tf.reduce_sum(tf.sin(function(*variables)))
        first = tape.gradient(loss, variables)
        penalty = tf.add_n([tf.reduce_sum(gradient**2) for gradient in first])
    return first if order == 1 else outer.gradient(penalty, variables)


@pytest.mark.parametrize("order", [1, 2])
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize(("shape", "axis"), SHAPES[:7])
def test_fused_gradients_equal_those_of_the_formulas_in_float64(shape, axis, training, order):
    x = reference.data(shape, axis)
    p = reference.parameters((shape[axis],))

    def normalized(x, beta, gamma):
        if training:
            return kernels.normalize_batch(x, beta, gamma, 1e-2, axis)[0]
        return kernels.normalize_at_inference(x, p["mean"], p["variance"], beta, gamma, 1e-2, axis)

    got = gradients(normalized, tf.constant(x), p["beta"], p["gamma"], order)
    want = gradients(normalized, tf.constant(x, tf.float64), p["beta"], p["gamma"], order)
    for tensor, expected in zip(got, want, strict=True):
        # Sums of hundreds of float32 terms, twice over in the second gradient.
        tolerance = 1e-4 * np.abs(expected).max()
        np.testing.assert_allclose(tensor, expected, rtol=0, atol=tolerance)


def test_fit_uses_the_fused_kernel_and_jit_does_not():
    layer = tfbn.BatchNorm()
    layer.build((None, 8000))
    x = tf.ones((16, 8000))  # of fewer values it would be slower
    assert "FusedBatchNormV3" in graph_operations(lambda x: layer(x, training=True), x)
    compiled = tf.function(lambda x: layer(x, training=True), jit_compile=True)
    operations = compiled.get_concrete_function(x).graph.get_operations()
    assert not any("Fused" in operation.type for operation in operations)


@pytest.mark.parametrize(
    ("sample", "dtype", "gpu", "fused"),
    [
        ((8,), "float32", False, False),
        ((9, 8), "float32", False, False),
        ((9, 8), "bfloat16", False, True),
        ((8,), "float32", True, True),
        ((6, 6, 8), "float32", False, True),
    ],
)
@pytest.mark.parametrize("frozen", [False, True])
def test_inference_uses_the_kernel_where_tensorflow_merges_it(
    sample, dtype, gpu, fused, frozen, monkeypatch
):
    """Vectors and sequences it takes longer than the formulas."""
    monkeypatch.setattr(runtime, "has_gpu", lambda: gpu)
    layer = tfbn.BatchNorm(
        trainable=not frozen, dtype="float32" if dtype == "float32" else f"mixed_{dtype}"
    )
    layer.build((None, *sample))
    x = tf.ones((16, *sample), dtype)
    assert ("FusedBatchNormV3" in graph_operations(lambda x: layer(x, training=frozen), x)) == fused


@pytest.mark.parametrize("shape", [(0, 3), (1, 3), (0, 4, 4, 3), (1, 1, 1, 3)])
@pytest.mark.parametrize("jit", [False, True])
def test_empty_batches_and_single_values(shape, jit):
    layer = tfbn.BatchNorm(decay=0.5, unbiased=True)
    layer.build((None, *shape[1:]))

    @tf.function(jit_compile=jit)
    def step(x):
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = layer(x, training=True)
        return y, tape.gradient(y, [x, *(v.value for v in layer.trainable_variables)])

    x = np.full(shape, 7, "float32")
    y, slopes = step(tf.constant(x))
    np.testing.assert_array_equal(y, np.zeros(shape))
    assert all(np.isfinite(slope).all() for slope in slopes)
    count = int(np.prod(shape[:-1]))
    np.testing.assert_array_equal(layer.moving_mean, [3.5 if count else 0.0] * 3)
    np.testing.assert_array_equal(layer.moving_variance, [0.5 if count else 1.0] * 3)


def test_unknown_sizes():
    spec = tf.TensorSpec((None, None, 3), tf.float32)
    traced = tf.function(
        lambda x: kernels.normalize_batch(x, None, None, 1e-3, -1), input_signature=[spec]
    )
    x = reference.data((5, 6, 3))
    y, moments = traced(x)
    np.testing.assert_allclose(y, reference.apply(x, *reference.moments(x)), rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(moments.variance, batch_moments(x).variance, rtol=1e-6)
    assert traced.get_concrete_function().outputs[0].shape.as_list() == [None, None, 3]


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("shape", [(64, 5), (4, 5, 6, 3), (4, 30, 30, 80)])
def test_the_slope_of_a_loss_for_any_shape(shape, training):
    layer = tfbn.BatchNorm()
    layer.build((None, *shape[1:]))

    def slopes(spec):
        @tf.function(input_signature=[spec])
        def loss(y):
            return tf.reduce_sum(tf.sin(y))

        @tf.function
        def gradient(x):
            with tf.GradientTape() as tape:
                tape.watch(x)
                y = loss(layer(x, training=training))
            return tape.gradient(y, [x, layer.gamma.value, layer.beta.value])

        return gradient(tf.constant(reference.data(shape)))

    for got, want in zip(slopes(tf.TensorSpec(None)), slopes(tf.TensorSpec(shape)), strict=True):
        np.testing.assert_array_equal(got, want)


def test_mixed_precision_trains_by_the_fused_kernel():
    keras.config.set_dtype_policy("mixed_bfloat16")
    layer = tfbn.BatchNorm()
    layer.build((None, 8000))
    x = tf.ones((16, 8000), tf.bfloat16)
    operations = graph_operations(lambda x: layer(x, training=True), x)
    assert "FusedBatchNormV3" in operations


MANY = [((200704, 1), -1, 1e4), ((8, 224, 224, 3), -1, 1e3), ((16, 112, 112, 8), -1, 1e4)]


@pytest.mark.parametrize("jit", [False, True])
@pytest.mark.parametrize(("shape", "axis", "mean"), [*MANY, ((2**22, 4), -1, 1e4)])
def test_very_many_values_are_summed_by_the_formulas(shape, axis, mean, jit):
    x = np.random.default_rng(0).normal(mean, 1, shape).astype("float32")
    step = tf.function(lambda x: kernels.normalize_batch(x, None, None, 1e-3, axis)[1], jit_compile=jit)
    moments = step(tf.constant(x))
    expected = reference.moments(x, axis)
    np.testing.assert_allclose(moments.mean, expected[0], rtol=2e-7)  # float32 can say no better
    np.testing.assert_allclose(moments.variance, expected[1], rtol=2e-5)  # (mean's rounding)² / 1
    assert "FusedBatchNormV3" not in graph_operations(step, tf.constant(x))


@pytest.mark.parametrize(
    ("shape", "axis", "mean"), [*MANY, ((400_000, 2), -1, 1e4), ((2, 300_000), 0, 1e4)]
)
def test_very_many_values_in_a_batch_of_unknown_size(shape, axis, mean):
    x = tf.constant(np.random.default_rng(0).normal(mean, 1, shape), tf.float32)
    sizes = [size if number == axis % len(shape) else None for number, size in enumerate(shape)]

    @tf.function(input_signature=[tf.TensorSpec(sizes)])
    def step(x):
        with tf.GradientTape() as tape:
            tape.watch(x)
            y, moments = kernels.normalize_batch(x, None, None, 1e-3, axis)
            loss = tf.reduce_sum(tf.sin(y))
        return y, moments, tape.gradient(loss, x)

    y, moments, slope = step(x)
    wide = tf.cast(x, tf.float64)
    expected = reference.moments(wide, axis)
    np.testing.assert_allclose(moments.mean, expected[0], rtol=1e-6)
    np.testing.assert_allclose(moments.variance, expected[1], rtol=1e-5)
    want = reference.apply(wide, *expected, axis=axis)
    np.testing.assert_allclose(y, want, rtol=0, atol=2e-3 * np.abs(want).max())
    with tf.GradientTape() as tape:
        tape.watch(wide)
        y, _ = kernels.normalize_batch(wide, None, None, 1e-3, axis)
        loss = tf.reduce_sum(tf.sin(y))
    want = tape.gradient(loss, wide)
    np.testing.assert_allclose(slope, want, rtol=0, atol=2e-3 * np.abs(want).max())


@pytest.mark.parametrize("decay", [0.99, 0.25])
@pytest.mark.parametrize("axis", [-1, 1])
def test_a_batch_that_turns_out_to_be_empty(axis, decay):
    layer, shape = tfbn.BatchNorm(axis=axis, decay=decay), (None, 14, 14, 96)
    layer.build(shape)

    @tf.function(input_signature=[tf.TensorSpec(shape)])
    def step(x):
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = layer(x, training=True)
        return y, tape.gradient(y, [x, *(v.value for v in layer.trainable_variables)])

    y, slopes = step(np.zeros((0, *shape[1:]), "float32"))
    assert y.shape == (0, *shape[1:])
    assert all(np.isfinite(slope).all() for slope in slopes)
    weights = zip(layer.get_weights(), (1, 0, 0, 1), strict=True)  # gamma, beta, mean, variance
    assert all((weight == initial).all() for weight, initial in weights)


@pytest.mark.parametrize("batch", [0, None])
def test_second_gradients_of_an_empty_batch_are_finite(batch):
    x, ones = np.zeros((0, 3), "float32"), tf.ones(3)

    @tf.function(input_signature=[tf.TensorSpec((batch, 3))])
    def seconds(x):
        def normalized(x, beta, gamma):
            return kernels.normalize_batch(x, beta, gamma, 1e-3, -1)[0]

        return gradients(normalized, x, ones, ones, order=2)

    assert all(np.isfinite(slope).all() for slope in seconds(tf.constant(x)))


def test_a_function_traced_outside_xla_never_stores_a_negative_variance():
    """XLA's own expansion of the kernel then computes E[x²] − E[x]²; nothing can tell it not to."""
    x = np.random.default_rng(0).normal(1e5, 1, (64, 8)).astype("float32")
    inner = tf.function(lambda x: kernels.normalize_batch(x, None, None, 1e-3, -1)[1])
    inner(tf.constant(x))
    moments = tf.function(inner, jit_compile=True)(tf.constant(x))
    assert (moments.variance.numpy() >= 0).all()


def test_nan_alone_reaches_the_moving_variance():
    layer = tfbn.BatchNorm(decay=0.5)
    layer(np.array([[np.nan, 1]], "float32"), training=True)
    np.testing.assert_array_equal(layer.moving_variance, [np.nan, 0.5])


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_moving_statistics_are_constants_at_inference(dtype):
    layer = tfbn.BatchNorm(dtype=dtype)
    layer.build((None, 3))
    with tf.GradientTape() as tape:
        tape.watch(layer.moving_mean.value)
        y = tf.reduce_sum(layer(tf.ones((4, 3), dtype)) ** 2)
    assert tape.gradient(y, layer.moving_mean.value) is None
