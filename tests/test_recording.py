"""What tfbn.fold cannot look into stays whole, and the report says why."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import reference
import tfbn
from custom_layers import IMAGE, ConvBNReLU, ResNet
from networks import FLOAT32, randomize, relative_difference
from tfbn.batch_norms import batch_norms

L = keras.layers


class OwnWeights(ConvBNReLU):
    def build(self, shape):
        super().build(shape)
        self.factor = self.add_weight(shape=(), name="factor")

    def call(self, inputs, training=None):
        return super().call(inputs, training) * self.factor


class NeedsValues(ConvBNReLU):
    def call(self, inputs, training=None):
        return super().call(inputs * tf.reduce_sum(inputs), training)  # TensorFlow's own function


class Counting(ConvBNReLU):
    def build(self, shape):
        super().build(shape)
        self.counter = L.Layer(name="counter")
        self.counter.count = self.counter.add_weight(shape=(), initializer="zeros", name="count")

    def call(self, inputs, training=None):
        self.counter.count.assign_add(1.0)
        return super().call(inputs, training)


class DependsOnTheRun(ConvBNReLU):
    def call(self, inputs, training=None):
        return super().call(inputs, training) + isinstance(inputs, keras.KerasTensor)


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        (OwnWeights, "which has weights of its own; put them in a layer of their own"),
        (NeedsValues, "which does not run on symbolic tensors; call Keras layers"),
        (Counting, "which changes variables at inference"),
        (DependsOnTheRun, "which computes something else on symbolic tensors"),
    ],
)
def test_what_cannot_be_opened_stays_whole_and_says_why(kind, reason, unchanged):
    model = keras.Sequential([keras.Input(IMAGE), ConvBNReLU(name="open"), kind(name="closed")])
    randomize(model)
    with unchanged(model):
        folded, report = tfbn.fold(model)
    assert [entry.path for entry in report.folded] == ["open/bn"]
    (kept,) = report.kept
    assert kept.path == "closed/bn"
    assert kept.reason.startswith(f"it is inside 'closed' ({kind.__name__}), {reason}")
    x = reference.data((3, *IMAGE))
    assert relative_difference(folded(x), model(x, training=False)) < FLOAT32


def test_a_layer_that_random_inputs_do_not_fit_stays_whole():
    class Deep(ConvBNReLU):
        def call(self, inputs, training=None):
            if inputs.shape[1] not in (None, 8):
                raise ValueError("no such\nsize")
            return super().call(inputs, training)

    inputs = keras.Input((None, None, 4))
    model = randomize(keras.Model(inputs, Deep(name="deep")(inputs)))
    folded, report = tfbn.fold(model)
    assert "'deep' (Deep), which does not run on random inputs" in report.kept[0].reason
    assert "no such" in report.kept[0].reason
    x = reference.data((3, *IMAGE))
    np.testing.assert_array_equal(folded(x), model(x, training=False))


def test_a_subclassed_model_is_opened_at_the_sizes_that_fit_it():
    class Skip(keras.Model):
        def __init__(self):
            super().__init__()
            self.stem = ConvBNReLU(name="stem")
            self.down, self.up = L.MaxPooling2D(5), L.UpSampling2D(5)

        def call(self, inputs, training=None):
            x = self.stem(inputs, training=training)
            return x + self.up(self.down(x))

    model = Skip()
    model(np.ones((1, 10, 10, 4), "float32"))
    folded, report = tfbn.fold(randomize(model))
    assert [entry.path for entry in report.folded] == ["stem/bn"]
    assert folded.inputs[0].shape == (None, 10, 10, 4)


def test_a_subclassed_model_that_cannot_be_opened_is_an_error(unchanged):
    class Own(ResNet):
        def call(self, inputs, training=None):
            return super().call(inputs, training) * tf.reduce_max(inputs)

    model = Own()
    model(np.ones((1, *IMAGE), "float32"))
    with (
        unchanged(model),
        pytest.raises(TypeError, match=r"cannot be read: it .* symbolic tensors; call"),
    ):
        tfbn.fold(model)


def test_calls_that_depend_on_the_size_are_opened_for_the_size_that_the_model_was_built_with():
    class Sized(ResNet):
        def call(self, inputs, training=None):
            x = super().call(inputs, training)
            return x if inputs.shape[1] == 8 else -x

    model = Sized()
    model(np.zeros((1, *IMAGE), "float32"))
    folded, report = tfbn.fold(randomize(model))
    assert len(report.folded) == 4
    x = reference.data((3, *IMAGE))
    assert relative_difference(folded(x), model(x, training=False)) < FLOAT32


def test_a_call_that_depends_on_an_unknown_size_stays_whole():
    class Sized(ConvBNReLU):
        def call(self, inputs, training=None):
            x = super().call(inputs, training)
            return x if inputs.shape[1] is None or inputs.shape[1] < 36 else -x

    model = keras.Sequential([keras.Input((None, None, 4)), Sized(name="sized")])
    _, report = tfbn.fold(randomize(model))
    assert "computes something else on symbolic tensors" in report.kept[0].reason


def test_a_layer_that_is_called_as_in_training_stays_whole():
    inputs = keras.Input(IMAGE)
    model = randomize(keras.Model(inputs, ConvBNReLU(name="own")(inputs, training=True)))
    folded, report = tfbn.fold(model)
    assert "which is called with training=True" in report.kept[0].reason
    x = reference.data((3, *IMAGE))
    assert relative_difference(folded(x, training=False), model(x, training=False)) < FLOAT32


def test_a_model_of_several_arguments_is_not_opened_with_one():
    class Optional(ResNet):
        def call(self, inputs, other=None, training=None):
            return super().call(inputs if other is None else inputs * other, training)

    model = Optional()
    model(np.ones((1, *IMAGE), "float32"))
    with pytest.raises(TypeError, match=r"cannot be read: its call\(\) takes other, too"):
        tfbn.fold(model)


def test_a_batch_norm_that_is_called_outside_its_closed_layer_too_stays():
    closed = OwnWeights(name="closed")
    inputs = keras.Input(IMAGE)
    model = randomize(keras.Model(inputs, closed.bn(L.Conv2D(4, 1)(closed(inputs)))))
    folded, report = tfbn.fold(model)
    assert "which has weights of its own" in report.kept[0].reason
    assert len(batch_norms(folded)) == len(report.kept) + 1  # each is copied with what it is in
    x = reference.data((3, *IMAGE))
    assert relative_difference(folded(x), model(x, training=False)) < FLOAT32
