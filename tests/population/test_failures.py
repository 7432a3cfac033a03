"""A measurement that fails says why, and leaves the model as it was."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import tfbn
from networks import chain, randomize
from population_data import TARGETS, Sequence, X, unequal_batches
from tfbn.batch_norms import batch_norms

L = keras.layers


class EndlessSequence(Sequence):
    def __len__(self):
        raise NotImplementedError

    @property
    def num_batches(self):
        return None


def failing(what):
    for number, (x, y) in enumerate(unequal_batches()):
        if number == 2:
            if what == "exception":
                raise RuntimeError("the disk is gone")
            bad = np.full_like(x, 1)
            bad[0, 0, 0, 1] = {"nan": np.nan, "infinity": np.inf}[what]
            yield bad, y
        else:
            yield x, y


REPEATED = tf.data.Dataset.from_tensor_slices(X).batch(20).repeat
FAILURES = {
    "short": (
        unequal_batches,
        {"steps": 9},
        ValueError,
        r"ended after 5 of steps=9 batches\. Pass more",
    ),
    "empty array": (lambda: X[:0], {}, ValueError, "data holds no batch"),
    "empty generator": (lambda: iter(()), {}, ValueError, "data holds no batch"),
    "empty dataset": (lambda: REPEATED(0), {}, ValueError, "data holds no batch"),
    "nan": (
        lambda: failing("nan"),
        {},
        ValueError,
        r"^Batch 3 gives the batch norm 'first' NaN or infin",
    ),
    "infinity": (lambda: failing("infinity"), {}, ValueError, "^Batch 3 gives the batch norm 'first'"),
    "exception": (lambda: failing("exception"), {}, tf.errors.OpError, "the disk is gone"),
    "exception at once": (lambda: (1 / 0 for _ in X), {}, ZeroDivisionError, "division by zero"),
    "wrong shape": (
        lambda: X[..., :2],
        {},
        ValueError,
        r"^Batch 1 has the shape \(32, 6, 5, 2\), and .* takes \(None, 6, 5, 3\)\.",
    ),
    "endless": (
        REPEATED,
        {},
        ValueError,
        r"RepeatDataset never ends\. Say how many .* steps=100",
    ),
    "endless sequence": (EndlessSequence, {}, ValueError, "EndlessSequence never ends"),
    "no data": (lambda: None, {}, ValueError, r"^data must be arrays or batches .*, received None\."),
    "a number": (lambda: 3, {}, ValueError, r"^data must be arrays or batches .*, received 3\."),
    "steps": (lambda: X, {"steps": 0}, ValueError, "^steps must be a positive number .* received int 0"),
    "targets for steps": (
        lambda: X,
        {"steps": TARGETS},
        ValueError,
        r"received ndarray (.|\n)*model, \(x, y\)",
    ),
    "short array": (lambda: X[:64], {"steps": 3}, ValueError, "data ended after 2 of steps=3 batches"),
    "too many arrays": (
        lambda: [X, X],
        {},
        ValueError,
        r"a list of 2 arrays, .* has 1\. For batches pass",
    ),
}


@pytest.mark.parametrize("name", FAILURES)
def test_failures_leave_the_model_as_it_was(model, name, unchanged):
    data, arguments, error, message = FAILURES[name]
    with unchanged(model), pytest.raises(error, match=message):
        tfbn.recalibrate(model, data(), verbose=0, **arguments)
    assert not any("call" in vars(layer) for layer in batch_norms(model).values())


def test_a_variance_needs_two_values(unchanged):
    model = chain((3,), tfbn.BatchNorm(name="first"))
    with (
        unchanged(model),
        pytest.raises(ValueError, match="could be measured. first: it saw 1 value in a channel, and"),
    ):
        tfbn.recalibrate(model, np.ones((1, 3)), verbose=0)


def test_an_exception_in_the_model_leaves_it_as_it_was(unchanged):
    class Trap(L.Layer):
        def call(self, x):
            raise RuntimeError("sprung")

        def compute_output_shape(self, shape):
            return shape

    layers = [tfbn.BatchNorm(name="first"), Trap()]
    inputs = keras.Input((6, 5, 3))

    class Model(keras.Model):
        def __init__(self):
            super().__init__()
            self.parts = layers

        def call(self, x):
            return self.parts[1](self.parts[0](x))

    model = Model()
    layers[0](inputs)
    with unchanged(model), pytest.raises(RuntimeError, match="sprung"):
        tfbn.recalibrate(model, X, verbose=0)
    assert "call" not in vars(layers[0])


def test_statistics_that_do_not_fit_the_weights_change_nothing(unchanged):
    # Each batch's statistics fit float32, and the squared distance of their means does not.
    model = randomize(chain((3,), tfbn.BatchNorm(name="first")))
    x = [(np.full((2, 3), mean, "float32"),) for mean in (-3e19, 3e19)]
    with (
        unchanged(model),
        pytest.raises(ValueError, match="statistics of 'first' do not fit its float32"),
    ):
        tfbn.recalibrate(model, x, verbose=0)


def test_models_with_nothing_to_measure():
    with pytest.raises(ValueError, match="has no batch norm to measure: it has none. Were"):
        tfbn.population_statistics(chain((3,), L.Dense(2)), X, verbose=0)
    model = chain((3,), tfbn.BatchNorm())
    model.trainable = False
    with pytest.raises(ValueError, match="no batch norm to measure: its 1 are all frozen"):
        tfbn.population_statistics(model, X, verbose=0)
    with pytest.raises(TypeError, match="^model must be a keras.Model, received str: 'model'"):
        tfbn.population_statistics("model", X)
