"""The oracle: batch normalisation in float64 NumPy, written from the paper alone.

It shares nothing with the package: channel axes are moved to the end and everything else flattened,
so a wrong axis or a wrong broadcast cannot be made twice.
"""

from __future__ import annotations

import numpy as np


def rows(x, axis=-1):
    """`x` as a float64 matrix [values, channels], and the shape of the channel axes."""
    x = np.asarray(x, np.float64)
    axes = sorted(number % x.ndim for number in np.atleast_1d(axis))
    moved = np.moveaxis(x, axes, range(-len(axes), 0))
    shape = moved.shape[moved.ndim - len(axes) :]
    return moved.reshape(-1, int(np.prod(shape))), shape


def moments(x, axis=-1, weights=None):
    """Mean and biased variance per channel; `weights` has the shape of `x`."""
    values, shape = rows(x, axis)
    w = np.ones_like(values) if weights is None else rows(weights, axis)[0]
    mean = (w * values).sum(0) / w.sum(0)
    variance = (w * (values - mean) ** 2).sum(0) / w.sum(0)
    return mean.reshape(shape), variance.reshape(shape)


def unbiased(variance, count):
    return variance * count / (count - 1) if count > 1 else variance


def affine(mean, variance, beta=None, gamma=None, epsilon=1e-3):
    """Algorithm 2, line 11."""
    mean, variance = np.asarray(mean, np.float64), np.asarray(variance, np.float64)
    gamma = 1.0 if gamma is None else np.asarray(gamma, np.float64)
    beta = 0.0 if beta is None else np.asarray(beta, np.float64)
    scale = gamma / np.sqrt(variance + epsilon)
    return scale, beta - scale * mean


def apply(x, mean, variance, beta=None, gamma=None, epsilon=1e-3, axis=-1):
    """Compute gamma · (x − mean) / sqrt(variance + epsilon) + beta, channel by channel."""
    x = np.asarray(x, np.float64)
    axes = sorted(number % x.ndim for number in np.atleast_1d(axis))
    moved = np.moveaxis(x, axes, range(-len(axes), 0))
    y = (moved - np.asarray(mean, np.float64)) / np.sqrt(np.asarray(variance, np.float64) + epsilon)
    y = y * (1.0 if gamma is None else np.asarray(gamma, np.float64))
    y = y + (0.0 if beta is None else np.asarray(beta, np.float64))
    return np.moveaxis(y, range(-len(axes), 0), axes)


def train_step(x, moving_mean, moving_variance, decay, unbiased_variance=False, axis=-1, **affine):
    """Algorithm 1 on a batch: output, moving mean and moving variance after it."""
    mean, variance = moments(x, axis)
    stored = variance
    if unbiased_variance:
        stored = unbiased(variance, rows(x, axis)[0].shape[0])
    return (
        apply(x, mean, variance, axis=axis, **affine),
        decay * np.asarray(moving_mean, np.float64) + (1 - decay) * mean,
        decay * np.asarray(moving_variance, np.float64) + (1 - decay) * stored,
    )


def data(shape, axis=-1, seed=0, dtype="float32"):
    """Random values whose mean and scale differ from channel to channel."""
    rng = np.random.default_rng(seed)
    x = rng.standard_normal(shape)
    for number in np.atleast_1d(axis):
        size = [1] * len(shape)
        size[number] = shape[number]
        x = x * rng.uniform(0.5, 3.0, size) + rng.uniform(-4.0, 4.0, size)
    return x.astype(dtype)


def parameters(shape, seed=1):
    """Make gamma (some negative), beta, mean and variance of `shape`, none of them trivial."""
    rng = np.random.default_rng(seed)
    return {
        "gamma": rng.uniform(0.5, 2.0, shape) * rng.choice([-1.0, 1.0], shape),
        "beta": rng.uniform(-1.0, 1.0, shape),
        "mean": rng.uniform(-2.0, 2.0, shape),
        "variance": rng.uniform(0.2, 4.0, shape),
    }
