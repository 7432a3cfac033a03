"""Rebuilding models: the whole state carried over, and the given model left alone."""

import keras
import numpy as np
import pytest

import tfbn
from networks import chain, randomize, relative_difference
from tfbn.cloning import CloneAction, rebuild

L = keras.layers
FACTOR = 3.0  # a global, which a function unmarshalled from a file would not find


def copy(model):
    return rebuild(model, lambda layer: CloneAction.COPY)[0]


class Doubling(L.Layer):
    """Weights in sublayers, and no serialization of its own to be registered."""

    def __init__(self, units=3, **kwargs):
        super().__init__(**kwargs)
        self.units = units
        self.parts = [L.Dense(units), tfbn.BatchNorm()]

    def call(self, x, training=None):
        return 2 * self.parts[1](self.parts[0](x), training=training)

    def get_config(self):
        return super().get_config() | {"units": self.units}


def rich_model():
    normalization = L.Normalization()
    normalization.adapt(np.random.default_rng(0).normal(5, 2, (50, 4)))
    inner = keras.Sequential([keras.Input((4,)), L.Dense(4), tfbn.BatchNorm()], name="inner")
    shared = L.Dense(4, name="shared")
    a, b = keras.Input((4,), name="a"), keras.Input((4,), name="b")
    x = normalization(a)
    x = shared(x) + keras.ops.tanh(shared(b))
    x = inner(inner(x))
    x = L.Lambda(lambda x: x * FACTOR)(x)
    x = Doubling(5, name="doubling")(L.Dropout(0.5)(x))
    model = keras.Model({"a": a, "b": b}, {"y": x, "shared": keras.ops.reshape(x, (-1, 5, 1))})
    return randomize(model)


def test_a_copy_computes_the_same_and_shares_nothing(unchanged):
    model = rich_model()
    model.compile("adam", "mse")
    model.get_layer("inner").layers[1].trainable = False
    model.get_layer("doubling").parts[1].trainable = False
    x = {name: np.random.default_rng(1).normal(size=(7, 4)) for name in "ab"}
    with unchanged(model):
        new = copy(model)
        got, want = new(x), model(x)
        for name in want:
            assert relative_difference(got[name], want[name]) < 1e-6
        for variable in new.variables:
            variable.assign(variable * 0)
    assert new.get_layer("inner").layers[1].trainable is False
    assert new.get_layer("doubling").parts[1].trainable is False
    assert not new.compiled
    assert [layer.name for layer in new.layers if not isinstance(layer, L.InputLayer)] == [
        layer.name for layer in model.layers if not isinstance(layer, L.InputLayer)
    ]
    assert {tensor.name for tensor in new.inputs} == {"a", "b"}
    assert {id(v) for v in new.variables}.isdisjoint({id(v) for v in model.variables})


def test_layers_shared_between_nested_models_stay_shared():
    dense = L.Dense(4, name="both")
    first = keras.Sequential([keras.Input((4,)), dense], name="one")
    two = keras.Sequential([keras.Input((4,)), dense], name="two")
    inputs = keras.Input((4,))
    new = copy(keras.Model(inputs, two(first(inputs))))
    assert new.get_layer("one").layers[0] is new.get_layer("two").layers[0]


@pytest.mark.parametrize("wrapped", [False, True])
def test_output_padding_is_carried_over(wrapped):
    """Keras before 3.15 has no word of it in a configuration."""
    layer = L.Conv2DTranspose(2, 2, strides=3, output_padding=1)
    model = chain((2, 4, 4, 3), L.TimeDistributed(layer)) if wrapped else chain((4, 4, 3), layer)
    x = np.random.default_rng(0).normal(size=(1, *model.input_shape[1:]))
    assert model(x).shape[-2] == 12
    assert copy(model).output_shape == model.output_shape
    np.testing.assert_array_equal(copy(model)(x), model(x))


def test_assets_are_carried_over():
    lookup = L.StringLookup(output_mode="int")
    lookup.adapt(["b", "a", "b"])
    model = keras.Sequential([keras.Input((1,), dtype="string"), lookup])
    words = np.array([["a"], ["b"], ["c"]])
    np.testing.assert_array_equal(copy(model)(words), model(words))


def test_layers_can_be_replaced_and_left_out():
    model = chain((4,), L.Dense(3, name="dense"), L.ReLU(name="relu"), tfbn.BatchNorm(name="bn"))
    choices = {"relu": L.Activation("tanh", name="tanh"), "bn": CloneAction.SKIP}
    new, layers = rebuild(model, lambda layer: choices.get(layer.name, CloneAction.COPY))
    assert [layer.name for layer in new.layers][1:] == ["dense", "tanh"]
    assert layers[id(model.get_layer("dense"))] is new.get_layer("dense")
    assert id(model.get_layer("bn")) not in layers
    x = np.random.default_rng(0).normal(size=(5, 4))
    np.testing.assert_allclose(new(x), np.tanh(model.get_layer("dense")(x)), rtol=1e-6)


@pytest.mark.parametrize("sequential", [False, True])
def test_a_nested_model_can_be_left_empty(sequential, tmp_path):
    """Its input then feeds nothing, which Keras 3.10 to 3.14 refuse."""
    inputs, steps = keras.Input((4,)), [tfbn.BatchNorm(name="bn"), L.Dropout(0.5, name="drop")]
    if sequential:
        inner = keras.Sequential([inputs, *steps], name="inner")
    else:
        inner = keras.Model(inputs, steps[1](steps[0](inputs)), name="inner")
    outer = chain((3,), L.Dense(4), inner, L.ReLU())
    kept = lambda layer: CloneAction.SKIP if layer in steps else CloneAction.COPY  # noqa: E731
    new, _ = rebuild(outer, kept)
    named = [layer for layer in new.get_layer("inner").layers if not isinstance(layer, L.InputLayer)]
    assert [(type(layer), layer.name) for layer in named] == [(L.Identity, "bn")]
    new.save(tmp_path / "m.keras")
    x = np.random.default_rng(0).normal(size=(5, 3))
    for model in (new, keras.models.load_model(tmp_path / "m.keras")):
        np.testing.assert_array_equal(model(x), np.maximum(outer.layers[1](x), 0))


def test_an_input_left_to_outputs_alone_still_feeds_layers_directly():
    """Of an input that goes out as it came in, and into layers, the outputs alone pass an Identity."""
    a, b = keras.Input((4,), name="a"), keras.Input((4,), name="b")
    bn, drop = tfbn.BatchNorm(name="bn")(a), L.Dropout(0.5, name="drop")(b)
    model = keras.Model([a, b], {"a": bn, "b": L.Dense(3, name="dense")(drop), "r": L.ReLU()(bn)})
    new, _ = rebuild(
        model, lambda layer: CloneAction.SKIP if layer.name in ("bn", "drop") else CloneAction.COPY
    )
    assert [layer.name for layer in new.layers if isinstance(layer, L.Identity)] == ["bn"]
    for name, feeds in (("dense", "b"), ("re_lu", "a")):
        (layer,) = [layer for layer in new.layers if layer.name.startswith(name)]
        assert layer.input is new.inputs["ab".index(feeds)]


def test_a_layer_that_cannot_be_copied_is_named():
    class NoConfig(L.Layer):
        def __init__(self, factor):
            super().__init__(name="stubborn")
            self.factor = factor

        def call(self, x):
            return x * self.factor

    model = chain((4,), NoConfig(2.0))
    with pytest.raises(
        ValueError, match=r"(?s)'stubborn' \(NoConfig\) cannot be copied\. .*get_config\(\)"
    ):
        copy(model)
