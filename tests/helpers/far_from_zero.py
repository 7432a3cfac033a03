"""Values far from zero, whose variance a kernel keeps only if it centres them."""

import numpy as np
import tensorflow as tf

import reference

FAR = [((32, 56, 56, 64), -1), ((131072, 8), -1), ((8, 8, 16384), 1), ((16384, 3), -1)]
FAR += [((32, 28, 28, 8), -1), ((500, 4), -1), ((2**18, 4), -1)]
FAR_MEANS = (30.0, 1000.0, 1001.0, 2003.0, 10000.0, 10100.0)  # not round ones add up to other roundings


def assert_exact_far_from_zero(function, x, mean, axis):
    y, moments = function(tf.constant(x))
    expected = reference.moments(x, axis)
    # Wanted are 1e-3 at mean 1e3 and 1e-2 at 1e4; the kernel's own sums err by 3e-5.
    np.testing.assert_allclose(moments.variance, expected[1], rtol=1e-4)
    np.testing.assert_allclose(moments.mean, expected[0], rtol=2e-5)
    # A mean that is off by 1e-6 of itself moves the output by as much of a deviation.
    np.testing.assert_allclose(
        y, reference.apply(x, *expected, axis=axis), rtol=0, atol=5e-6 * mean + 5e-4
    )
