"""Calls that Keras records in a way in which they cannot be made again are put right."""

import keras
import pytest

import reference
import tfbn
from networks import FLOAT32, randomize, relative_difference
from tfbn.recordable import refused_arguments, specs_for_every_argument

L = keras.layers


class Head(L.Layer):
    """A batch norm behind a Dense, and something in front of them."""

    def __init__(self, before, size, **kwargs):
        super().__init__(**kwargs)
        self.before, self.size = before, size
        self.dense, self.bn = L.Dense(4, name="dense"), L.BatchNormalization(name="bn")

    def build(self, shape):
        before = self.before(keras.KerasTensor(shape)).shape
        self.dense.build((*before[:-1], self.size))
        self.bn.build((*before[:-1], 4))

    def call(self, inputs):
        return self.bn(self.dense(self.before(inputs)))


RESHAPES = {
    "known sizes": (12, 2),
    "one to be found": (-1, 3),
    "found to be the last": (8, -1),
    "flat": (-1,),
}


def reshaping(name):
    sizes = RESHAPES[name]
    known = {"flat": 24, "found to be the last": 3}.get(name, sizes[-1])
    return Head(lambda x: keras.ops.reshape(x, (keras.ops.shape(x)[0], *sizes)), known, name="head")


@pytest.mark.parametrize("name", RESHAPES)
def test_reshapes_to_the_batch_size_run_for_every_batch_size(name, tmp_path):
    model = randomize(keras.Sequential([keras.Input((2, 4, 3)), reshaping(name)]))
    folded, report = tfbn.fold(model)
    assert [entry.path for entry in report.folded] == ["head/bn"], str(report)
    folded.save(tmp_path / "m.keras")
    loaded = keras.models.load_model(tmp_path / "m.keras")
    for batch in (1, 5):
        x = reference.data((batch, 2, 4, 3))
        for other in (folded, loaded):
            assert relative_difference(other(x), model(x, training=False)) < FLOAT32


def test_a_reshape_of_unknown_sizes_stays_as_it_is():
    model = randomize(keras.Sequential([keras.Input((None, 4, 3)), reshaping("one to be found")]))
    _, report = tfbn.fold(model)
    assert "does not run on random inputs" in report.kept[0].reason


class Half(L.Layer):
    """Has a `compute_output_spec` that does not take all that its `call` does."""

    def call(self, inputs, training=None):
        return inputs if training else inputs * 0.5

    def compute_output_spec(self, inputs):
        return keras.KerasTensor(inputs.shape, inputs.dtype)


class Telling(Head):
    def __init__(self, **kwargs):
        super().__init__(lambda x: x, 3, **kwargs)
        self.half = Half(name="half")

    def call(self, inputs, training=None):
        x = self.half(inputs, training=training)
        return self.bn(self.dense(x), training=training)

    def compute_output_spec(self, inputs, training=None):
        return keras.KerasTensor((*inputs.shape[:-1], 4), inputs.dtype)


def test_a_layer_is_told_training_though_its_spec_does_not_take_it():
    assert refused_arguments(Half()) == {"training"}
    assert not refused_arguments(L.Dense(1))
    model = randomize(keras.Sequential([keras.Input((3,)), Telling(name="head")]))
    half = model.get_layer("head").half
    with specs_for_every_argument(model):
        assert half.compute_output_spec(keras.KerasTensor((2, 3)), training=False).shape == (2, 3)
    assert "compute_output_spec" not in vars(half)
    folded, report = tfbn.fold(model)
    assert [entry.path for entry in report.folded] == ["head/bn"], str(report)
    x = reference.data((5, 3))
    assert relative_difference(folded(x), model(x, training=False)) < FLOAT32


def test_a_layer_that_takes_itself_for_training_does_not_tell_the_others():
    """Keras' Resizing, which a layer without `training` cannot tell that it is none."""
    model = randomize(
        keras.Sequential([keras.Input((4, 4, 3)), Head(L.Resizing(8, 8, name="larger"), 3, name="head")])
    )
    folded, report = tfbn.fold(model)
    assert [entry.path for entry in report.folded] == ["head/bn"], str(report)
    x = reference.data((5, 4, 4, 3))
    assert relative_difference(folded(x), model(x, training=False)) < FLOAT32
