"""A diagnosis measures what `population_statistics` measures, in models of every kind."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import reference
import tfbn
from networks import chain
from tfbn import compat

L = keras.layers

X = reference.data((96, 6), seed=3).astype("float32")
SEQUENCES = reference.data((96, 5, 3), seed=4).astype("float32")
SEQUENCES[:, 3:] = 0


def tf1_code(x, is_training=True):
    x = compat.batch_norm(x, is_training=is_training, scope="a")
    return compat.batch_norm(x, is_training=is_training, scope="b")


@keras.saving.register_keras_serializable("tests")
class Subclassed(keras.Model):
    def __init__(self):
        super().__init__()
        self.first = tfbn.BatchNorm(name="first")
        self.second = L.BatchNormalization(name="second")

    def call(self, x, training=None):
        return self.second(self.first(x, training=training), training=False)


def mirrored():
    strategy = tf.distribute.MirroredStrategy(["CPU:0"])
    with strategy.scope():
        model = keras.Sequential([keras.Input((6,)), L.BatchNormalization()])
        model.compile("sgd", "mse")
    model.fit(X, X, verbose=0)
    return model


MODELS = {
    "TF1 code": (lambda: chain((6,), compat.VariableScopeLayer(tf1_code, name="tf1")), X),
    "not built": (lambda: keras.Sequential([L.Dense(4), L.BatchNormalization(), tfbn.BatchNorm()]), X),
    "two axes": (lambda: chain((5, 3), tfbn.BatchNorm(axis=[1, 2])), SEQUENCES),
    "mask": (lambda: chain((5, 3), L.Masking(), L.BatchNormalization()), SEQUENCES),
    "by steps": (lambda: chain((5, 3), L.TimeDistributed(tfbn.BatchNorm())), SEQUENCES),
    "subclassed": (Subclassed, X),
    "mirrored": (mirrored, X),
}


@pytest.mark.parametrize("name", MODELS)
def test_the_same_statistics(name):
    build, x = MODELS[name]
    model = build()
    measured = tfbn.population_statistics(model, x, verbose=0)
    report = tfbn.diagnose(model, x, verbose=0)
    assert report.layers.keys() == measured.keys()
    assert report.left == measured.left
    for path, statistics in measured.items():
        found = report.layers[path].population
        np.testing.assert_array_equal(found.mean, statistics.mean)
        np.testing.assert_array_equal(found.variance, statistics.variance)
        assert found.count == statistics.count
    assert report.effect.outputs > 0
    assert str(report)
    assert all(row["values a batch"] <= row["values"] for row in report.rows())


def test_steps_under_a_strategy():
    (layer,) = tfbn.diagnose(mirrored(), X, verbose=0).layers.values()
    assert layer.evidence.steps == 3


@pytest.mark.parametrize(
    ("data", "read_twice"),
    [
        (tf.data.Dataset.from_tensor_slices((X, X)).batch(32), True),
        (iter(np.split(X, 3)), False),
        ([(x,) for x in np.split(X, 3)], False),
    ],
)
def test_data_of_every_kind(data, read_twice):
    model = chain((6,), tfbn.BatchNorm(name="bn"))
    model.compile("sgd", "mse")
    report = tfbn.diagnose(model, data, verbose=0)
    evidence = report.layers["bn"].evidence
    assert (evidence.samples, evidence.batches, evidence.count) == (96, 3, 96)
    np.testing.assert_allclose(evidence.population.mean, X.mean(0, dtype="float64"), rtol=1e-6)
    assert (report.effect is not None) == read_twice
    assert not read_twice or report.effect.before.keys() == {"loss"}
