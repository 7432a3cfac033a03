"""tfbn.fold reads graphs: calls, uses, structures, nested models, and those it cannot read."""

import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf

import reference
import tfbn
from folds import check, two_branches
from networks import FLOAT32, chain, randomize, relative_difference
from tfbn.folding.keras.read import read

L = keras.layers


def test_sequential():
    model = keras.Sequential(
        [keras.Input((8, 8, 3)), L.Conv2D(4, 3), tfbn.BatchNorm(), L.ReLU(), L.Flatten(), L.Dense(2)]
    )
    check(randomize(model), folded=1, x=reference.data((3, 8, 8, 3)))
    assert isinstance(tfbn.fold(model)[0], keras.Sequential)


def test_nested_models_called_twice():
    innermost = keras.Sequential(
        [keras.Input((4,)), L.Dense(4), L.BatchNormalization(name="b")], name="n"
    )
    inputs = keras.Input((4,))
    inner = keras.Model(inputs, tfbn.BatchNorm(name="b")(L.Dense(4)(innermost(inputs))), name="inner")
    inputs = keras.Input((4,))
    model = randomize(keras.Model(inputs, inner(keras.ops.tanh(inner(inputs)))))
    _, report = check(model, folded=2, x=reference.data((5, 4)))
    assert {entry.path for entry in report.folded} == {"inner/b", "inner/n/b"}
    assert all(entry.into[0].startswith("inner/") for entry in report.folded)


def test_a_nested_functional_model_may_be_an_output_and_an_input():
    inputs = keras.Input((4,))
    inner = keras.Model(inputs, tfbn.BatchNorm(name="b")(L.Dense(4)(inputs)), name="inner")
    inputs = keras.Input((4,))
    once, twice = inner(inputs), inner(inner(inputs))
    model = keras.Model(inputs, [once, twice, L.Dense(2, name="last")(once)])
    graph = read(model)
    outputs = [call.outputs[0] for call in graph.calls if call.op.origin is inner.get_layer("b")]
    users = [{user.op.name if user else "model" for user in tensor.users} for tensor in outputs]
    dense = inner.layers[1].name
    assert sorted(map(sorted, users)) == [[dense], ["last", "model"], ["model"]]


def test_structured_inputs_and_outputs_with_operations():
    a, b = keras.Input((6, 4), name="a"), keras.Input((4,), name="b")
    x = tfbn.BatchNorm()(L.Conv1D(4, 3)(a)) * 2.0
    y = tfbn.BatchNorm()(L.Dense(4)(b)) - keras.ops.mean(x, axis=1)
    model = randomize(
        keras.Model({"a": a, "b": b}, {"x": x, "y": [y, keras.ops.reshape(y, (-1, 2, 2))]})
    )
    new, report = tfbn.fold(model)
    assert len(report.folded) == 2
    data = {"a": reference.data((5, 6, 4)), "b": reference.data((5, 4))}
    for got, want in zip(keras.tree.flatten(new(data)), keras.tree.flatten(model(data)), strict=True):
        assert relative_difference(got, want) < FLOAT32


def test_inputs_passed_by_name():
    inputs = keras.Input((4,))
    model = randomize(keras.Model(inputs, tfbn.BatchNorm()(inputs=L.Dense(3)(inputs=inputs))))
    check(model, folded=1, x=reference.data((5, 4)))


def test_the_rank_is_that_of_this_call():
    dense = L.Dense(7)
    dense(keras.Input((4,)))  # an earlier call, at another rank
    model = chain((7, 4), dense, tfbn.BatchNorm(axis=1))
    _, report = check(model, folded=0, x=reference.data((3, 7, 4)))
    assert "it varies along axis 1, which is not the channel axis 2" in report.entries[0].reason


def test_optional_and_sparse_inputs_stay_so():
    given = keras.Input((4,), name="x")
    optional = keras.Input((4,), optional=True, name="o")

    outputs = tfbn.BatchNorm()(L.Dense(3)(L.Add()([given, optional])))
    new, _ = tfbn.fold(keras.Model([given, optional], outputs))
    inputs = {layer.name: layer for layer in new.layers if isinstance(layer, L.InputLayer)}
    assert (inputs["x"].optional, inputs["o"].optional) == (False, True)
    sparse = keras.Sequential([keras.Input((4,), sparse=True), L.Dense(3), tfbn.BatchNorm()])
    assert tfbn.fold(sparse)[0].inputs[0].sparse


def test_layers_without_a_configuration_are_shared():
    class NoConfig(L.Layer):
        def __init__(self, thing):
            super().__init__()
            self.thing = thing

        def call(self, x):
            return x

    model = randomize(chain((4,), NoConfig(object()), L.Dense(3), tfbn.BatchNorm()))
    _, report = tfbn.fold(model)
    assert len(report.folded) == 1
    assert report.shared == (model.layers[1].name,)


def test_an_argument_without_a_configuration_is_an_error_that_says_so(tmp_path):
    class Factor:
        number = 2.0

    class Scaled(L.Layer):
        def call(self, x, by=None):
            return x * by.number

    inputs = keras.Input((4,))
    model = keras.Model(inputs, tfbn.BatchNorm()(L.Dense(3)(Scaled()(inputs, by=Factor()))))
    with pytest.raises(ValueError, match="cannot be read, because a layer is called with an argument"):
        tfbn.fold(model)
    assert tfbn.export(model, tmp_path / "m", fold=False).samples == 4  # which needs no configuration


def test_graphs_show_calls_uses_and_outputs():
    inputs, conv = two_branches()
    model = keras.Model(inputs, [L.Add(name="add")([L.ReLU(name="relu")(conv), conv]), conv])
    by_name = {call.op.name: call for call in read(model).calls}
    (conv,) = by_name["conv"].outputs
    assert by_name["relu"].inputs == [conv]
    assert [user and user.op.name for user in conv.users] == ["relu", "add", None]
    assert by_name["conv"].inputs[0].producer is None
    assert (conv.shape, conv.dtype) == ((None, 8, 8, 4), "float32")


def test_models_that_cannot_be_read():
    class Subclassed(keras.Model):
        def call(self, x):
            return tf.abs(x)  # TensorFlow's own function, which takes no symbolic tensor of Keras

    with pytest.raises(TypeError, match="^fold needs a keras.Model, received str: 'model'"):
        tfbn.fold("model")
    with pytest.raises(
        ValueError, match=r"is not built, so it has no weights to fold\. Call it on a batch"
    ):
        tfbn.fold(keras.Sequential([L.Dense(2)]))
    two = [keras.Input((4,)), keras.Input((4,))]
    undeclared = keras.Sequential([keras.Model(two, L.Add()(two)), L.Dense(3), tfbn.BatchNorm()])
    undeclared([np.ones((2, 4)), np.ones((2, 4))])
    folded, report = tfbn.fold(undeclared)  # its `call` is read on what it was built on
    assert len(report.folded) == 1
    x = [np.ones((3, 4), "float32"), np.full((3, 4), 2, "float32")]
    np.testing.assert_allclose(folded(x), undeclared(x, training=False), rtol=1e-5, atol=1e-6)
    model = Subclassed()
    model(np.ones((2, 3), "float32"))
    with pytest.raises(
        TypeError, match=r"\(Subclassed\) cannot be read: .* with fold=False and samples="
    ):
        tfbn.fold(model)


def test_reading_layers_leaves_the_automatic_names_alone(tmp_path):
    """A model that is built after a fold has the names that it would have had without."""
    code = (
        "import keras, tfbn; x = keras.Input((3,)); "
        "m = keras.Model(x, keras.layers.BatchNormalization()(keras.layers.Dense(2)(x))); "
        "tfbn.fold(m); tfbn.export(m, 'm', fold=False); print(keras.layers.Add().name)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=tmp_path
    )
    assert done.stdout.split()[-1] == "add"
