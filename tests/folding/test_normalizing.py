"""tfbn.fold: batch norms, Rescaling and Normalization take up a batch norm."""

import inspect

import keras
import numpy as np
import pytest

import reference
import tfbn
from folds import IMAGE, alike, bn, check, functional, weigh
from networks import randomize
from tfbn.cloning import cast_before_layers

L = keras.layers


@pytest.mark.parametrize("kind", [tfbn.BatchNorm, L.BatchNormalization])
def test_batch_norms_merge_where_they_cannot_go(kind):
    model = functional(
        IMAGE, L.Activation("tanh"), kind(name="a"), L.Dropout(0.5), kind(name="b"), L.ReLU()
    )
    new, report = check(weigh(model), folded=1)
    (entry,) = report.folded
    (kept,) = report.kept
    assert entry.into == (kept.path,)
    assert type(new.get_layer(kept.path)) is kind
    model = functional(
        IMAGE, L.Activation("tanh"), kind(), kind(center=False, scale=False), L.Dense(3, name="dense")
    )
    check(randomize(model), folded=2, into=["dense"])
    steps = (L.Conv2D(3, 2, name="conv"), kind(), kind(), L.Activation("tanh"))
    check(randomize(functional(IMAGE, *steps)), folded=2, into=["conv"])
    model = functional(IMAGE, L.Activation("tanh"), kind(axis=1), kind(), L.ReLU())
    check(randomize(model), folded=0, reason="which is not the channel axis")


@pytest.mark.parametrize("kind", [tfbn.BatchNorm, L.BatchNormalization])
def test_a_batch_norm_without_gamma_and_beta_gets_both(kind):
    last = kind(name="b", center=False, scale=False)
    model = functional(IMAGE, L.Activation("tanh"), bn(), last, L.ReLU())
    check(weigh(model), folded=1, into="b")


def test_batch_norms_of_several_axes_merge():
    several = lambda name: bn(axis=[1, 3], name=name)  # noqa: E731
    model = functional(IMAGE, L.Activation("tanh"), several("a"), several("b"), L.ReLU())
    check(weigh(model), folded=1, into="b")
    check(alike(model, "gamma", "beta", "moving_mean", "moving_variance"), folded=1, into="b")


def test_a_batch_norm_in_training_takes_nothing_up():
    training = lambda x: bn(name="b")(x, training=True)  # noqa: E731
    model = functional(IMAGE, L.Activation("tanh"), bn(), training, L.ReLU())
    check(weigh(model), folded=0, reason="forwards, 'b' is called with training=True")


@pytest.mark.skipif(
    "renorm" not in inspect.signature(L.BatchNormalization).parameters,
    reason="before Keras 3.14 it has no renorm",
)
def test_a_batch_norm_with_more_weights_than_its_map_needs():
    kind = lambda name: L.BatchNormalization(name=name, renorm=True)  # noqa: E731
    model = functional(IMAGE, L.Activation("tanh"), kind("a"), kind("b"), L.ReLU())
    check(weigh(model), folded=1, into="b")


@pytest.mark.parametrize("before", ["float32", "mixed_float16"])
def test_a_batch_norm_that_widens_its_input_stays(before):
    first, last = L.Activation("tanh", dtype=before), L.Dense(3, dtype="float32")
    model = functional((4,), first, bn(dtype="float32"), lambda x: x * 2.0, last)
    # Where Keras casts by an operation of the graph, that one widens, and not the batch norm.
    goes = before == "float32" or cast_before_layers() is not None
    check(weigh(model), folded=int(goes), tolerance=1e-2)


def test_where_a_merged_batch_norm_goes_in_the_end():
    # Two negative scales cross no pool, but their product does.
    steps = (L.Conv2D(4, 2, name="conv"), L.MaxPooling2D(), bn(name="a"), bn(name="b"), L.ReLU())
    model = weigh(functional(IMAGE, *steps))
    for name in "ab":
        model.get_layer(name).gamma.assign([-1.0, -2, -1, -0.5])
    check(model, folded=2, into=["conv"])


def test_a_batch_norm_merges_across_a_pool():
    inputs = keras.Input(IMAGE)
    x = bn(name="a")(L.Activation("tanh")(inputs))
    x = bn(name="b")(L.MaxPooling2D()(x))
    model = keras.Model(inputs, L.Conv2D(3, 2, name="conv", padding="same")(x))
    check(weigh(model), folded=0, reason="a negative scale does not pass")
    check(weigh(model, positive=True), folded=1, into="b")


@pytest.mark.parametrize("scale", [1 / 255, [0.5, -2.0, 3.0, 0.1]])
def test_rescaling(scale):
    model = functional(IMAGE, L.Rescaling(scale, offset=-1.0, name="rescaling"), bn(), L.ReLU())
    check(weigh(model), folded=1, into=["rescaling"])
    model = functional(IMAGE, L.Rescaling(scale), bn(axis=1), L.ReLU())
    check(weigh(model), folded=0, reason="which is not the channel axis")


@pytest.mark.parametrize("arguments", [{"scale": [[1.0, 2, 3, 4]]}, {"scale": 2.0, "offset": [[1.0]]}])
def test_rescaling_along_several_axes(arguments):
    model = functional(IMAGE, L.Rescaling(**arguments), bn(), L.ReLU())
    check(weigh(model), folded=0, reason="scales along several axes")


@pytest.mark.parametrize("scale", [2.0, [0.5, -2.0, 3.0, 0.1]])
def test_rescaling_that_depends_on_the_configuration(scale, monkeypatch):
    model = weigh(functional(IMAGE, L.Rescaling(scale, name="rescaling"), bn(), L.ReLU()))
    monkeypatch.setattr(keras.config, "image_data_format", lambda: "channels_first")
    assert "image_data_format" in tfbn.fold(model)[1].kept[0].reason
    alike(model, "gamma", "beta", "moving_mean", "moving_variance")
    new, report = tfbn.fold(model)
    assert len(report.folded) == (scale == 2.0)
    assert np.ndim(new.get_layer("rescaling").scale) == np.ndim(scale)


def test_normalization():
    def model(**arguments):
        layer = L.Normalization(name="normalization", **arguments)
        if "mean" not in arguments:
            layer.adapt(reference.data((64, *IMAGE)))
        return functional(IMAGE, layer, bn(), L.ReLU())

    for arguments in ({}, {"mean": [1.0, 2, 3, 4], "variance": [4.0, 1, 2, 3]}):
        check(weigh(model(**arguments), positive=True), folded=1, into=["normalization"])
    check(weigh(model()), folded=0, reason="cannot take up a scale that is not positive")
    check(weigh(model(axis=1), positive=True), folded=0, reason="does not normalise just the last axis")
    check(weigh(model(invert=True), positive=True), folded=0, reason="not normalise just the last axis")


def test_statistics_of_a_normalization_that_are_alike_or_zero():
    def model(*variance):
        layer = L.Normalization(mean=[1.0, 2, 3, 4], variance=variance)
        return weigh(functional(IMAGE, layer, bn(name="bn"), L.ReLU()), positive=True)

    check(alike(model(2.0, 2, 2, 2), "gamma", "moving_variance"), folded=1)
    zero = model(0.0, 1, 2, 3)
    zero.get_layer("bn").set_weights([np.full(4, value) for value in (0.5, 1.0, 2.0, 1.0)])
    check(zero, folded=1)
    zero.get_layer("bn").gamma.assign([0.5, 1, 0, 1])
    check(zero, folded=0, reason="cannot take up a scale that is not positive")


@pytest.mark.parametrize(
    ("dtype", "deviation"), [("float32", 1e-8), ("float32", 1e21), ("mixed_float16", 1e-3)]
)
def test_a_deviation_that_a_normalization_cannot_have(dtype, deviation):
    # Keras divides by 1e-7 where it is less, and float16 has no digits of its square.
    keras.config.set_dtype_policy(dtype)
    layer = L.Normalization(mean=[0.0] * 4, variance=[1.0] * 4)
    model = weigh(functional((4,), layer, tfbn.BatchNorm(epsilon=1e-14), L.ReLU()), positive=True)
    model.layers[-2].set_weights([np.full(4, value) for value in (0.1 / deviation, 0.5, 0.0, 1e-2)])
    check(model, folded=0, reason="too small or too large", tolerance=1e-2)
