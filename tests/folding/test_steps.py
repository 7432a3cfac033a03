"""Batch norms in TimeDistributed: folded and converted inside it, into it and out of it."""

import keras
import numpy as np
import pytest

import tfbn
from networks import chain, relative_difference
from tfbn.batch_norms import batch_norms

pytestmark = pytest.mark.both
L = keras.layers
KINDS = [tfbn.BatchNorm, L.BatchNormalization]


def steps(layer, **arguments):
    return L.TimeDistributed(layer, **arguments)


def images(*layers):
    return keras.Sequential([keras.Input((6, 6, 3)), *layers])


def backbone(kind):
    inputs = keras.Input((6, 6, 3))
    x = L.ReLU()(kind()(L.Conv2D(4, 3, use_bias=False)(inputs)))
    y = kind()(L.Conv2D(4, 1)(x))
    return keras.Model(inputs, L.GlobalAveragePooling2D()(L.Add()([x, y])))


# What of each folds: all, unless told.
SEQUENCES = {
    "both by steps": lambda kind: [steps(L.Conv2D(4, 3)), steps(kind())],
    "forward, by steps": lambda kind: [steps(kind()), steps(L.Conv2D(4, 3))],
    "a dense layer before": lambda kind: [L.Dense(4), steps(kind())],
    "a batch norm after": lambda kind: [steps(L.Conv2D(4, 3)), kind()],
    "a batch norm before": lambda kind: [kind(), steps(L.Conv2D(4, 3))],
    "a model": lambda kind: [steps(backbone(kind))],
    "a Sequential": lambda kind: [steps(images(L.Conv2D(4, 3), kind(), L.ReLU()))],
    "out of a model": lambda kind: [steps(images(L.Conv2D(4, 3))), kind()],
    "across a layer": lambda kind: [steps(L.Conv2D(4, 3)), steps(L.AveragePooling2D(2)), kind()],
    "twice": lambda kind: [steps(L.Conv2D(4, 3)), steps(L.Dropout(0.5)), steps(kind()), steps(kind())],
    "by steps of steps": lambda kind: [steps(L.Dense(4)), steps(steps(kind()))],
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", SEQUENCES)
def test_batch_norms_fold_through_steps(name, kind, unchanged):
    model = chain((5, 6, 6, 3), *SEQUENCES[name](kind))
    x = np.random.default_rng(0).normal(size=(2, 5, 6, 6, 3)).astype("float32")
    with unchanged(model):
        folded, report = tfbn.fold(model)
    assert not report.kept, str(report)
    assert not batch_norms(folded)
    assert relative_difference(folded(x), model(x)) < 1e-5


def test_a_batch_norm_that_varies_along_time_stays():
    model = chain((5, 3), tfbn.BatchNorm(axis=1, name="bn"), steps(L.Dense(4)), L.ReLU())
    (kept,) = tfbn.fold(model)[1].kept
    assert "it varies along the steps that" in kept.reason


def test_a_layer_inside_and_outside_is_one_layer():
    shared, inputs = L.Dense(3), keras.Input((5, 3))
    outputs = tfbn.BatchNorm()(steps(shared)(inputs)), shared(inputs)
    model = keras.Model(inputs, outputs)
    (kept,) = tfbn.fold(model)[1].kept
    assert "is shared" in kept.reason
    folded = tfbn.fold(model)[0]
    assert len(folded.weights) == 2 + 4


@pytest.mark.parametrize("inner", [lambda kind: kind(name="bn"), backbone])
def test_convert_there_and_back(inner):
    model = chain((5, 6, 6, 3), steps(inner(L.BatchNormalization), name="timed"))
    ours = tfbn.convert(model)
    back = tfbn.convert(ours, to=L.BatchNormalization)
    assert batch_norms(ours).keys() == batch_norms(model).keys() == batch_norms(back).keys()
    assert {type(layer) for layer in batch_norms(ours).values()} == {tfbn.BatchNorm}
    assert {type(layer) for layer in batch_norms(back).values()} == {L.BatchNormalization}
    x = np.random.default_rng(0).normal(size=(2, 5, 6, 6, 3)).astype("float32")
    assert relative_difference(ours(x), model(x)) < 1e-6
    for array, expected in zip(back.get_weights(), model.get_weights(), strict=True):
        np.testing.assert_array_equal(array, expected)


def test_precision_reaches_inside():
    model = chain((5, 6, 6, 3), steps(backbone(tfbn.BatchNorm)))
    folded, _ = tfbn.fold(model, dtype="float16")
    assert {variable.dtype for variable in folded.weights} == {"float16"}
