"""Models of a batch norm on its way, folded and compared."""

import keras
import numpy as np

import reference
import tfbn
from networks import FLOAT32, outputs, randomize, relative_difference
from tfbn.batch_norms import batch_norms

IMAGE = (9, 8, 4)


def functional(shape, *steps):
    """A model of steps one after the other, each a function of the tensor before."""
    inputs = x = keras.Input(shape, name="x")
    for step in steps:
        x = step(x)
    return keras.Model(inputs, x)


def weigh(model, positive=False, offset=True):
    """Random weights; batch norms with positive scales, or without an offset, if a rule needs it."""
    randomize(model)
    for layer in batch_norms(model).values():
        if layer.gamma is not None:
            signs = np.where(np.arange(layer.gamma.shape[-1]) % 2, 1, 1 if positive else -1)
            layer.gamma.assign(abs(layer.gamma) * signs)
        if not offset:
            layer.beta.assign(layer.beta * 0)
            layer.moving_mean.assign(layer.moving_mean * 0)
    return model


def alike(model, *names):
    """In all channels of the batch norms the first one's weights of these names."""
    for layer in batch_norms(model).values():
        for weight in (getattr(layer, name) for name in names):
            weight.assign(np.full(weight.shape, np.ravel(weight)[0]))
    return model


def check(model, folded, into=None, reason=None, tolerance=FLOAT32):
    """Fold, compare the outputs, the count, and where the batch norms went or why they stay."""
    x = [reference.data((5, *one.shape[1:])) + number for number, one in enumerate(model.inputs)]
    x = keras.tree.pack_sequence_as(model.input, x)
    new, report = tfbn.fold(model)
    for got, want in zip(outputs(new, x), outputs(model, x), strict=True):
        assert relative_difference(got, want) < tolerance
    assert len(report.folded) == folded, str(report)
    assert len(batch_norms(new)) == len(report.kept), str(report)
    if into is not None:
        assert {path for entry in report.folded for path in entry.into} == set(into), str(report)
    if reason is not None:
        assert any(reason in entry.reason for entry in report.kept), str(report)
    return new, report


def bn(**arguments):
    return tfbn.BatchNorm(epsilon=1e-2, **arguments)
