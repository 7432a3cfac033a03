"""The names that a SavedModel's inputs have."""

import keras
import pytest

import tfbn
from networks import chain

L = keras.layers


def test_inputs_without_a_name_are_called_inputs(tmp_path):
    model = keras.Sequential([keras.Input((3,), batch_size=2), L.Dense(2), tfbn.BatchNorm()])
    report = tfbn.export(model, tmp_path / "m")
    assert report.inputs == {"inputs": ((None, 3), "float32")}
    inputs = [keras.Input((3,)), keras.Input((3,))]
    two = keras.Model(inputs, L.Add()(inputs))
    assert tfbn.export(two, tmp_path / "n").inputs.keys() == {"inputs_0", "inputs_1"}
    two.save(tmp_path / "two.keras")
    loaded = keras.models.load_model(tmp_path / "two.keras")
    assert tfbn.export(loaded, tmp_path / "o").inputs.keys() == {"inputs_0", "inputs_1"}


def test_names_that_python_arguments_cannot_hold(tmp_path):
    names = ["input_layer", "input_layer_x", "class", "self", "1st"]
    names += ["_x", "ünï", "B", "b", "a-b", "a_b", "a_b_12", "a b"]
    inputs = [keras.Input((2,), name=name) for name in names]
    report = tfbn.export(keras.Model(inputs, L.Add()(inputs)), tmp_path / "m")
    assert len(report.inputs) == len(names)
    assert {"inputs_0", "input_layer_x", "input_class", "input_1st", "B"} <= report.inputs.keys()


@pytest.mark.parametrize("names", [["pixels"], ("input_layer",)])
def test_names_that_are_chosen(names, tmp_path):
    model = chain((3,), keras.layers.Dense(2))
    assert tfbn.export(model, tmp_path / "m", input_names=names).inputs.keys() == set(names)


def test_chosen_names_are_in_the_order_of_the_model(tmp_path):
    a, b = keras.Input((3,), name="a"), keras.Input((2,), name="b")
    model = keras.Model({"a": a, "b": b}, keras.layers.Concatenate()([b, a]))
    report = tfbn.export(model, tmp_path / "m", input_names=["first", "second"])
    assert report.inputs == {"first": ((None, 3), "float32"), "second": ((None, 2), "float32")}


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["a", "b"], r"1 name, one for each input of the model, received \['a', 'b'\]"),
        ("pixels", "1 name, .* received 'pixels'"),
        ([3], r"1 name, .* received \[3\]"),
        (["class"], r"no words of Python's own, received \['class'\]"),
        (["a b"], r"of letters, digits and _, .* received \['a b'\]"),
        (["self"], r"received \['self'\]"),
    ],
)
def test_names_that_cannot_be(names, message, tmp_path):
    with pytest.raises(ValueError, match=f"^input_names must be .*{message}"):
        tfbn.export(chain((3,), keras.layers.Dense(2)), tmp_path / "m", input_names=names)
