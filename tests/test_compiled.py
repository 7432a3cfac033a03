"""What XLA compiles on its own, inside graphs that it does not compile."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import reference
import tfbn
from slopes import slopes
from sweeps import thinned
from tfbn import compiled, functional, kernels, room, runtime, traced_once
from tfbn.moments import batch_moments

EPSILON = 1e-2
LARGE = (64, 64, 8)  # of a sample: enough for the functions that are compiled on their own


def compiled_on_their_own(graph):
    return [
        function.signature.name
        for function in graph.as_graph_def().library.function
        if function.attr["_XlaMustCompile"].b
    ]


def forget():
    compiled._functions.cache_clear()
    traced_once._functions.cache_clear()


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
@pytest.mark.parametrize(
    ("dtype", "order", "axis"), thinned(2, [("float32", 1), ("float32", 2), ("float16", 1)], [-1, 1])
)
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
    forget()
    model = keras.Sequential([keras.Input(LARGE), *(tfbn.BatchNorm() for _ in range(3))])
    model.compile("sgd", "mse")
    x = np.random.default_rng(0).normal(size=(20, *LARGE)).astype("float32")
    model.fit(x, x, batch_size=8, epochs=2, verbose=0)
    for function in compiled._functions(1e-3, 2):
        assert function.experimental_get_tracing_count() == 1


@pytest.mark.usefixtures("no_onednn")
def test_a_graph_compiles_the_first_shapes(monkeypatch):
    """Each takes a while, before the first step. One that comes again is no other."""
    monkeypatch.setattr(room, "ROOM", 3)
    forget()
    for rows in ((80, 72, 80, 64, 72), (64, 72, 64, 80)):  # another graph has room of its own
        inner = tf.function(lambda x: kernels.normalize_batch(x, None, None, EPSILON, -1)[0])

        def network(x, rows=rows, inner=inner):
            return [inner(x[:, :number]) for number in rows]

        step = tf.function(network, input_signature=[tf.TensorSpec((None, 80, 64, 8))])
        functions = step.get_concrete_function().graph.as_graph_def().library.function
        positions = {
            function.arg_attr[0].attr["_output_shapes"].list.shape[0].dim[1].size
            for function in functions
            if function.attr["_XlaMustCompile"].b
        }
        assert positions == {number * 64 for number in rows[:2]}
        x = reference.data((6, 80, 64, 8)).astype("float32")
        for got, number in zip(step(x), rows, strict=True):
            part = tf.constant(x[:, :number], tf.float64)
            mean, variance, _ = batch_moments(part)
            want = functional.normalize(part, mean, variance, None, None, EPSILON)
            np.testing.assert_allclose(got, want, rtol=0, atol=1e-4)  # some by the kernel


def test_a_shape_is_what_is_compiled_once():
    """Shapes whose flat tensors are alike are one; types, numbers of samples and epsilons are not."""
    found = []

    @tf.function(autograph=False)
    def build():
        for shape, dtype, epsilon, channel in (
            ((None, 80, 64, 8), "float32", 1e-3, 3),
            ((None, 64, 80, 8), "float32", 1e-3, 3),
            ((None, 64, 64, 8), "float32", 1e-3, 3),
            ((None, 80, 64, 8), "float16", 1e-3, 3),
            ((None, 80, 64, 8), "float32", 1e-2, 3),
            ((16, 80, 64, 8), "float32", 1e-3, 3),
            ((None, 8, 80, 64), "float32", 1e-3, 1),
        ):
            x = tf.compat.v1.placeholder(dtype, shape)
            found.append(compiled.shape_of(x, epsilon, channel))

    build.get_concrete_function()
    assert found[0] == found[1]
    assert len(set(found)) == len(found) - 1


def test_numbers_of_samples_to_compile_for_are_few():
    @tf.function(input_signature=[tf.TensorSpec((None, 1))])
    def filled(x):
        return tf.shape(compiled._filled(x, compiled._missing(x)))[0]

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
        ((64, 300), -1, "float32"),
        ((None, 14, 14, 48), -1, "float32"),
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
    forget()
    kernels.normalize_batch(tf.zeros((32, *LARGE)), None, None, EPSILON, -1)
    assert compiled._functions.cache_info().currsize == 0


@pytest.mark.parametrize(
    ("onednn", "shape", "axis", "expected"),
    [
        (False, LARGE, -1, True),
        (False, (16, 16, 64), -1, True),
        (False, (14, 14, 48), -1, False),  # too little is gained
        (False, (14, 14, 96), -1, False),  # there may be too many such shapes
        (True, (64, 64, 24), -1, False),  # its kernel is faster
        (True, (112, 112, 24), -1, True),  # but for so many values a channel that its sums are too long
        (True, (8, 64, 64), 1, True),
    ],
)
def test_what_is_compiled_depends_on_onednn(onednn, shape, axis, expected, monkeypatch):
    monkeypatch.setattr(runtime, "has_onednn", lambda: onednn)
    step = tf.function(lambda x: kernels.normalize_batch(x, None, None, EPSILON, axis)[0])
    graph = step.get_concrete_function(tf.TensorSpec((None, *shape))).graph
    assert bool(compiled_on_their_own(graph)) == expected
