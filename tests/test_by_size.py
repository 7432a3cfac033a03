"""Batches whose size shows when they are there: by what they are computed, and that it is right."""

from itertools import product

import numpy as np
import pytest
import tensorflow as tf

import reference
import tfbn
from slopes import slopes
from sweeps import some
from tfbn import by_size, called, compiled, functional, kernels, room, runtime, traced_once
from tfbn.moments import batch_moments

EPSILON = 1e-2
LARGE = 10_000  # values, in these tests
KINDS = {
    "compiled": by_size.CompiledIfLarge,
    "fused": by_size.FusedIfLarge,
    "called": by_size.CalledIfLarge,
}


def forget():
    compiled._functions.cache_clear()
    traced_once._functions.cache_clear()
    called._forward.cache_clear()
    called._backward.cache_clear()


@pytest.fixture(params=KINDS)
def kind(request, monkeypatch):
    """What computes large batches of small samples; the shape, and what the machine has, decide."""
    found = KINDS[request.param]
    monkeypatch.setattr(kernels, "CompiledIfLarge", found)
    monkeypatch.setattr(runtime, "has_onednn", lambda: request.param != "compiled")
    with_values = by_size.FusedIfLarge if request.param == "called" else found
    monkeypatch.setattr(with_values, "LEAST_VALUES", LARGE)
    monkeypatch.setattr(kernels, "CompiledUnlessTiny", with_values)  # of few channels
    monkeypatch.setattr(kernels, "MOST_OF_SMALL_IMAGE", 0)
    monkeypatch.setattr(kernels, "MOST_OF_SMALL_VECTOR", 0)
    if request.param == "called":
        monkeypatch.setattr(room, "ROOM", 0)
    forget()
    yield found
    forget()


def normalized(x, beta, gamma):
    return kernels.normalize_batch(x, beta, gamma, EPSILON, -1)


def formulas(x, beta, gamma):
    moments = batch_moments(x)
    return functional.normalize(x, *moments[:2], beta, gamma, EPSILON), moments


def all_operations(graph):
    """The types of a graph's operations and of those of its functions."""
    definition = graph.as_graph_def()
    nodes = [*definition.node, *(n for f in definition.library.function for n in f.node_def)]
    return {node.op for node in nodes}


@pytest.mark.parametrize(
    "case",
    some(
        [
            (shape, *rest)
            for shape in [(300,), (3, 5, 20)]
            for rest in [("float32", 1), ("float32", 2), ("float16", 1)]
        ],
        [((300,), "float32", 2), ((300,), "float16", 1), ((3, 5, 20), "float32", 1)],
    ),
)
def test_small_and_large_batches(kind, case):
    """The loss is of the moments, too."""
    shape, dtype, order = case
    specs = [tf.TensorSpec((None, *shape), dtype), *[tf.TensorSpec([shape[-1]])] * 2]
    step = tf.function(lambda *a: slopes(normalized, a, order), input_signature=specs)
    graph = step.get_concrete_function().graph
    fused = "FusedBatchNormV3" in all_operations(graph)
    assert fused == (kind is not by_size.CompiledIfLarge)
    assert any(f.attr["_XlaMustCompile"].b for f in graph.as_graph_def().library.function) != fused
    p = {name: value.astype("float32") for name, value in reference.parameters(shape[-1:]).items()}
    for batch in (0, 1, 3, 33, 34, 100):
        x = tf.cast(reference.data((batch, *shape)) if batch else np.zeros((0, *shape)), dtype)
        found = step(x, p["beta"], p["gamma"])
        if not batch:
            assert all(np.isfinite(slope).all() for slope in found)
            continue
        wide = [tf.cast(tensor, tf.float64) for tensor in (x, p["beta"], p["gamma"])]
        for got, want in zip(found, slopes(formulas, wide, order), strict=True):
            tolerance = (1e-4 if dtype == "float32" else 1e-2) * np.abs(want).max()
            np.testing.assert_allclose(tf.cast(got, tf.float64), want, rtol=0, atol=tolerance)
        flat = tf.reshape(x, [-1, shape[-1]])
        forward = tf.function(kind(EPSILON, 1).forward, autograph=False)
        *_, deviations = forward(flat, p["beta"], p["gamma"])
        assert len(deviations) == (0 if np.prod(x.shape) >= LARGE else len(flat))


def test_what_the_layer_trains_by(kind):
    """Its loss is not of the moments, which spares the gradient what they would add."""
    layer = tfbn.BatchNorm(epsilon=EPSILON)
    layer.build((None, 300))
    weights = [variable.value for variable in layer.trainable_variables]

    @tf.function(input_signature=[tf.TensorSpec((None, 300))])
    def step(x):
        with tf.GradientTape() as tape:
            tape.watch(x)
            loss = tf.reduce_sum(layer(x, training=True) ** 3)
        return tape.gradient(loss, [x, *weights])

    @tf.function(input_signature=[tf.TensorSpec((None, 300), tf.float64)])
    def wanted(x):
        beta, gamma = tf.zeros(300, tf.float64), tf.ones(300, tf.float64)
        with tf.GradientTape() as tape:
            tape.watch([x, gamma, beta])
            loss = tf.reduce_sum(formulas(x, beta, gamma)[0] ** 3)
        return tape.gradient(loss, [x, gamma, beta])

    for batch in (5, 40):
        x = reference.data((batch, 300))
        for got, want in zip(step(x.astype("float32")), wanted(x), strict=True):
            np.testing.assert_allclose(got, want, rtol=0, atol=1e-4 * np.abs(want).max())


@pytest.mark.parametrize(
    ("shape", "made_by", "most"),
    [
        ((20, 20, 64), by_size.CompiledUnlessSmall, 3),
        ((16, 16, 64), by_size.CompiledIfLarge, 15),
        ((65, 64, 1), by_size.CompiledUnlessSmall, 24),
        ((32, 32, 3), by_size.CompiledUnlessTiny, 10),
    ],
)
def test_planes_and_few_channels(shape, made_by, most, monkeypatch):
    """So many images are small, one more is not."""
    monkeypatch.setattr(runtime, "has_onednn", lambda: False)
    channels = shape[-1]
    parameters = [value.astype("float32") for value in np.ones((2, channels))]
    specs = [tf.TensorSpec((None, *shape)), *[tf.TensorSpec([channels])] * 2]
    step = tf.function(lambda *a: slopes(normalized, a, 1), input_signature=specs)
    kind = made_by(EPSILON, 2)
    for samples in (1, most, most + 1, 2 * most + 1):
        x = reference.data((samples, *shape)).astype("float32")
        wide = [tf.cast(tensor, tf.float64) for tensor in (x, *parameters)]
        for got, want in zip(step(x, *parameters), slopes(formulas, wide, 1), strict=True):
            np.testing.assert_allclose(got, want, rtol=0, atol=1e-4 * np.abs(want).max())
        flat = tf.reshape(x, [samples, -1, channels])
        *_, deviations = tf.function(kind.forward, autograph=False)(flat, *parameters)
        assert len(deviations) == (samples if samples <= most else 0)


@pytest.mark.parametrize(("batch", "mean"), [(3, 3e3), (20, 3e3), (40, 1e4)])
@pytest.mark.usefixtures("kind")
def test_far_from_zero(batch, mean):
    """Few values of a channel are added up one after another, near one of them."""
    x = reference.data((batch, 300)) + mean
    step = tf.function(lambda x: normalized(x, None, None), input_signature=[tf.TensorSpec((None, 300))])
    _, moments = step(x.astype("float32"))
    expected = reference.moments(x.astype("float32").astype("float64"))
    np.testing.assert_allclose(moments.mean, expected[0], rtol=3e-6)
    np.testing.assert_allclose(moments.variance, expected[1], rtol=1e-4)


@pytest.mark.parametrize("channels", [300, 64])
def test_how_values_are_added_up_is_asked_only_where_there_may_be_many(channels):
    """Of 300 channels, 100 000 values are few for each, whatever the batch."""
    small = by_size.FusedIfLarge(EPSILON, 2)._small
    forward = tf.function(small.forward, autograph=False)
    spec = tf.TensorSpec((None, 1, channels))
    graph = forward.get_concrete_function(spec, *[tf.TensorSpec([channels])] * 2).graph
    assert ("Case" in " ".join(all_operations(graph))) == (channels == 64)


@pytest.mark.usefixtures("kind")
def test_a_function_traced_outside_xla_runs_inside():
    """Its kernel is what XLA makes of it: shapes that its branches do not share would be dynamic."""

    @tf.function(input_signature=[tf.TensorSpec((None, 4, 4, 32))], autograph=False)
    def slope(x):
        with tf.GradientTape() as tape:
            tape.watch(x)
            y, _ = normalized(x, tf.zeros(32), tf.ones(32))
            loss = tf.reduce_sum(y**3)
        return tape.gradient(loss, x)

    for samples in (5, 60):
        x = reference.data((samples, 4, 4, 32)).astype("float32")
        want = slope(x)
        inside = tf.function(lambda x: tf.identity(slope(x)), jit_compile=True, autograph=False)
        got = inside(tf.constant(x))
        np.testing.assert_allclose(got, want, rtol=0, atol=1e-4 * np.abs(want).max())


CONTROL_FLOW = {
    "cond": lambda layer, x: tf.cond(tf.size(x) > 0, lambda: layer(x), lambda: x),
    "loop": lambda layer, x: tf.while_loop(lambda i, _: i < 1, lambda i, y: (i + 1, layer(y)), (0, x))[
        1
    ],
    "map": lambda layer, x: tf.map_fn(layer, x[tf.newaxis])[0],
}
WHERE = [(inside, shape) for inside in CONTROL_FLOW for shape in ((300,), (12, 12, 5))]
# A quarter of a minute each.
KEPT = {"compiled": ("map", (12, 12, 5)), "fused": ("map", (12, 12, 5)), "called": ("cond", (300,))}


@pytest.mark.parametrize(
    ("kind", "inside", "shape", "batch"),
    [
        pytest.param(
            kind,
            *where,
            batch,
            marks=() if (batch, where) == (40, KEPT.get(kind)) else pytest.mark.sweep,
        )
        for kind, where, batch in product(KINDS, WHERE, (4, 40))
    ],
    indirect=["kind"],
)
@pytest.mark.usefixtures("kind")
def test_second_derivatives_in_control_flow(inside, shape, batch):
    def ours(x):
        return tf.ensure_shape(normalized(x, None, None)[0], (None, *shape))

    def second(function, dtype):
        @tf.function(input_signature=[tf.TensorSpec((None, *shape), dtype)], autograph=False)
        def slope_of_slopes(x):
            with tf.GradientTape() as outer:
                outer.watch(x)
                with tf.GradientTape() as inner:
                    inner.watch(x)
                    total = tf.reduce_sum(function(x) ** 3)
                penalty = tf.reduce_sum(inner.gradient(total, x) ** 2)
            return outer.gradient(penalty, x)

        return slope_of_slopes

    x = reference.data((batch, *shape))
    want = second(lambda x: formulas(x, None, None)[0], tf.float64)(x)
    got = second(lambda x: CONTROL_FLOW[inside](ours, x), tf.float32)(x.astype("float32"))
    np.testing.assert_allclose(got, want, rtol=0, atol=1e-4 * np.abs(want).max())
