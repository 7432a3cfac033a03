"""Means and variances against the float64 oracle."""

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

import reference
from tfbn.moments import (
    Moments,
    add_moments,
    batch_moments,
    combine_moments,
    count_values,
    unbiased_variance,
    weighted_moments,
    wide_moments,
)
from tfbn.sums import exact_sum

pytestmark = pytest.mark.both

# float32 has 6e-8 of unit roundoff; sums axis by axis of a few thousand values stay below these.
STATISTICS = {"float32": 1e-6, "float64": 1e-13}
OUTPUT = {"float32": 1e-5, "float64": 1e-12}
# float16 and bfloat16 are widened: what remains is the rounding of the output, 2^-11 and 2^-8.
OUTPUT |= {"float16": 2**-10, "bfloat16": 2**-7}

SHAPES = [((16, 5), -1), ((6, 7, 3), 1), ((4, 5, 6, 3), -1), ((4, 3, 5, 6), 1), ((2, 3, 4, 5, 6), -1)]
SHAPES += [((4, 5, 6, 3), (1, 3)), ((4, 5, 6, 3), (-1, -3)), ((4, 5, 6), [2]), ((9, 1), -1)]


def close(got, want, tolerance):
    got, want = np.asarray(got, np.float64), np.asarray(want, np.float64)
    assert got.shape == want.shape
    np.testing.assert_allclose(got, want, rtol=0, atol=tolerance * max(1e-30, np.abs(want).max()))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(("shape", "axis"), SHAPES)
def test_batch_moments(shape, axis, dtype):
    x = reference.data(shape, axis, dtype=dtype)
    moments = batch_moments(x, axis)
    mean, variance = reference.moments(x, axis)
    np.testing.assert_allclose(moments.mean, mean, rtol=STATISTICS[dtype], atol=STATISTICS[dtype])
    np.testing.assert_allclose(moments.variance, variance, rtol=STATISTICS[dtype])
    assert float(moments.count) == x.size / mean.size
    assert moments.mean.dtype == moments.count.dtype == dtype


@settings(max_examples=60)
@given(data=st.data())
def test_batch_moments_of_any_shape_and_axes(data):
    shape = data.draw(st.lists(st.integers(1, 6), min_size=1, max_size=5))
    rank = len(shape)
    axes = data.draw(st.lists(st.integers(0, rank - 1), min_size=1, unique=True))
    signs = data.draw(st.lists(st.booleans(), min_size=len(axes), max_size=len(axes)))
    axis = [number - rank if negative else number for number, negative in zip(axes, signs, strict=True)]
    x = reference.data(shape, axis, seed=data.draw(st.integers(0, 99)))
    mean, variance = reference.moments(x, axis)
    moments = batch_moments(x, axis)
    np.testing.assert_allclose(moments.mean, mean, rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(moments.variance, variance, rtol=1e-5, atol=1e-6)


def test_batch_moments_far_from_zero_keep_their_digits():
    # E[x²] − E[x]² would be off by 6 % at mean 1e3 and meaningless at 1e4.
    x = reference.data((32, 14, 14, 8), seed=3)
    for mean, tolerance in ((1e3, 1e-5), (1e4, 1e-4)):
        far = (x + np.float32(mean)).astype("float32")
        np.testing.assert_allclose(
            batch_moments(far).variance, reference.moments(far)[1], rtol=tolerance
        )


def test_batch_moments_of_many_values_do_not_drift():
    # One after the other, 10^5 float32 values a channel add up to an error of 1e-5 and more.
    x = reference.data((32, 56, 56, 4), seed=4)
    moments = batch_moments(x)
    mean, variance = reference.moments(x)
    np.testing.assert_allclose(moments.mean, mean, rtol=1e-6)
    np.testing.assert_allclose(moments.variance, variance, rtol=1e-6)


def test_moments_of_nothing_are_zero():
    x = np.zeros((0, 4, 3), "float32")
    for moments in (batch_moments(x), weighted_moments(x, np.zeros((0, 4)))):
        assert not np.any(moments.mean)
        assert not np.any(moments.variance)
        assert not np.any(moments.count)


def test_batch_moments_with_unknown_sizes():
    x = reference.data((5, 6, 3))
    traced = tf.function(batch_moments, input_signature=[tf.TensorSpec((None, None, 3), tf.float32)])
    mean, variance = reference.moments(x)
    np.testing.assert_allclose(traced(x).mean, mean, rtol=1e-6)
    np.testing.assert_allclose(traced(x).variance, variance, rtol=1e-6)
    assert float(traced(x).count) == 30


def test_half_precision_is_widened():
    x = tf.cast(reference.data((64, 3)), tf.float16)
    moments = batch_moments(x)
    assert moments.mean.dtype == tf.float32
    np.testing.assert_allclose(moments.variance, reference.moments(x.numpy())[1], rtol=1e-6)


@pytest.mark.parametrize("weights_shape", [(6,), (6, 4), (6, 4, 3), (6, 1, 3), (1, 4)])
def test_weighted_moments(weights_shape):
    x = reference.data((6, 4, 3))
    weights = np.random.default_rng(5).uniform(0, 2, weights_shape).astype("float32")
    full = np.broadcast_to(weights.reshape(weights_shape + (1,) * (3 - weights.ndim)), x.shape)
    moments = weighted_moments(x, weights)
    mean, variance = reference.moments(x, weights=full)
    np.testing.assert_allclose(moments.mean, mean, rtol=1e-5)
    np.testing.assert_allclose(moments.variance, variance, rtol=1e-5)
    np.testing.assert_allclose(moments.count, full.reshape(-1, 3).sum(0), rtol=1e-6)


@pytest.mark.parametrize("axis", [1, 2, (1, 2)])
def test_masked_values_take_no_part_even_when_not_finite(axis):
    x = reference.data((6, 4, 3), axis)
    mask = np.random.default_rng(6).random((6, 4)) < 0.6
    mask[0] = True
    expected = reference.moments(x, axis, weights=np.broadcast_to(mask[..., None], x.shape) * 1.0)
    x[~mask] = np.nan
    moments = weighted_moments(x, mask, axis)
    np.testing.assert_allclose(moments.mean, expected[0], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(moments.variance, expected[1], rtol=1e-5, atol=1e-6)


def test_weights_that_do_not_fit_are_refused():
    for shape in ((2, 3, 1), (3,), (2, 2)):
        with pytest.raises(
            ValueError, match=r"of shape \(.*\) do not fit values of shape \(2, 3\)\. Pass"
        ):
            weighted_moments(np.ones((2, 3), "float32"), np.ones(shape, "float32"))


@settings(max_examples=40)
@given(sizes=st.lists(st.integers(0, 9), min_size=1, max_size=6), mean=st.sampled_from([0, 1e3, 1e6]))
def test_combined_moments_are_those_of_all_values(sizes, mean):
    x = reference.data((sum(sizes), 3), seed=sum(sizes), dtype="float64") + mean
    parts = [batch_moments(part.reshape(-1, 3)) for part in np.split(x, np.cumsum(sizes)[:-1])]
    combined = combine_moments(Moments(*(tf.stack(moment) for moment in zip(*parts, strict=True))))
    np.testing.assert_array_equal(combined.count, [sum(sizes)] * 3)
    if len(x):
        expected = reference.moments(x)
        np.testing.assert_allclose(combined.mean, expected[0], rtol=1e-12)
        # At mean 1e6 the values themselves carry only 1e-10 of their deviation.
        np.testing.assert_allclose(combined.variance, expected[1], rtol=1e-8, atol=1e-8)
    else:
        assert not np.any(combined.variance)


def test_unbiased_variance():
    moments = Moments(tf.zeros(4), tf.constant([2.0, 2, 2, 2]), tf.constant([0.0, 1, 2, 5]))
    np.testing.assert_allclose(unbiased_variance(moments), [2, 2, 4, 2.5], rtol=1e-7)


def test_what_is_no_number_is_refused():
    with pytest.raises(
        TypeError, match=r"needs real numbers, received complex64 of shape \(2, 3\)\. Conv"
    ):
        batch_moments(np.ones((2, 3), "complex64"))


def test_negative_and_nan_weights_count_as_none():
    x, weights = np.array([[1.0], [2.0], [4.0], [8.0]]), [1.0, -1.0, np.nan, 1.0]
    moments = weighted_moments(x, np.array(weights))
    np.testing.assert_array_equal(np.ravel(moments), [4.5, 12.25, 2.0])


def test_an_input_of_unknown_rank_is_refused():
    spec = tf.TensorSpec(None, tf.float32)
    with pytest.raises(
        ValueError, match=r"needs to know the rank .*, e\.g\. x\.set_shape\(\[None, 3\]\)"
    ):
        tf.function(batch_moments, input_signature=[spec]).get_concrete_function()


@pytest.mark.parametrize(
    ("size", "is_cut"),
    [(128, False), (129, False), (256, False), (784, False), (131, True), (1009, True)],
)
@pytest.mark.parametrize("axis", [0, 1, 2])
def test_only_an_axis_of_no_equal_blocks_is_cut_in_two(size, is_cut, axis):
    shape = [3, 2, 4]
    shape[axis] = size
    x = np.random.default_rng(size).normal(1e3, 1, shape).astype("float32")
    function = tf.function(lambda x: exact_sum(x, (axis,), tf.float64)).get_concrete_function(x)
    assert ("SplitV" in {operation.type for operation in function.graph.get_operations()}) == is_cut
    np.testing.assert_allclose(function(x), x.sum(axis, dtype="float64"), rtol=2e-6)


@pytest.mark.parametrize("mean", [0.0, 1e4])
@pytest.mark.parametrize(
    ("shape", "axis"), [((50_000, 3), -1), ((8, 40, 40, 3), -1), ((8, 3, 40, 40), 1)]
)
def test_wide_moments_have_more_digits_than_float32(shape, axis, mean):
    x = np.random.default_rng(0).normal(mean, 1, shape).astype("float32")
    moments = wide_moments(x, axis)
    want = reference.moments(x, axis)
    assert {part.dtype for part in moments} == {tf.float64}
    # What blocks of 128 float32 numbers lose, of which deviations from the mean have least.
    np.testing.assert_allclose(moments.mean, want[0], rtol=1e-9, atol=1e-7)
    np.testing.assert_allclose(moments.variance, want[1], rtol=1e-6)


@pytest.mark.parametrize("mean", [0.0, 10.0, 1e3])
@pytest.mark.parametrize("shape", [(50_000, 32), (8, 40, 40, 16)])
def test_wide_moments_of_many_channels(shape, mean):
    x = np.random.default_rng(0).normal(mean, 1, shape).astype("float32")
    moments = wide_moments(x)
    want = reference.moments(x, -1)
    np.testing.assert_allclose(moments.mean, want[0], rtol=5e-8, atol=2e-7)
    np.testing.assert_allclose(moments.variance, want[1], rtol=1e-6)


@settings(max_examples=40)
@given(sizes=st.lists(st.integers(0, 9), min_size=1, max_size=6), mean=st.sampled_from([0, 1e3, 1e6]))
def test_moments_added_one_after_the_other_are_those_of_all_values(sizes, mean):
    x = np.random.default_rng(sum(sizes)).normal(mean, 1, (sum(sizes), 3))
    sums = Moments(*[tf.zeros(3, tf.float64)] * 3)
    for part in np.split(x, np.cumsum(sizes)[:-1]):
        sums = add_moments(sums, batch_moments(tf.constant(part)))
    np.testing.assert_array_equal(sums.count, [sum(sizes)] * 3)
    want = reference.moments(x) if sum(sizes) else (np.zeros(3), np.zeros(3))
    np.testing.assert_allclose(sums.mean, want[0], rtol=1e-13)
    np.testing.assert_allclose(sums.variance, want[1], rtol=1e-7, atol=1e-12 * (1 + mean**2) * 1e-2)


@pytest.mark.parametrize(
    "shape", [(2, 1, 2**19, 2), (2, 3, 2**18, 2), (2, 9, 2**17, 2), (3, 5, 7, 2), (3, 1, 1, 2)]
)
def test_sums_of_xla_keep_their_digits_whatever_axis_is_long(shape):
    x = np.random.default_rng(0).choice([0.1, 0.3], shape, p=[0.999, 0.001]).astype("float32")
    got = tf.function(lambda x: exact_sum(x, (0, 1, 2)), jit_compile=True)(x)
    np.testing.assert_allclose(got, x.astype("float64").sum((0, 1, 2)), rtol=1e-6)


def test_to_count_values_none_is_widened():
    """A graph would cast a whole batch of a short type to learn how many samples it has."""
    spec = tf.TensorSpec((None, 4), tf.float16)
    graph = tf.function(count_values).get_concrete_function(spec).graph
    (size,) = (operation for operation in graph.get_operations() if operation.type == "Size")
    assert size.inputs[0].op.type == "Placeholder"
