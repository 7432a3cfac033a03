"""Inputs far from 0: a folded model rounds little more than the model does, or the batch norm stays."""

import keras
import numpy as np
import pytest

import reference
import tfbn
from networks import chain
from sweeps import some

pytestmark = pytest.mark.both
L = keras.layers
FAR = [0.0, 4e2, 1e4, 1e5, 1e6]  # mean / deviation
KINDS = {"ours": tfbn.BatchNorm, "stock": L.BatchNormalization}


def inputs_at(far, shape, deviation):
    rng = np.random.default_rng(3)
    return (deviation * (far + rng.normal(size=shape))).astype("float32")


def calibrated(model, far, deviation):
    """The statistics of such inputs in the first batch norm, and modest ones in the others."""
    rng = np.random.default_rng(5)
    for number, layer in enumerate(tfbn.batch_norms(model).values()):
        shape = layer.moving_mean.shape
        layer.gamma.assign(rng.uniform(0.5, 1.5, shape) * rng.choice([-1, 1], shape))
        layer.beta.assign(rng.normal(size=shape))
        first = number == 0
        layer.moving_mean.assign(deviation * far * np.ones(shape) if first else rng.normal(size=shape))
        layer.moving_variance.assign(np.full(shape, deviation**2) if first else rng.uniform(1, 2, shape))
    return model


def in_float64(model, x):
    """What a chain of batch norms, Dense layers and convolutions of width 1 computes."""
    x = x.astype("float64")
    for layer in model.layers[1:]:
        weights = [array.astype("float64") for array in layer.get_weights()]
        if isinstance(layer, (tfbn.BatchNorm, L.BatchNormalization)):
            gamma, beta, mean, variance = weights
            x = reference.apply(x, mean, variance, beta, gamma, layer.epsilon)
        elif isinstance(layer, L.Rescaling):
            x = x * np.asarray(layer.scale) + np.asarray(layer.offset)
        elif isinstance(layer, L.Normalization):
            x = (x - np.asarray(layer.mean)) / np.sqrt(np.asarray(layer.variance))
        else:
            kernel = weights[0]
            x = x @ kernel.reshape(kernel.shape[-2:]) + weights[1]
    return x


LAST = {
    "dense": lambda _: [L.Dense(3)],
    "conv": lambda _: [L.Conv1D(3, 1)],
    "rescaling": lambda _: [L.Rescaling(2.0, 1.0)],
    "normalization": lambda _: [L.Normalization(mean=0.5, variance=2.0)],
    "merged": lambda kind: [kind()],
    "merged with Keras' own": lambda _: [L.BatchNormalization()],
    "merged, dense": lambda kind: [kind(), L.Dense(3)],
}


@pytest.mark.parametrize("deviation", some([1.0, 10.0, 1e-2], [10.0]))  # what is rounded is relative
@pytest.mark.parametrize("far", FAR)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("last", LAST)
def test_no_digit_is_lost(last, kind, far, deviation):
    layers = [KINDS[kind](epsilon=1e-6), *LAST[last](KINDS[kind])]
    model = calibrated(chain((8, 5), *layers), far, deviation)
    folded, report = tfbn.fold(model)
    x = inputs_at(far, (64, 8, 5), deviation)
    exact = in_float64(model, x)
    errors = [np.abs(network(x) - exact).max() for network in (folded, model)]
    # In float32 nothing is exact to less than two roundings of the largest output.
    assert errors[0] <= 4 * max(errors[1], 2**-23 * np.abs(exact).max()), str(report)
    if far == 0 and last in ("dense", "conv", "rescaling", "merged, dense"):
        assert not report.kept


def test_the_reason_says_why():
    model = calibrated(chain((5,), tfbn.BatchNorm(name="bn"), L.Dense(3, name="top")), 1e5, 10.0)
    (stays,) = tfbn.fold(model)[1].kept
    assert "its inputs are far from 0 beside their deviation, and 'top' would add and" in stays.reason
    assert stays.reason.endswith(
        "of which float32 keeps the first digits only; the batch norm takes their mean off first"
    )


def test_float64_has_digits_enough():
    keras.config.set_dtype_policy("float64")
    model = chain((5,), tfbn.BatchNorm(), L.Dense(3), dtype="float64")
    assert not tfbn.fold(calibrated(model, 1e5, 10.0))[1].kept


def test_one_year_among_features():
    """A column of 2020 ± 5 among numbers around 0."""
    model = calibrated(chain((5,), tfbn.BatchNorm(epsilon=1e-6), L.Dense(3)), 0.0, 1.0)
    batch_norm = model.layers[1]
    batch_norm.moving_mean.assign([0, 0, 2020, 0, 0])
    batch_norm.moving_variance.assign([1, 1, 25, 1, 1])
    assert len(tfbn.fold(model)[1].kept) == 1


@pytest.mark.parametrize("backwards", [True, False])
def test_a_constant_on_the_way_that_would_grow(backwards):
    """The constant stays where it is, and folding would take it off again elsewhere."""
    large = 2.0**14
    inputs = keras.Input((5,))
    batch_norm = tfbn.BatchNorm(epsilon=1e-6, name="bn")
    if backwards:
        outputs = batch_norm(L.Dense(5)(inputs) + large)
        statistics = large, large**2  # of values around 0, and up to that
    else:
        outputs = L.Dense(3)(batch_norm(inputs) + 1.0)
        statistics = 0.0, 1e-8
    model = keras.Model(inputs, outputs)
    batch_norm.moving_mean.assign(np.full(5, statistics[0]))
    batch_norm.moving_variance.assign(np.full(5, statistics[1]))
    (stays,) = tfbn.fold(model)[1].kept
    assert "adds a constant that would be far larger than the values it is added to" in stays.reason


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("far", FAR)
@pytest.mark.parametrize("shifted", [False, True])
def test_no_digit_is_lost_in_rescaling(shifted, far, kind):
    """An offset that is taken off exactly before, or by the batch norm behind."""
    scaling = L.Rescaling(1.0, -10.0 * far if shifted else 0.0)
    model = chain((5,), scaling, KINDS[kind](epsilon=1e-6))
    calibrated(model, 0.0 if shifted else far, 10.0)
    folded, report = tfbn.fold(model)
    x = inputs_at(far, (64, 5), 10.0)
    exact = in_float64(model, x)
    errors = [np.abs(network(x) - exact).max() for network in (folded, model)]
    assert errors[0] <= 4 * max(errors[1], 2**-23 * np.abs(exact).max()), str(report)
    assert len(report.folded) == 1 or far > 0
