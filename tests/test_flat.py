"""Algorithm 1, its gradient, and the gradient's gradient, on flat tensors."""

import numpy as np
import pytest
import tensorflow as tf

import reference
import tfbn
from slopes import slopes
from sweeps import thinned
from tfbn import flat, functional, kernels, plain, runtime
from tfbn.axes import known_shape
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


@pytest.mark.parametrize(
    ("shape", "axis", "dtype", "known"), thinned(4, SHAPES, ROUNDOFF, [True, False])
)
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


KINDS = [
    (flat.Flat, "eager"),
    (flat.Flat, "graph"),
    (flat.Flat, "jit"),
    (plain.Plain, "eager"),
    (plain.Plain, "graph"),
]


@pytest.mark.parametrize(("shape", "axis", "order", "kind", "mode"), thinned(4, SHAPES, [1, 2], KINDS))
def test_gradients_are_those_of_the_formulas(shape, axis, order, kind, mode):
    p = reference.parameters((shape[axis],))
    arguments = [
        tf.constant(value, tf.float64) for value in (reference.data(shape, axis), p["beta"], p["gamma"])
    ]

    def formulas(x, beta, gamma):
        moments = batch_moments(x, axis)
        return functional.normalize(x, *moments[:2], beta, gamma, EPSILON, axis), moments

    def ours(*arguments):
        return slopes(lambda *a: flat.normalize_batch(*a, EPSILON, axis, kind), arguments, order)

    if mode != "eager":
        ours = tf.function(ours, jit_compile=mode == "jit")
    for got, want in zip(ours(*arguments), slopes(formulas, arguments, order), strict=True):
        np.testing.assert_allclose(got, want, rtol=0, atol=1e-10 * np.abs(want).max())


FAR = [
    ((131072, 4), -1, 1e-5),
    ((131071, 4), -1, 1e-5),
    ((32, 64, 64, 8), -1, 1e-5),
    ((1, 360, 360, 4), -1, 1e-5),
    ((32, 8, 64, 64), 1, 1e-5),
    ((4, 131072), 0, 1e-5),
    ((2**22, 2), -1, 1e-4),
    ((2, 1448, 1448, 2), -1, 1e-4),
]


@pytest.mark.parametrize(("mean", "shape", "axis", "tolerance"), thinned(2, [1e4, 1e3], FAR))
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


@pytest.mark.parametrize("first", [0.0, 1e5])
@pytest.mark.parametrize(
    ("shape", "axis"), [((131072, 4), -1), ((32, 64, 64, 8), -1), ((32, 8, 64, 64), 1)]
)
def test_first_values_that_are_unlike_the_others_cost_few_digits(shape, axis, first):
    x = np.random.default_rng(0).normal(1e4, 1, shape).astype("float32")
    part = [slice(1)] * x.ndim
    part[axis] = slice(None)
    x[tuple(part)] = first
    step = tf.function(lambda x: kernels.normalize_batch(x, None, None, 1e-3, axis), jit_compile=True)
    _, moments = step(x)
    expected = reference.moments(x, axis)
    np.testing.assert_allclose(moments.variance, expected[1], rtol=1e-5)
    np.testing.assert_allclose(moments.mean, expected[0], rtol=1e-6)


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


told = []


class Telling(flat.Flat):
    """Records whether the slopes of the moments are told to be zeros."""

    def backward(self, x, gamma, dy, *upstream_and_known, share=None):
        told.append(upstream_and_known[:2] == (None, None))
        return super().backward(x, gamma, dy, *upstream_and_known, share=share)


@pytest.mark.parametrize("of_moments", ["nothing", "themselves", "squares"])
@pytest.mark.parametrize("called", ["at once", "in a function"])
def test_slopes_of_moments_that_no_loss_is_made_of_are_known_to_be_zeros(called, of_moments):
    """Known before the batch are those of the moments themselves, too: all are 1."""

    def losses_of(y, variance):
        others = {"nothing": [], "themselves": [variance], "squares": [tf.reduce_sum(variance**2)]}
        return [tf.reduce_sum(y**3), *others[of_moments]]

    def losses(x):
        y, moments = flat.normalize_batch(x, None, None, EPSILON, -1, Telling)
        return losses_of(y, moments.variance)

    @tf.function(input_signature=[tf.TensorSpec((None, 5))])
    def slope(x):
        with tf.GradientTape() as tape:
            tape.watch(x)
            values = (tf.function(losses) if called == "in a function" else losses)(x)
        return tape.gradient(values, x)

    told.clear()
    x = reference.data((7, 5))
    got = slope(x.astype("float32"))
    assert {*told} == {of_moments == "nothing"}
    with tf.GradientTape() as tape:
        tape.watch(wide := tf.constant(x))
        mean, variance, _ = batch_moments(wide)
        values = losses_of(functional.normalize(wide, mean, variance, None, None, EPSILON), variance)
    want = tape.gradient(values, wide)
    np.testing.assert_allclose(got, want, rtol=0, atol=1e-5 * np.abs(want).max())


def test_a_known_shape_has_at_most_one_size_to_find_out():
    """Of no values `tf.reshape` cannot tell how long an axis is."""
    for sizes, shape in (([2, 3], [2, 3]), ([None, 3], [-1, 3]), ([0, 3], [0, 3])):
        assert known_shape(sizes) == shape
    assert known_shape([None, None, 3]) is None
    assert known_shape([None, 0]) is None
