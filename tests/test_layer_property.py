"""tfbn.BatchNorm: outputs, moving statistics and gradients of any shape, axes, type, mask and mode."""

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

import reference
import tfbn

pytestmark = pytest.mark.both


def drawn_inputs(draw, dtype):
    """A shape of rank 2 to 5 (an empty batch, one sample, one channel among them), axes and values."""
    rank = draw(st.integers(2, 5))
    shape = [draw(st.integers(0, 5)), *(draw(st.integers(1, 5)) for _ in range(rank - 1))]
    axes = sorted(draw(st.sets(st.integers(1, rank - 1), min_size=1, max_size=2)))
    axis = draw(st.sampled_from([axes, axes[0], axes[0] - rank]))
    return tf.cast(reference.data(shape, axes, seed=draw(st.integers(0, 99))), dtype), axis


def called(layer, x, mode, **arguments):
    """The layer in training, built and traced without the sizes that are not channels."""
    axes = [number % x.shape.rank for number in np.atleast_1d(layer.axis)]
    sizes = [size if number in axes else None for number, size in enumerate(x.shape)]
    layer.build(sizes)
    if mode == "eager":
        return layer(x, training=True, **arguments)
    function = tf.function(
        lambda x: layer(x, training=True, **arguments),
        jit_compile=mode == "jit",
        input_signature=[tf.TensorSpec(x.shape if mode == "known" else sizes, x.dtype)],
    )
    return function(x)


MODES = st.sampled_from(["eager", "known", "unknown", "jit"])


@settings(max_examples=100)
@given(data=st.data())
def test_any_shape_axes_precision_mask_and_mode(data):
    dtype = data.draw(st.sampled_from(["float32", "float64", "float16", "bfloat16"]))
    x, axis = drawn_inputs(data.draw, dtype)
    flags = {name: data.draw(st.booleans()) for name in ("center", "scale", "unbiased")}
    policy = dtype if dtype in ("float32", "float64") else f"mixed_{dtype}"
    layer = tfbn.BatchNorm(axis=axis, decay=0.9, epsilon=1e-2, dtype=policy, **flags)
    masked = data.draw(st.integers(0, x.shape.rank - 1))
    mask = np.random.default_rng(0).random(x.shape[:masked]) < 0.7 if masked else None
    y = called(layer, x, data.draw(MODES), **({"mask": mask} if masked else {}))
    wide = tf.cast(x, tf.float64).numpy()
    weights = np.ones(x.shape)
    if masked:
        weights *= mask.reshape(mask.shape + (1,) * (x.ndim - masked))
    shape = reference.rows(wide, axis)[1]
    counts = reference.rows(weights, axis)[0].sum(0).reshape(shape)
    assert y.dtype == dtype
    assert y.shape == x.shape
    with np.errstate(invalid="ignore"):
        mean, variance = (
            np.nan_to_num(statistic) for statistic in reference.moments(wide, axis, weights)
        )
    want = reference.apply(wide, mean, variance, epsilon=1e-2, axis=axis)
    tolerance = {"float32": 1e-4, "float64": 1e-10, "float16": 5e-3, "bfloat16": 4e-2}[dtype]
    # With few values a channel's deviation is near 0, and the output is rounding over sqrt(epsilon).
    tolerance *= max(1.0, np.abs(want).max(initial=0))
    np.testing.assert_allclose(tf.cast(y, tf.float64), want, rtol=0, atol=tolerance)
    if flags["unbiased"]:
        variance = np.where(counts > 1, variance * counts / np.maximum(counts - 1, 1), variance)
    seen = np.where(counts > 0, 0.1, 0)
    np.testing.assert_allclose(layer.moving_mean, seen * mean, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(layer.moving_variance, 1 + seen * (variance - 1), rtol=1e-5)


@settings(max_examples=60)
@given(data=st.data())
def test_first_and_second_gradients_of_any_shape_in_any_mode(data):
    x, axis = drawn_inputs(data.draw, "float32")
    mode, mask = data.draw(MODES), data.draw(st.sampled_from([None, np.arange(len(x)) % 2 == 0]))

    def slopes(x, mode):
        layer = tfbn.BatchNorm(axis=axis, epsilon=0.1, dtype=x.dtype.name)
        layer.build(x.shape)
        p = reference.parameters(tuple(layer.gamma.shape))
        layer.gamma.assign(p["gamma"]), layer.beta.assign(p["beta"])
        watched = [layer.gamma.value, layer.beta.value]

        def both(x):
            with tf.GradientTape() as outer:
                outer.watch(x)
                with tf.GradientTape() as tape:
                    tape.watch(x)
                    loss = tf.reduce_sum(tf.sin(layer(x, training=True, mask=mask)))
                first = tape.gradient(loss, [x, *watched])
                penalty = tf.add_n([tf.reduce_sum(gradient**2) for gradient in first])
            return first + outer.gradient(penalty, [x, *watched])

        if mode != "eager":
            sizes = [size if mode == "known" or number else None for number, size in enumerate(x.shape)]
            signature = [tf.TensorSpec(sizes, x.dtype)]
            both = tf.function(both, jit_compile=mode == "jit", input_signature=signature)
        return both(x)

    found, wanted = slopes(x, mode), slopes(tf.cast(x, tf.float64), "eager")
    for order in (slice(0, 3), slice(3, 6)):
        # Those of x, gamma and beta are sums of the same terms, which cancel in some of them; second
        # gradients divide by the variance, at least 0.1, again and again.
        tolerance = 1e-4 * max(1.0, *(np.abs(gradient).max(initial=0) for gradient in wanted[order]))
        for got, want in zip(found[order], wanted[order], strict=True):
            np.testing.assert_allclose(got, want, rtol=0, atol=tolerance)


@pytest.mark.parametrize("axis", [-1, 1, [1, 2]])
def test_gradients_equal_finite_differences(axis):
    layer = tfbn.BatchNorm(axis=axis, dtype="float64")
    x = reference.data((5, 3, 4), axis, dtype="float64")
    weights = reference.data((5, 3, 4), seed=9, dtype="float64")

    def loss(x):
        return tf.reduce_sum(tf.sin(layer(x, training=True)) * weights)

    theoretical, numerical = tf.test.compute_gradient(loss, [x], delta=1e-5)
    np.testing.assert_allclose(theoretical[0], numerical[0], rtol=1e-6, atol=1e-8)


def test_second_gradients_equal_finite_differences():
    layer = tfbn.BatchNorm(dtype="float64")

    def penalty(x):
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = tf.reduce_sum(layer(x, training=True) ** 3)
        return tf.reduce_sum(tape.gradient(y, x) ** 2)

    x = reference.data((5, 3), dtype="float64")
    theoretical, numerical = tf.test.compute_gradient(penalty, [x], delta=1e-5)
    np.testing.assert_allclose(theoretical[0], numerical[0], rtol=1e-5, atol=1e-6)
