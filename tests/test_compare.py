"""How far arrays are apart, against numbers worked out by hand."""

import numpy as np
import pytest

from tfbn import compare

pytestmark = pytest.mark.both


@pytest.mark.parametrize(
    ("found", "expected", "absolute", "relative"),
    [
        ([1.0, 2.0, -4.5], [1.0, 2.0, -4.0], 0.5, 0.125),
        ([0.25, 0.0], [0.0, 0.0], 0.25, 0.25),  # of zeros there is no size
        ([1 + 5j], [1 + 1j], 4.0, 4 / np.sqrt(2)),
        ([250, 3], [3, 250], 247.0, 247 / 250),
        ([True, False], [False, False], 1.0, 1.0),
        ([np.nan, np.inf, -np.inf, 3.0], [np.nan, np.inf, -np.inf, 2.0], 1.0, 0.5),
        ([np.nan, 2.0], [1.0, 2.0], np.inf, np.inf),
        ([np.inf], [-np.inf], np.inf, np.inf),
        ([b"a", b"b"], [b"a", b"b"], 0.0, 0.0),
        ([b"a", b"b"], [b"a", b"c"], 1.0, 1.0),
        ([], [], 0.0, 0.0),
    ],
)
def test_differences(found, expected, absolute, relative):
    found, expected = np.array(found), np.array(expected)
    if found.dtype == "int64":
        found, expected = found.astype("uint8"), expected.astype("uint8")  # whose differences wrap
    difference = compare.difference(found, expected)
    assert difference.absolute == absolute
    assert difference.relative == pytest.approx(relative, rel=1e-15)


def test_a_part_is_measured_by_the_size_of_the_whole():
    difference = compare.difference(np.array([0.5]), np.array([0.0]), largest=10.0)
    assert difference == (0.5, 10.0)
    assert difference.relative == 0.05


def test_short_types_are_compared_in_double_precision():
    found, expected = np.float16([32768]), np.float16([-32768])
    assert compare.difference(found, expected) == (65536.0, 32768.0)  # above the largest float16


def test_the_largest_difference_is_relative_to_each_array():
    found = {"small": np.array([0.011]), "large": np.array([101.0]), "words": np.array([b"a"])}
    expected = {"small": np.array([0.01]), "large": np.array([100.0]), "words": np.array([b"b"])}
    name, relative = compare.largest_difference(found, expected)
    assert name == "small"
    assert relative == pytest.approx(0.1, rel=1e-12)
    assert compare.largest_difference({}, {}) == ("", 0.0)


def test_what_is_finite_and_how_large():
    assert compare.is_finite(np.array(["nan"]))
    assert not compare.is_finite(np.array([1.0, np.inf]))
    assert not compare.is_finite(np.array(complex(0, np.nan)))
    assert compare.max_abs(np.array([-3.0, np.inf, 2.0])) == 3.0
    assert compare.max_abs(np.array(-7)) == 7.0
    assert compare.max_abs(np.array(["word"])) == 0.0
