"""Models of a batch norm on its way, folded and compared."""

import keras
import numpy as np

import reference
import tfbn
from networks import FLOAT32, outputs, randomize, relative_difference, unchanged
from tfbn.batch_norms import batch_norms

L = keras.layers
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


def check(model, folded, into=None, reason=None, tolerance=FLOAT32, x=None):
    """Fold, compare the outputs, the count, and where the batch norms went or why they stay.

    The model stays as it was. With `x` given, its first sample alone is compared, too.
    """
    if x is None:
        arrays = [
            reference.data((5, *tensor.shape[1:])) + number for number, tensor in enumerate(model.inputs)
        ]
        batches = [keras.tree.pack_sequence_as(model.input, arrays)]
    else:
        batches = [x, x[:1]]
    with unchanged(model):
        new, report = tfbn.fold(model)
    for batch in batches:
        for got, want in zip(outputs(new, batch), outputs(model, batch), strict=True):
            assert relative_difference(got, want) < tolerance
    assert len(report.folded) == folded, str(report)
    assert len(batch_norms(new)) == len(report.kept) == len(batch_norms(model)) - folded, str(report)
    assert {entry.path for entry in report.entries} == batch_norms(model).keys()
    assert {id(v) for v in new.variables}.isdisjoint({id(v) for v in model.variables})
    if into is not None:
        assert {path for entry in report.folded for path in entry.into} == set(into), str(report)
    if reason is not None:
        assert any(reason in entry.reason for entry in report.kept), str(report)
    return new, report


def two_branches():
    inputs = keras.Input((8, 8, 4))
    conv = L.Conv2D(4, 3, padding="same", name="conv")(inputs)
    return inputs, conv


def bn(**arguments):
    return tfbn.BatchNorm(epsilon=1e-2, **arguments)
