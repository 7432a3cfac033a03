"""tfbn.fold looks into custom layers called with constants, strings, or what may be left out."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import tfbn
from networks import FLOAT32, outputs, randomize, relative_difference

L = keras.layers


def samples(model):
    random = np.random.default_rng(0)
    arrays = [random.normal(size=(3, *tensor.shape[1:])).astype("float32") for tensor in model.inputs]
    return arrays if len(arrays) > 1 else arrays[0]


class Shifted(L.Layer):
    """Takes a constant with its input, so long that its text leaves most numbers out."""

    def __init__(self):
        super().__init__()
        self.dense, self.bn = L.Dense(2000), L.BatchNormalization()

    def call(self, inputs, shift):
        return self.bn(self.dense(inputs)) + shift


def test_calls_with_different_constants_are_different_calls():
    inputs, layer = keras.Input((3,)), Shifted()
    shift = np.zeros((1, 2000), "float32")
    other = shift.copy()
    other[0, 1000] = 5
    for second, count in ((shift.copy(), 1), (other, 0)):
        model = randomize(keras.Model(inputs, [layer(inputs, shift), layer(inputs, second)]))
        folded, report = tfbn.fold(model)
        assert len(report.folded) == count, str(report)
        x = samples(model)
        for got, want in zip(outputs(folded, x), outputs(model, x), strict=True):
            assert relative_difference(got, want) < FLOAT32


def test_a_layer_that_takes_strings():
    class Words(L.Layer):
        def __init__(self):
            super().__init__()
            self.numbers = L.StringLookup(vocabulary=["a", "b"])
            self.table, self.bn = L.Embedding(3, 4), L.BatchNormalization()

        def call(self, inputs):
            return self.bn(self.table(self.numbers(inputs)))

    inputs = keras.Input((2,), dtype="string")
    model = randomize(keras.Model(inputs, Words()(inputs)))
    folded, report = tfbn.fold(model)
    assert len(report.folded) == 1, str(report)
    x = tf.constant([["a", "b"], ["c", "a"]])
    assert relative_difference(folded(x), model(x)) < FLOAT32


class Summing(L.Layer):
    """Takes a second input or none."""

    def __init__(self):
        super().__init__()
        self.dense, self.bn = L.Dense(4), L.BatchNormalization()

    def call(self, inputs, other=None):
        return self.bn(self.dense(inputs if other is None else inputs + other))


class OwnCall(keras.Model):
    def call(self, inputs, training=None):
        return 2 * super().call(inputs, training=training)


def test_a_layer_given_an_input_that_may_be_left_out_stays():
    inputs = [keras.Input((3,)), keras.Input((3,), optional=True)]
    model = randomize(keras.Model(inputs, Summing()(*inputs)))
    folded, report = tfbn.fold(model)
    assert "which is given an input that may be left out" in report.kept[0].reason
    x = samples(model)
    for given in (x, [x[0], None]):
        np.testing.assert_array_equal(folded(given), model(given))
    with pytest.raises(TypeError, match="is given an input that may be left out"):
        tfbn.fold(OwnCall(inputs, Summing()(*inputs)))


def test_operations_that_keras_names_as_layers_are():
    class Named(L.Layer):
        def __init__(self):
            super().__init__()
            self.dense, self.bn = L.Dense(3, name="add"), L.BatchNormalization(name="add_1")

        def call(self, inputs):
            return self.bn(self.dense(inputs)) + inputs

    inputs = keras.Input((3,))
    model = randomize(keras.Model(inputs, Named()(inputs)))
    keras.utils.clear_session()  # the next operation of a kind has its first name again
    folded, report = tfbn.fold(model)
    assert len(report.folded) == 1, str(report)
    x = samples(model)
    assert relative_difference(folded(x), model(x)) < FLOAT32


def test_a_second_try_of_opening_forgets_the_first_one():
    """The reasons of layers that stay are those of the try that succeeds."""

    class Scaled(Scaling):
        """Has a weight of its own, for which it stays."""

        def build(self, shape):
            super().build(shape)
            self.factor = self.add_weight(shape=(), name="factor")

        def call(self, inputs):
            return self.bn(self.dense(inputs)) * self.factor

    inputs = keras.Input((None, 4))
    inner = keras.Model(inputs, Scaled(name="scaled")(inputs), name="inner")

    class Sized(keras.Model):
        """Computes something else for the size that it was built on, which shows at last."""

        def __init__(self):
            super().__init__()
            self.inner, self.head = inner, L.Dense(2, name="head")
            self.bn = L.BatchNormalization(name="last")

        def call(self, inputs, training=None):
            x = self.head(self.inner(inputs, training=training))
            return self.bn(x if inputs.shape[1] == 6 else -x, training=training)

    model = Sized()
    model(np.ones((2, 6, 4), "float32"))
    randomize(model)
    _, report = tfbn.fold(model)
    reasons = {entry.path: entry.reason for entry in report.kept}
    assert "has weights of its own" in reasons["inner/scaled/bn"]


def test_a_subclassed_model_that_calls_a_layer_in_several_ways():
    class Several(keras.Model):
        def __init__(self):
            super().__init__()
            self.block = Scaling(name="block")
            self.head, self.bn = L.Dense(2, name="head"), L.BatchNormalization(name="last")

        def call(self, inputs, training=None):
            x = self.block(self.block(inputs, factor=2.0), factor=3.0)
            return self.bn(self.head(x), training=training)

    model = Several()
    x = np.random.default_rng(0).normal(size=(3, 4)).astype("float32")
    model(x)
    randomize(model)
    folded, report = tfbn.fold(model)
    assert [entry.path for entry in report.folded] == ["last"]
    assert "is called in several ways" in report.kept[0].reason
    assert relative_difference(folded(x), model(x, training=False)) < FLOAT32


class Scaling(L.Layer):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.dense, self.bn = L.Dense(4, name="dense"), L.BatchNormalization(name="bn")

    def build(self, shape):
        self.dense.build(shape)
        self.bn.build((*shape[:-1], 4))

    def call(self, inputs, factor=1.0):
        return self.bn(self.dense(inputs)) * factor
