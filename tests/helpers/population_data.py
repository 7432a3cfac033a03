"""Data of every kind that population statistics are measured over, and what they are exactly."""

import keras
import numpy as np

import reference

X = reference.data((200, 6, 5, 3), seed=11)
TARGETS = np.zeros(len(X))


def full(x, axis=-1):
    """Mean and unbiased variance of all values in float64."""
    mean, variance = reference.moments(x, axis)
    return mean, reference.unbiased(variance, x.size // mean.size)


def assert_exact(statistics, x):
    x = np.asarray(x, "float64").reshape(-1, x.shape[-1])
    assert statistics.count == len(x)
    np.testing.assert_allclose(statistics.mean, x.mean(0), rtol=1e-6, atol=1e-7)
    np.testing.assert_allclose(statistics.variance, x.var(0, ddof=1), rtol=1e-6)


def assert_first_is_exact(statistics, x, path="first", axis=-1):
    mean, variance = full(x, axis)
    np.testing.assert_allclose(statistics[path].mean, mean, rtol=1e-6)
    np.testing.assert_allclose(statistics[path].variance, variance, rtol=1e-6)
    assert statistics[path].count == x.size // mean.size


class Sequence(keras.utils.PyDataset):
    def __len__(self):
        return 5

    def __getitem__(self, index):
        return X[40 * index : 40 * index + 40], TARGETS[:40]


def unequal_batches():
    for part in np.split(X, [3, 4, 50, 177]):
        yield part, TARGETS[: len(part)]


class Batches:
    def __iter__(self):
        return unequal_batches()
