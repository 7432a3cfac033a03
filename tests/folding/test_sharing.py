"""tfbn.fold: every user of a tensor and every call of a layer take part, or none does."""

import keras
import pytest

import tfbn
from folds import IMAGE, bn, check, weigh

L = keras.layers


def test_batch_norms_that_agree_go_together():
    def model(alike):
        inputs = keras.Input(IMAGE)
        x = L.Conv2D(4, 2, name="conv")(inputs)
        model = weigh(keras.Model(inputs, [L.ReLU()(bn(name="a")(x)), bn(name="b")(x)]))
        if alike:
            model.get_layer("a").set_weights(model.get_layer("b").get_weights())
        return model

    check(model(alike=True), folded=2, into=["conv"])
    check(model(alike=False), folded=0, reason="used by more than this batch norm: by 'b' too")


def test_the_reason_of_another_batch_norm_is_not_its_own():
    inputs = keras.Input(IMAGE)
    x = L.Conv2D(4, 2, name="conv")(inputs)
    training = bn(name="b")(x, training=True)
    model = weigh(keras.Model(inputs, [bn(name="a")(x), training]))
    reasons = {entry.path: entry.reason for entry in tfbn.fold(model)[1].kept}
    assert "used by more than this batch norm: by 'b' too" in reasons["a"]
    assert "called with training=True" in reasons["b"]


@pytest.mark.parametrize("alike", [True, False])
def test_a_shared_layer_folds_where_its_calls_agree(alike):
    a, b = keras.Input((4,)), keras.Input((4,))
    dense = L.Dense(5, name="dense")
    model = weigh(keras.Model([a, b], [bn(name="a")(dense(a)), L.ReLU()(bn(name="b")(dense(b)))]))
    if alike:
        model.get_layer("a").set_weights(model.get_layer("b").get_weights())
    check(model, folded=2 * alike, reason=None if alike else "'dense' is shared")


def test_a_shared_batch_norm_folds_where_all_its_calls_can():
    inputs = keras.Input(IMAGE)
    shared = bn(name="bn")
    x = shared(L.Conv2D(4, 1, name="b")(shared(L.Conv2D(4, 1, name="a")(inputs))))
    check(weigh(keras.Model(inputs, x)), folded=1, into="ab")
    x = shared(L.Conv2D(4, 1, name="b")(L.ReLU()(shared(inputs))))
    check(weigh(keras.Model(inputs, x)), folded=0, reason="it normalises an input of the model")
    x = L.Conv2D(4, 1)(shared(shared(inputs)))
    check(weigh(keras.Model(inputs, x)), folded=0, reason="is shared, and one of its calls feeds")
    two = [
        L.Conv2D(4, 1, name=name)(shared(f(inputs)))
        for name, f in zip("ab", (L.ReLU(), L.ELU()), strict=True)
    ]
    check(weigh(keras.Model(inputs, two)), folded=1, into="ab")


def test_a_shared_layer_takes_its_input_where_its_calls_agree():
    def model(second):
        inputs = keras.Input((4,))
        dense = L.Dense(3, name="dense")
        x = bn()(L.Activation("tanh")(inputs))
        return weigh(keras.Model(inputs, [dense(x), dense(second(x, inputs))]))

    check(model(lambda x, _: L.Dropout(0.5)(x)), folded=1, into=["dense"])
    check(model(lambda _, inputs: inputs), folded=0, reason="'dense' is shared")
    check(model(lambda x, _: x + 1.0), folded=0, reason="'dense' is shared")


def test_forwards_into_every_consumer():
    def model(offset, **arguments):
        inputs = keras.Input(IMAGE)
        x = bn()(L.Activation("tanh")(inputs))
        outputs = [L.Conv2D(3, 2, name="a")(x), L.Conv2D(3, 2, name="b", **arguments)(x)]
        return weigh(keras.Model(inputs, outputs), offset=offset)

    check(model(offset=True), folded=1, into="ab")
    check(model(offset=True, padding="same"), folded=0, reason="'b' pads its input with zeros")
    check(model(offset=False, padding="same"), folded=1, into="ab")
    check(model(offset=True, activation="tanh"), folded=1, into="ab")


def test_a_weight_in_another_layer_too_keeps_its_value():
    class Holder(L.Layer):
        def __init__(self, held=None, **kwargs):
            super().__init__(**kwargs)
            self.held = held

        def call(self, x):
            return x @ keras.ops.transpose(self.held.kernel)

        def get_config(self):
            return super().get_config() | {"held": keras.saving.serialize_keras_object(self.held)}

        @classmethod
        def from_config(cls, config):
            held = keras.saving.deserialize_keras_object(config.pop("held"))
            return cls(held, **config)

    inputs = keras.Input((4,))
    dense = L.Dense(5, name="dense")
    model = keras.Model(inputs, Holder(dense, name="holder")(bn()(dense(inputs))))
    check(weigh(model), folded=0, reason="'dense' has a weight in common with 'holder'")
