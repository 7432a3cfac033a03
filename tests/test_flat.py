"""What XLA compiles: Algorithm 1, its gradient, and the gradient's gradient, on flat tensors."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import reference
import tfbn
from tfbn import flat, functional, kernels, runtime
from tfbn.moments import batch_moments

EPSILON = 1e-2
SHAPES = [
    ((64, 5), -1),
    ((3000, 4), -1),
    ((5, 64), 0),
    ((8, 6, 5), -1),
    ((8, 5, 6), 1),
    ((4, 5, 6, 3), -1),
]
SHAPES += [((4, 3, 5, 6), 1), ((4, 5, 3, 6), 2), ((3, 4, 5, 6), 0), ((2, 3, 4, 5, 3), -1), ((6, 1), -1)]
ROUNDOFF = {"float64": 1e-12, "float32": 1e-5, "float16": 2e-3, "bfloat16": 2e-2}


@pytest.mark.parametrize("known", [True, False])
@pytest.mark.parametrize("dtype", ROUNDOFF)
@pytest.mark.parametrize(("shape", "axis"), SHAPES)
def test_the_batch_and_its_moments_are_the_oracles(shape, axis, dtype, known):
    x = tf.cast(reference.data(shape, axis), dtype)
    sizes = [size if known or number == axis % len(shape) else None for number, size in enumerate(shape)]
    step = tf.function(
        lambda x, beta, gamma: kernels.normalize_batch(x, beta, gamma, EPSILON, axis),
        jit_compile=True,
        input_signature=[tf.TensorSpec(sizes, dtype), *[tf.TensorSpec([None])] * 2],
    )
    wide = tf.cast(x, tf.float64).numpy()
    mean, variance = reference.moments(wide, axis)
    p = {name: value.astype("float32") for name, value in reference.parameters(mean.shape).items()}
    y, moments = step(x, p["beta"], p["gamma"])
    want = reference.apply(wide, mean, variance, p["beta"], p["gamma"], EPSILON, axis=axis)
    np.testing.assert_allclose(
        tf.cast(y, tf.float64), want, rtol=0, atol=ROUNDOFF[dtype] * np.abs(want).max()
    )
    # Statistics are float32 or wider.
    np.testing.assert_allclose(moments.mean, mean, rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(moments.variance, variance, rtol=2e-6)
    assert y.dtype == dtype


def loss(function, x, beta, gamma):
    """Non-linear in the batch, and in its moments."""
    y, (mean, variance, _) = function(x, beta, gamma)
    y = tf.cast(y, mean.dtype)
    return tf.reduce_sum(tf.sin(y)) + tf.reduce_sum(tf.cos(mean)) + tf.reduce_sum(variance**2)


def slopes(function, arguments, order):
    with tf.GradientTape() as outer:
        outer.watch(arguments)
        with tf.GradientTape() as tape:
            tape.watch(arguments)
            value = loss(function, *arguments)
        first = tape.gradient(value, arguments)
        if order == 1:
            return first
        penalty = tf.add_n([tf.reduce_sum(slope**2) for slope in first])
    return outer.gradient(penalty, arguments)


@pytest.mark.parametrize("mode", ["eager", "graph", "jit"])
@pytest.mark.parametrize("order", [1, 2])
@pytest.mark.parametrize(("shape", "axis"), SHAPES)
def test_gradients_are_those_of_the_formulas(shape, axis, order, mode):
    p = reference.parameters((shape[axis],))
    arguments = [
        tf.constant(value, tf.float64) for value in (reference.data(shape, axis), p["beta"], p["gamma"])
    ]

    def formulas(x, beta, gamma):
        moments = batch_moments(x, axis)
        return functional.normalize(x, *moments[:2], beta, gamma, EPSILON, axis), moments

    def ours(*arguments):
        return slopes(lambda *a: flat.normalize_batch(*a, EPSILON, axis), arguments, order)

    if mode != "eager":
        ours = tf.function(ours, jit_compile=mode == "jit")
    for got, want in zip(ours(*arguments), slopes(formulas, arguments, order), strict=True):
        np.testing.assert_allclose(got, want, rtol=0, atol=1e-10 * np.abs(want).max())


@pytest.mark.parametrize("mean", [0.0, 1e3, 1e4])
@pytest.mark.parametrize(
    ("shape", "axis", "tolerance"),
    [
        ((131072, 4), -1, 1e-5),
        ((131071, 4), -1, 1e-5),
        ((32, 64, 64, 8), -1, 1e-5),
        ((1, 360, 360, 4), -1, 1e-5),
        ((32, 8, 64, 64), 1, 1e-5),
        ((4, 131072), 0, 1e-5),
        ((2**22, 2), -1, 1e-4),
        ((2, 1448, 1448, 2), -1, 1e-4),
    ],
)
def test_values_far_from_zero_keep_their_variance(shape, axis, mean, tolerance):
    x = np.random.default_rng(0).normal(mean, 1, shape).astype("float32")
    step = tf.function(lambda x: kernels.normalize_batch(x, None, None, 1e-3, axis), jit_compile=True)
    y, moments = step(x)
    expected = reference.moments(x, axis)
    np.testing.assert_allclose(moments.variance, expected[1], rtol=tolerance)
    np.testing.assert_allclose(moments.mean, expected[0], rtol=1e-6, atol=1e-5)
    # The mean of a tensor far from zero has the digits of float32 alone.
    want = reference.apply(x, *expected, axis=axis)
    np.testing.assert_allclose(y, want, rtol=0, atol=1e-4 + 2e-7 * mean)


def operations(graph):
    """All operations of a graph and of the functions that it calls."""
    definition = graph.as_graph_def()
    return [*definition.node, *(node for part in definition.library.function for node in part.node_def)]


@pytest.mark.parametrize("path", ["plain", "jit", "masked", "renorm", "narrow", "unknown"])
def test_on_a_gpu_nothing_waits_for_a_value_and_no_sum_is_float64(path, monkeypatch):
    monkeypatch.setattr(runtime, "has_gpu", lambda: True)
    layer = (tfbn.BatchRenorm if path == "renorm" else tfbn.BatchNorm)(
        epsilon=1e-6 if path == "narrow" else 1e-3
    )
    layer.build((None, 64, 64, 3))
    mask = tf.ones((64, 64), tf.bool) if path == "masked" else None

    @tf.function(jit_compile=path == "jit", autograph=False)
    def step(x):
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = layer(x, training=True, mask=mask)
        return tape.gradient(y, x)

    batch = None if path == "unknown" else 64
    graph = step.get_concrete_function(tf.TensorSpec((batch, 64, 64, 3))).graph
    found = operations(graph)
    assert not {node.op for node in found} & {"If", "StatelessIf", "Switch", "While", "StatelessWhile"}
    doubles = [node.op for node in found if node.attr["T"].type == tf.float64.as_datatype_enum]
    assert not doubles
    functions = graph.as_graph_def().library.function
    assert not any("_XlaMustCompile" in function.attr for function in functions)
    fused = any(node.op == "FusedBatchNormV3" for node in found)
    assert fused == (path in ("plain", "unknown"))


LARGE = (64, 64, 8)  # of a sample: enough for the functions that are compiled on their own


def compiled_on_their_own(graph):
    return [
        function.signature.name
        for function in graph.as_graph_def().library.function
        if function.attr["_XlaMustCompile"].b
    ]


@pytest.fixture
def no_onednn(monkeypatch):
    """The machine that has the functions for most shapes."""
    monkeypatch.setattr(runtime, "has_onednn", lambda: False)


def training_step(order=1, axis=-1):
    def step(x, beta, gamma):
        normalized = lambda *a: kernels.normalize_batch(*a, EPSILON, axis)  # noqa: E731
        return slopes(normalized, [x, beta, gamma], order)

    return step


@pytest.mark.usefixtures("no_onednn")
@pytest.mark.parametrize(("dtype", "order"), [("float32", 1), ("float32", 2), ("float16", 1)])
@pytest.mark.parametrize("axis", [-1, 1])
def test_large_samples_in_a_plain_graph(axis, dtype, order):
    shape = LARGE if axis == -1 else (8, 64, 64)
    spec = tf.TensorSpec((None, *shape), dtype)
    step = tf.function(training_step(order, axis), input_signature=[spec, *[tf.TensorSpec([8])] * 2])
    graph = step.get_concrete_function().graph
    assert compiled_on_their_own(graph)
    assert "FusedBatchNormV3" not in {operation.type for operation in graph.get_operations()}
    p = {name: value.astype("float32") for name, value in reference.parameters((8,)).items()}
    # 17 and 33 are filled up; nothing and a single sample are batches, too.
    for batch in (32, 17, 33, 1, 0):
        x = tf.cast(reference.data((batch, *shape), axis) if batch else np.zeros((0, *shape)), dtype)
        got = step(x, p["beta"], p["gamma"])
        if batch == 0:
            assert all(np.isfinite(slope).all() for slope in got)
            continue
        wide = [tf.cast(tensor, tf.float64) for tensor in (x, p["beta"], p["gamma"])]

        def formulas(x, beta, gamma):
            moments = batch_moments(x, axis)
            return functional.normalize(x, *moments[:2], beta, gamma, EPSILON, axis), moments

        for slope, want in zip(got, slopes(formulas, wide, order), strict=True):
            tolerance = (1e-4 if dtype == "float32" else 4e-3) * np.abs(want).max()
            np.testing.assert_allclose(tf.cast(slope, tf.float64), want, rtol=0, atol=tolerance)


@pytest.mark.usefixtures("no_onednn")
def test_all_layers_of_one_shape_share_what_is_compiled():
    flat._compiled.cache_clear()
    model = keras.Sequential([keras.Input(LARGE), *(tfbn.BatchNorm() for _ in range(3))])
    model.compile("sgd", "mse")
    x = np.random.default_rng(0).normal(size=(20, *LARGE)).astype("float32")
    model.fit(x, x, batch_size=8, epochs=2, verbose=0)
    for function in flat._compiled(1e-3, 2):
        assert function.experimental_get_tracing_count() == 1


def test_numbers_of_samples_to_compile_for_are_few():
    @tf.function(input_signature=[tf.TensorSpec((None, 1))])
    def filled(x):
        return tf.shape(flat._filled(x)[0])[0]

    batches = np.arange(1, 2049)
    sizes = np.array([int(filled(np.zeros((batch, 1), "float32"))) for batch in batches])
    assert (sizes >= batches).all()
    assert (sizes <= batches * 1.125).all()
    assert len(set(sizes)) <= 8 * 11
    common = [1, 2, 4, 8, 10, 12, 16, 20, 24, 32, 40, 48, 64, 80, 96, 128, 192, 256, 512]
    np.testing.assert_array_equal(sizes[np.array(common) - 1], common)


@pytest.mark.usefixtures("no_onednn")
@pytest.mark.parametrize(
    ("shape", "axis", "dtype"),
    [
        ((None, 8), -1, "float32"),  # too few values
        ((None, 16, 16, 8), -1, "float32"),
        ((None, None, 64, 64), -1, "float32"),  # too many shapes
        ((None, *LARGE), -1, "float64"),
        ((32, 64, 64), 0, "float32"),
        ((None, *LARGE), (1, 3), "float32"),
    ],
)
def test_where_nothing_is_compiled_on_its_own(shape, axis, dtype):
    spec = tf.TensorSpec(shape, dtype)
    step = tf.function(lambda x: kernels.normalize_batch(x, None, None, EPSILON, axis)[0])
    assert not compiled_on_their_own(step.get_concrete_function(spec).graph)


@pytest.mark.usefixtures("no_onednn")
def test_eager_calls_compile_nothing():
    flat._compiled.cache_clear()
    kernels.normalize_batch(tf.zeros((32, *LARGE)), None, None, EPSILON, -1)
    assert flat._compiled.cache_info().currsize == 0


@pytest.mark.parametrize(
    ("onednn", "shape", "axis", "compiled"),
    [
        (False, LARGE, -1, True),
        (True, LARGE, -1, False),  # its kernel is faster
        (True, (112, 112, 8), -1, True),  # but for so many values a channel that its sums are too long
        (True, (8, 64, 64), 1, True),
    ],
)
def test_what_is_compiled_depends_on_onednn(onednn, shape, axis, compiled, monkeypatch):
    monkeypatch.setattr(runtime, "has_onednn", lambda: onednn)
    step = tf.function(lambda x: kernels.normalize_batch(x, None, None, EPSILON, axis)[0])
    graph = step.get_concrete_function(tf.TensorSpec((None, *shape))).graph
    assert bool(compiled_on_their_own(graph)) == compiled


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


@pytest.mark.usefixtures("no_onednn")
@pytest.mark.parametrize("order", [1, 2])
@pytest.mark.parametrize(("jit", "batch"), [(False, 4), (False, None), (True, 4)])
@pytest.mark.parametrize("nested", NESTED)
def test_gradients_inside_branches_and_loops(nested, jit, batch, order):
    ours, theirs = tfbn.BatchNorm(), keras.layers.BatchNormalization(dtype="float64")
    x = reference.data((4, *LARGE), -1)
    ours.build(x.shape)
    theirs.build(x.shape)
    step = slope_norm(ours, NESTED[nested], order)
    spec = tf.TensorSpec((batch, *LARGE))
    step = tf.function(step, jit_compile=jit, input_signature=[spec])
    want = slope_norm(theirs, NESTED[nested], order)(tf.constant(x, tf.float64))
    np.testing.assert_allclose(step(x.astype("float32")), want, rtol=1e-4 if order == 1 else 1e-2)


@pytest.mark.usefixtures("no_onednn")
@pytest.mark.parametrize("jit", [False, True])
def test_forward_over_backward(jit):
    """Hessian times vector, as TensorFlow recommends to compute it."""
    x = reference.data((4, *LARGE), -1)

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


@pytest.mark.parametrize("jit", [False, True])
@pytest.mark.parametrize(("shape", "axis"), [((5,), 0), ((4, 3, 3, 0), -1), ((4, 0, 3, 5), -1)])
def test_axes_that_are_all_or_nothing(shape, axis, jit):
    step = tf.function(lambda x: kernels.normalize_batch(x, None, None, 1e-3, axis), jit_compile=jit)
    y, moments = step(tf.ones(shape))
    np.testing.assert_array_equal(y, np.zeros(shape))
    assert moments.mean.shape == shape[axis]


@pytest.mark.parametrize("shape", [(8, 4), (3, 3, 4)])
def test_as_many_samples_as_only_the_run_of_compiled_code_tells(shape):
    x = reference.data((10, *shape), -1).astype("float32")
    chosen = np.arange(10) % 3 > 0
    layer = tfbn.BatchNorm()

    def step(x, chosen):
        with tf.GradientTape() as tape:
            tape.watch(x)
            loss = tf.reduce_sum(tf.sin(layer(tf.boolean_mask(x, chosen), training=True)))
        return loss, tape.gradient(loss, x)

    want = step(tf.constant(x), chosen)
    for got, expected in zip(tf.function(step, jit_compile=True)(x, chosen), want, strict=True):
        np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("shape", "tolerance", "clusters"),
    [
        ((1, 2048, 2048, 2), 1e-5, False),
        ((1, 362, 362, 8), 1e-6, False),
        ((1, 256, 512, 4), 1e-5, True),
    ],
)
def test_long_sums_of_values_that_are_alike(shape, tolerance, clusters, monkeypatch):
    """They are rounded the same way each time. Where XLA may cluster, on a CPU it may not, too."""
    if clusters:
        monkeypatch.setattr(tf.config.optimizer, "get_jit", lambda: "autoclustering")
    x = np.where(np.random.default_rng(0).random(shape) < 1e-3, 1, 0.1).astype("float32")
    step = tf.function(
        lambda x: kernels.normalize_batch(x, None, None, 1e-3, -1)[1].variance, jit_compile=not clusters
    )
    want = x.astype("float64").var((0, 1, 2))
    np.testing.assert_allclose(step(x), want, rtol=tolerance)
