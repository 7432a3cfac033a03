"""The names that a SavedModel's inputs have."""

import keras

import tfbn

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
