"""The pure functions against the float64 oracle."""

import numpy as np
import pytest
import tensorflow as tf

import reference
from tfbn import functional
from tfbn.moments import batch_moments

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


@pytest.mark.parametrize("dtype", ["float32", "float64", "float16", "bfloat16"])
@pytest.mark.parametrize(("shape", "axis"), SHAPES)
def test_normalize(shape, axis, dtype):
    x = tf.cast(reference.data(shape, axis), dtype)
    p = reference.parameters(reference.moments(x, axis)[0].shape)
    for beta, gamma in ((p["beta"], p["gamma"]), (None, p["gamma"]), (p["beta"], None), (None, None)):
        got = functional.normalize(x, p["mean"], p["variance"], beta, gamma, 1e-2, axis)
        assert got.dtype == dtype
        want = reference.apply(x, p["mean"], p["variance"], beta, gamma, 1e-2, axis)
        close(tf.cast(got, tf.float64), want, OUTPUT[dtype])


def test_normalize_far_from_zero_keeps_its_digits():
    x = (reference.data((512, 4)) + np.float32(1e4)).astype("float32")
    mean, variance = (statistic.astype("float32") for statistic in reference.moments(x))
    close(functional.normalize(x, mean, variance), reference.apply(x, mean, variance), 1e-5)


def test_update_moving_average():
    moving, value = reference.data((7,)), reference.data((7,), seed=1)
    expected = 0.9 * moving.astype("float64") + 0.1 * value
    np.testing.assert_allclose(
        functional.update_moving_average(moving, value, 0.9), expected, rtol=1e-6, atol=1e-6
    )
    np.testing.assert_array_equal(functional.update_moving_average(moving, moving, 0.9), moving)
    np.testing.assert_array_equal(functional.update_moving_average(moving, value, 1.0), moving)


@pytest.mark.parametrize("decay", [0.0, 1e-8, 1e-3, 0.3, 0.5, 0.7, 0.999, 1.0])
def test_a_moving_average_loses_no_digit_of_the_nearer_value(decay):
    """Where one of them is large, the other's digits would be lost in the difference."""
    for moving, value in np.float32([(1e8, 1.1), (1.1, 1e8), (-3e5, 7e-3), (0.1, 0.1)]):
        found = functional.update_moving_average(tf.constant(moving), tf.constant(value), decay)
        exact = decay * np.float64(moving) + (1 - decay) * np.float64(value)
        # Of the exact result, and of the larger term that the decay leaves: three roundings.
        size = max(abs(decay * np.float64(moving)), abs((1 - decay) * np.float64(value)))
        assert abs(float(found) - exact) <= 2.0**-22 * size
        constant = functional.update_moving_average(tf.constant(value), tf.constant(value), decay)
        assert float(constant) == value


def test_scale_and_offset():
    p = reference.parameters((9,))
    for beta, gamma in ((p["beta"], p["gamma"]), (None, None)):
        got = functional.scale_and_offset(p["mean"], p["variance"], beta, gamma, 1e-5)
        want = reference.affine(p["mean"], p["variance"], beta, gamma, 1e-5)
        np.testing.assert_allclose(got, want, rtol=1e-14, atol=1e-14)


@pytest.mark.parametrize("with_bias", [True, False])
@pytest.mark.parametrize(
    ("kernel_shape", "axis", "equation"),
    [((5, 4), -1, "ni,io->no"), ((4, 5), -2, "ni,oi->no"), ((5, 2, 3), (1, 2), "ni,iab->nab")],
)
def test_fold_into_kernel(kernel_shape, axis, equation, with_bias):
    kernel = reference.data(kernel_shape)
    channels = int(np.prod([kernel_shape[number] for number in np.atleast_1d(axis)]))
    p = reference.parameters((channels,))
    bias = p["beta"].astype("float32") if with_bias else None
    scale, offset = reference.affine(p["mean"], p["variance"], p["beta"], p["gamma"])
    new_kernel, new_bias = functional.fold_into_kernel(kernel, bias, scale, offset, axis)
    assert new_kernel.dtype == new_bias.dtype == tf.float32
    x = reference.data((6, 5))

    def layer(kernel, bias):
        y = np.einsum(equation, x.astype("float64"), np.asarray(kernel, np.float64)).reshape(6, -1)
        return y + (0 if bias is None else np.asarray(bias, np.float64))

    # One rounding of each weight to float32.
    close(layer(new_kernel, new_bias), layer(kernel, bias) * scale + offset, 1e-6)


@pytest.mark.parametrize("axis", [(), (1, -1), 2, -3])
def test_axes_that_do_not_exist_are_refused(axis):
    with pytest.raises(ValueError, match="received axis="):
        batch_moments(np.ones((2, 3), "float32"), axis)


def test_integers_are_taken_as_float32():
    x = np.random.default_rng(0).integers(0, 256, (50, 3)).astype("uint8")
    moments = batch_moments(x)
    assert moments.mean.dtype == tf.float32
    np.testing.assert_allclose(moments.variance, reference.moments(x)[1], rtol=1e-6)
    y = functional.normalize(x, moments.mean, moments.variance)
    np.testing.assert_allclose(y, reference.apply(x, *reference.moments(x)), rtol=1e-5, atol=1e-5)
