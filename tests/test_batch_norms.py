"""Finding batch norms, and reading ours and Keras' the same way."""

import re
import sys
import weakref

import keras
import numpy as np
import pytest

import reference
import tfbn
from networks import chain, relative_difference
from tfbn.batch_norms import batch_norms, inference_affine, is_batch_norm, layer_paths, sublayers

L = keras.layers


class Block(L.Layer):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.listed = [L.BatchNormalization(name="in_list"), tfbn.BatchNorm(name="twin")]
        self.named = {"key": tfbn.BatchNorm(name="in_dict")}
        self.direct = L.BatchNormalization(name="twin")

    def call(self, x):
        return self.direct(self.named["key"](self.listed[1](self.listed[0](x))))


def nested():
    inputs = keras.Input((4,))
    inner = keras.Sequential([keras.Input((4,)), L.Dense(4), tfbn.BatchNorm(name="bn")], name="inner")
    x = inner(inner(Block(name="block")(tfbn.BatchNorm(name="bn")(inputs))))
    x = L.TimeDistributed(L.BatchNormalization(name="step"), name="timed")(L.Reshape((2, 2))(x))
    return keras.Model(inputs, x)


def test_batch_norms_are_found_wherever_they_are():
    paths = batch_norms(nested())
    twins = {path for path in paths if path.startswith("block/twin")}
    assert twins == {"block/twin", "block/twin_1"}
    assert paths.keys() - twins == {"bn", "block/in_list", "block/in_dict", "inner/bn", "timed/step"}


def test_paths_name_each_layer_once():
    model = nested()
    paths = layer_paths(model)
    assert len({id(layer) for layer in paths.values()}) == len(paths)
    assert paths["inner"] is model.get_layer("inner")
    assert paths["inner/bn"] is model.get_layer("inner").get_layer("bn")


def test_a_batch_norm_alone_is_found():
    layer = tfbn.BatchNorm(name="alone")
    assert batch_norms(layer) == {"alone": layer}


def test_a_subclass_with_its_own_call_is_no_batch_norm():
    class Same(L.BatchNormalization):
        pass

    class Different(L.BatchNormalization):
        def call(self, inputs, training=None, mask=None):
            return 2 * super().call(inputs, training=training, mask=mask)

    assert is_batch_norm(Same())
    assert not is_batch_norm(Different())
    assert not is_batch_norm(L.LayerNormalization())


class Frozen(L.BatchNormalization):
    """As Mask R-CNN's, YOLO's and keras-resnet's: never in training while it is frozen."""

    def call(self, inputs, training=None, mask=None):
        return super().call(inputs, training=bool(training) and self.trainable, mask=mask)


class Never(L.BatchNormalization):
    """At inference always."""

    def call(self, inputs):
        return super().call(inputs, training=False)


def with_subclass(kind):
    layers = [
        L.Dense(4, name="before"),
        kind(name="bn"),
        L.ReLU(),
        L.Dense(3),
        tfbn.BatchNorm(name="own"),
    ]
    return chain((5,), *layers)


UNDECLARED = (
    r"Frozen has a call\(\) of its own, which may compute anything; if it is batch norm at inference, "
    r"declare it: tfbn\.batch_norm_at_inference\(Frozen\)"
)


def test_a_subclass_with_a_call_of_its_own_is_named_everywhere():
    model = with_subclass(Frozen)
    (kept,) = tfbn.fold(model)[1].kept
    assert (kept.path, kept.kind) == ("bn", "Frozen")
    assert re.fullmatch(UNDECLARED, kept.reason)
    x = reference.data((40, 5))
    measured = tfbn.recalibrate(model, x, verbose=0)
    assert measured.keys() == {"own"}
    assert re.fullmatch(UNDECLARED, measured.left["bn"])
    with pytest.warns(UserWarning, match="^Left as they are: bn, subclasses of"):
        assert isinstance(tfbn.convert(model).get_layer("bn"), Frozen)
    alone = chain((5,), Frozen(name="bn"))
    with pytest.raises(
        ValueError, match=rf"no batch norm to measure: of bn \({UNDECLARED}\) none needs"
    ):
        tfbn.population_statistics(alone, x, verbose=0)


@pytest.fixture
def declared(monkeypatch):
    # `tfbn.batch_norms` is the function.
    monkeypatch.setattr(sys.modules["tfbn.batch_norms"], "_DECLARED", weakref.WeakSet())
    assert tfbn.batch_norm_at_inference(Frozen) is Frozen
    tfbn.batch_norm_at_inference(Never)


@pytest.mark.usefixtures("declared")
@pytest.mark.parametrize("kind", [Frozen, Never])
def test_a_declared_subclass_folds_like_a_batch_norm(kind):
    model = with_subclass(kind)
    folded, report = tfbn.fold(model)
    assert len(report.folded) == 2
    x = reference.data((40, 5))
    assert relative_difference(folded(x), model(x)) < 1e-6
    with pytest.warns(UserWarning, match="^Left as they are: bn, subclasses of"):
        converted = tfbn.convert(model)
    assert type(converted.get_layer("bn")) is kind
    np.testing.assert_allclose(converted(x), model(x), rtol=1e-6, atol=1e-6)


@pytest.mark.usefixtures("declared")
def test_a_declared_subclass_is_measured_if_it_trains_so():
    x = reference.data((40, 5))
    model = with_subclass(Frozen)
    statistics = tfbn.recalibrate(model, [(x,)], verbose=0)["bn"]
    np.testing.assert_allclose(statistics.mean, model.get_layer("before")(x).numpy().mean(0), rtol=1e-5)
    np.testing.assert_allclose(model.get_layer("bn").moving_mean, statistics.mean, rtol=1e-6)
    measured = tfbn.recalibrate(with_subclass(Never), [(x,)], verbose=0)
    assert measured.left == {"bn": "the model's own code runs it with training=False, in training too"}


@pytest.mark.usefixtures("declared")
def test_what_derives_from_a_declared_class_is_not_declared():
    class Further(Frozen):
        def call(self, inputs, training=None, mask=None):
            return 2 * super().call(inputs, training=training, mask=mask)

    assert is_batch_norm(Frozen())
    assert not is_batch_norm(Further())


@pytest.mark.parametrize("wrong", [L.LayerNormalization, L.BatchNormalization(), None])
def test_only_classes_of_batch_norms_are_declared(wrong):
    with pytest.raises(TypeError, match=r"^batch_norm_at_inference takes a subclass of keras"):
        tfbn.batch_norm_at_inference(wrong)


@pytest.mark.parametrize("kind", [tfbn.BatchNorm, L.BatchNormalization])
@pytest.mark.parametrize("flags", [{}, {"center": False}, {"scale": False}])
def test_inference_affine(kind, flags):
    layer = kind(epsilon=1e-2, **flags)
    layer.build((None, 6))
    p = reference.parameters((6,))
    for name, variable in (("gamma", layer.gamma), ("beta", layer.beta)):
        if variable is not None:
            variable.assign(p[name])
        else:
            p[name] = None
    layer.moving_mean.assign(p["mean"])
    layer.moving_variance.assign(p["variance"])
    want = reference.affine(p["mean"], p["variance"], p["beta"], p["gamma"], 1e-2)
    np.testing.assert_allclose(inference_affine(layer), want, rtol=1e-6, atol=1e-6)  # float32 weights


def test_the_private_list_of_sublayers_is_where_it_was():
    block = Block()
    assert hasattr(block, "_flatten_layers"), (
        "keras.layers.Layer._flatten_layers has moved: find its successor for batch_norms.sublayers"
    )
    assert len(sublayers(block)) == 4
