"""`tfbn.inspect`: every batch norm of a model, and what its weights alone tell."""

import json
import re

import keras
import numpy as np
import pytest

import tfbn
from networks import chain
from tfbn import compat

L = keras.layers


@tfbn.batch_norm_at_inference
class Declared(L.BatchNormalization):
    def call(self, inputs, training=None):
        return super().call(inputs, training=training)


class Undeclared(L.BatchNormalization):
    def call(self, inputs, training=None):
        return super().call(inputs, training=training)


def network():
    """Batch norms of every kind, with weights in which nothing is remarkable."""
    inner = keras.Sequential(
        [keras.Input((6, 5, 4)), L.Conv2D(4, 3, name="conv"), tfbn.BatchNorm(name="ours"), L.ReLU()],
        name="inner",
    )
    return chain(
        (6, 5, 3),
        tfbn.BatchNorm(axis=[2, 3], decay=0.9, name="first"),
        L.Dense(4, name="dense"),
        L.BatchNormalization(momentum=0.95, epsilon=1e-5, scale=False, name="stock"),
        inner,
        L.TimeDistributed(L.BatchNormalization(center=False, name="step"), name="timed"),
        compat.BatchNormalization(name="keras1"),
        Declared(name="declared"),
        Undeclared(name="undeclared"),
    )


def test_every_batch_norm_is_listed_with_its_settings(unchanged):
    model = network()
    with unchanged(model):
        report = tfbn.inspect(model)
    rows = {row["path"]: row for row in report.rows()}
    assert [*rows] == [*report.layers]
    assert [*rows] == ["first", "stock", "inner/ours", "timed/step", "keras1", "declared"]
    first = {"class": "BatchNorm", "channels": 15, "axis": (2, 3), "decay": 0.9, "epsilon": 1e-3}
    assert rows["first"].items() >= (first | {"center": True, "scale": True, "frozen by": None}).items()
    stock = {"class": "BatchNormalization", "channels": 4, "axis": -1, "decay": 0.95, "epsilon": 1e-5}
    assert rows["stock"].items() >= (stock | {"center": True, "scale": False}).items()
    assert (rows["timed/step"]["center"], rows["timed/step"]["scale"]) == (False, True)
    assert rows["keras1"]["class"] == rows["stock"]["class"]
    assert [row["findings"] for row in rows.values()] == [""] * 6
    assert report.left.keys() == {"undeclared"}
    assert "batch_norm_at_inference" in report.left["undeclared"]


def test_where_fold_would_put_each():
    model = network()
    report, (_, folds) = tfbn.inspect(model), tfbn.fold(model)
    places = {entry.path: entry.into or entry.reason for entry in folds.entries}
    for path, layer in report.layers.items():
        into = places[path]
        expected = f"stays: {into}" if isinstance(into, str) else f"into {', '.join(into)}"
        assert layer.fold == expected
    assert report.layers["inner/ours"].fold == "into inner/conv"


def tf1_code(x, is_training=True):
    x = compat.batch_norm(x, is_training=is_training, scope="first")
    return compat.batch_norm(x, is_training=is_training, scope="second", center=False, scale=True)


def test_batch_norms_of_tf1_code_are_listed():
    layer = compat.VariableScopeLayer(tf1_code, name="tf1")
    model = chain((3,), layer)
    report = tfbn.inspect(model)
    assert [*report.layers] == ["tf1/first", "tf1/second"]
    for inner in report.layers.values():
        assert inner.numbers.decay is None
        assert inner.fold.startswith("stays: ")


def test_the_flag_that_froze_each():
    model = network()
    model.get_layer("stock").trainable = False
    model.get_layer("inner").trainable = False
    frozen = {path: layer.numbers.frozen_by for path, layer in tfbn.inspect(model).layers.items()}
    assert frozen == dict.fromkeys(frozen) | {"stock": "stock", "inner/ours": "inner"}
    model.trainable = False
    assert {layer.numbers.frozen_by for layer in tfbn.inspect(model).layers.values()} == {model.name}
    # Left on inside a frozen model, it trains.
    model.get_layer("inner").get_layer("ours").trainable = True
    assert tfbn.inspect(model).layers["inner/ours"].numbers.frozen_by is None


def spoiled(**values):
    """The findings on eight channels that are sound but for the given first values of some weights."""
    layer = tfbn.BatchNorm(name="bn", epsilon=1e-3)
    model = chain((8,), layer)
    weights = {"gamma": np.linspace(0.5, 1.5, 8), "moving_variance": np.linspace(0.5, 2, 8)}
    for name, first in values.items():
        weights[name] = np.concatenate([first, weights.get(name, np.ones(8))[len(first) :]])
    for name, value in weights.items():
        getattr(layer, name).assign(value)
    return tfbn.inspect(model).layers["bn"].findings


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({}, []),
        ({"gamma": [0, -9e-4]}, ["dead: gamma near 0 (2 of 8 channels)"]),
        ({"gamma": [-2e-3]}, []),
        ({"moving_variance": [0, 9e-6]}, ["dead: variance near 0 (2 of 8 channels)"]),
        ({"moving_variance": [1.1e-5, 9e-4, 1.1e-3]}, ["variance below epsilon (2 of 8 channels)"]),
        ({"gamma": [-150.0, 60]}, ["exploding scale (1 of 8 channels, up to 212)"]),
        ({"beta": [np.nan, np.inf]}, ["NaN or infinity in beta (2 of 8 channels)"]),
        ({"moving_mean": [np.nan]}, ["NaN or infinity in moving_mean (1 of 8 channels)"]),
        ({"moving_variance": [-1e-3]}, ["negative moving_variance (1 of 8 channels)"]),
        (
            {"gamma": [2e6]},
            [
                "huge gamma, up to 2e+06 (1 of 8 channels)",
                "exploding scale (1 of 8 channels, up to 2.83e+06)",
            ],
        ),
    ],
)
def test_what_weights_tell(values, expected):
    assert list(spoiled(**values)) == expected


def test_statistics_at_initial_values():
    inputs = keras.Input((3,))
    zero_one, other = (
        tfbn.BatchNorm(name="a"),
        L.BatchNormalization(moving_mean_initializer=keras.initializers.Constant(0.5), name="b"),
    )
    model = keras.Model(inputs, other(zero_one(inputs)))
    report = tfbn.inspect(model)
    assert report.layers["a"].findings == ("moving statistics at their initial values 0 and 1",)
    assert report.layers["b"].findings == ("moving statistics at their initial values 0.5 and 1",)
    other.moving_mean.assign([0.5, 0.5, 0.51])
    assert tfbn.inspect(model).layers["b"].findings == ()


def test_the_report_prints_and_is_json(tmp_path):
    model = network()
    model.get_layer("stock").moving_variance.assign([0, 1, 1, 1])
    model.save(tmp_path / "m.keras")
    with keras.saving.custom_object_scope({"Declared": Declared, "Undeclared": Undeclared}):
        report = tfbn.inspect(tmp_path / "m.keras")
    assert report.summary == f"{model.name}: 6 batch norms, something remarkable in 1 by the weights."
    for text in (report.summary, "inner/conv", "dead: variance near 0", "left: ", "2, 3"):
        assert text in str(report)
    parsed = json.loads(json.dumps(report.as_dict()))
    assert [row["path"] for row in parsed["layers"]] == [*report.layers]


def test_what_cannot_be_inspected(tmp_path):
    unbuilt = keras.Sequential([tfbn.BatchNorm()], name="m")
    message = (
        "The model 'm' cannot be looked into: it is not built, and has no weights. Call the model on a "
        "batch, or start it with keras.Input."
    )
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        tfbn.inspect(unbuilt)
    with pytest.raises(TypeError, match="^inspect takes a keras.Model or the path of a .keras f"):
        tfbn.inspect(__file__)
    with pytest.raises(TypeError, match="'none.keras', where there is nothing. Check the path"):
        tfbn.inspect("none.keras")
    (tmp_path / "text.keras").write_text("no model")
    with pytest.raises(ValueError, match="text.keras cannot be loaded as a Keras model. If K"):
        tfbn.inspect(str(tmp_path / "text.keras"))
    without = chain((4,), L.Dense(2))
    assert tfbn.inspect(without).summary == f"{without.name}: it has no batch norm."
