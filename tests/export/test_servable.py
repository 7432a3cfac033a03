"""A model as a function of named tensors."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import reference
import tfbn
from networks import chain, randomize
from tfbn.export import checks, servable

L = keras.layers


@pytest.fixture(autouse=True)
def float32():
    keras.config.set_dtype_policy("float32")


def test_inputs_have_names_and_a_free_batch_size():
    tensors = {
        "the b": keras.Input((3,), name="the b"),
        "a": keras.Input((2,), dtype="int32", name="a"),
    }
    outputs = [L.Dense(2)(tensors["the b"]), {"y": L.Embedding(2, 3)(tensors["a"])}]
    model = keras.Model(tensors, outputs)
    found = servable.from_keras(model)
    assert found.specs == {
        "a": tf.TensorSpec((None, 2), tf.int32, "a"),
        "the b": tf.TensorSpec((None, 3), tf.float32, "the_b"),
    }
    inputs = {"a": np.zeros((5, 2), "int32"), "the b": reference.data((5, 3))}
    named = found.by_name(inputs)
    assert named.keys() == {"a", "the_b"}
    assert named["the_b"] is inputs["the b"]
    outputs = found.run(inputs)
    assert outputs.keys() == {"output_0", "output_1_y"}
    np.testing.assert_array_equal(outputs["output_1_y"], model(inputs)[1]["y"])
    assert found.sample_count == 4
    assert [len(batch.outputs["output_0"]) for batch in found.batches] == [4, 1]


def test_running_changes_nothing_and_runs_in_a_row_go_on():
    class Counter(L.Layer):
        def build(self, shape):
            self.count = self.add_weight(shape=(), initializer="zeros", trainable=False)

        def call(self, x):
            self.count.assign_add(1.0)
            return x + self.count

    model = chain((2,), Counter())
    model.layers[-1].count.assign(10.0)
    found = servable.from_keras(model)
    x = np.zeros((1, 2), "float32")
    for times in (1, 2, 3):
        assert found.run(x, times=times)["output_0"].tolist() == [[10.0 + times] * 2]
    assert model.layers[-1].count.numpy() == 10.0


@pytest.mark.parametrize(
    ("policy", "rtol"), [("float32", 1e-5), ("mixed_float16", 1e-2), ("mixed_bfloat16", 1e-1)]
)
def test_the_tolerance_is_that_of_the_coarsest_type(policy, rtol):
    model = chain((3,), L.Dense(2), L.Dense(2, dtype=policy))
    assert servable.from_keras(model).rtol == rtol


def test_a_model_in_place_of_another_is_held_against_its_outputs():
    model = chain((3,), L.Dense(4), tfbn.BatchNorm(), L.Dense(2))
    given = servable.from_keras(model)
    folded = servable.in_place_of(given, tfbn.fold(model)[0])
    assert folded.batches is given.batches
    assert len(folded.owner.layers) == len(model.layers) - 1
    x = reference.data((5, 3))
    np.testing.assert_allclose(folded.run(x)["output_0"], given.run(x)["output_0"], rtol=1e-4, atol=1e-5)


def test_training_inside_runs_unless_all_is_to_be_at_inference():
    inputs = keras.Input((3,))
    model = keras.Model(inputs, L.Dense(2)(tfbn.BatchNorm(name="bn")(inputs, training=True)))
    x = reference.data((8, 3))
    as_called = servable.from_keras(model)
    assert as_called.in_training == ("bn",)
    np.testing.assert_array_equal(as_called.run(x)["output_0"], model(x, training=None))
    at_inference = servable.from_keras(model, at_inference=True)
    assert at_inference.in_training == ()
    np.testing.assert_array_equal(at_inference.run(x)["output_0"], model(x, training=False))


def test_folded_models_of_a_fixed_batch_size_are_compared_on_it():
    inputs = keras.Input((4,), batch_size=2)
    x = tfbn.BatchNorm()(L.Dense(4)(inputs))
    model = keras.Model(inputs, keras.ops.reshape(x, (2, 4)) + keras.ops.ones((2, 4)))
    with pytest.raises(ValueError, match="it must run on any batch size, one included"):
        servable.from_keras(keras.Model(inputs, keras.ops.reshape(x, (2, 4))))
    compared = checks.compare_models(model, tfbn.fold(model)[0])
    assert compared.samples == 2
    assert compared.relative < 1e-5


def test_another_model_is_told_apart():
    model = chain((3,), L.Dense(2))
    other = randomize(keras.models.clone_model(model), seed=1)
    with pytest.raises(tfbn.ExportError, match=r"^The folded model's output_0 differs .* by \S+ rela"):
        checks.compare_models(model, other)
