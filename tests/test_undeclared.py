"""Models with a call of their own are opened for what they were built on, in its structure."""

import keras
import numpy as np
import pytest

import tfbn
from custom_layers import IMAGE, ConvBNReLU
from networks import FLOAT32, outputs, randomize, relative_difference
from tfbn.batch_norms import batch_norms

L = keras.layers


class Pair(keras.Model):
    """Calls a layer on each of two images."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.left, self.right = ConvBNReLU(name="left"), ConvBNReLU(name="right")
        self.head = L.Dense(3, name="head")

    def pair(self, left, right, training=None):
        return self.head(self.left(left, training=training) + self.right(right, training=training))


class OfDictionary(Pair):
    def call(self, inputs, training=None):
        return {"scores": self.pair(inputs["a"], inputs["b"], training)}


class OfList(Pair):
    def call(self, inputs, training=None):
        return self.pair(*inputs, training)


class OfNested(Pair):
    def call(self, inputs, training=None):
        return self.pair(inputs["images"][0], inputs["images"][1], training)


class Declaring(keras.Model):
    """Made from an input and an output, with a call of its own."""

    def __init__(self):
        image = keras.Input(IMAGE, name="image")
        super().__init__({"image": image}, ConvBNReLU(name="block")(image))

    def call(self, inputs, training=None):
        return super().call({"image": inputs["image"] / 2.0}, training=training)


class DeclaringSequential(keras.Sequential):
    def __init__(self):
        super().__init__([keras.Input(IMAGE), ConvBNReLU(name="block")])

    def call(self, inputs, training=None, mask=None):
        return super().call(inputs * 2.0, training=training)


class Words(keras.Model):
    """Looks its inputs up."""

    def __init__(self, count=5000):
        super().__init__()
        self.table = L.Embedding(count, 4, name="table")
        self.dense, self.bn = L.Dense(4, name="dense"), L.BatchNormalization(name="bn")

    def call(self, inputs, training=None):
        return self.bn(self.dense(self.table(inputs)), training=training)


class Flat(Words):
    """Takes the length that it was built on, and no other."""

    def call(self, inputs, training=None):
        words = keras.ops.reshape(self.table(inputs), (-1, inputs.shape[1] * 4))
        return self.bn(self.dense(words), training=training)


def image(seed, batch=2, size=8):
    return np.random.default_rng(seed).normal(size=(batch, size, size, 4)).astype("float32")


def ids(length=6):
    return np.random.default_rng(0).integers(0, 5000, (3, length)).astype("int32")


CASES = {
    "a dictionary": (OfDictionary, {"a": image(0), "b": image(1)}, 2),
    "a list": (OfList, [image(0), image(1)], 2),
    "a tuple": (OfList, (image(0), image(1)), 2),
    "a nested structure": (OfNested, {"images": [image(0), image(1)]}, 2),
    "declared inputs": (Declaring, {"image": image(0)}, 1),
    "declared by a Sequential": (DeclaringSequential, image(0), 1),
    "words": (Words, ids(), 1),
    "words of one length": (Flat, ids(), 1),
}


def made(name):
    kind, inputs, count = CASES[name]
    model = kind()
    model(inputs)
    return randomize(model), inputs, count


@pytest.mark.filterwarnings("error:.*structure of `inputs`", "error:.*all keys in the dict")
@pytest.mark.parametrize("name", CASES)
def test_it_folds_and_takes_the_same_inputs(name, tmp_path):
    model, inputs, count = made(name)
    folded, report = tfbn.fold(model)
    assert [entry.path for entry in report.folded] == list(batch_norms(model))
    assert len(report.folded) == count
    folded.save(tmp_path / "folded.keras")
    for other in (folded, keras.models.load_model(tmp_path / "folded.keras")):
        for got, want in zip(outputs(other, inputs), outputs(model, inputs), strict=True):
            assert relative_difference(got, want) < FLOAT32


@pytest.mark.filterwarnings("ignore:.*moving statistics")
@pytest.mark.parametrize("name", CASES)
def test_it_is_exported_with_the_signature_that_it_has_unfolded(name, tmp_path):
    model, inputs, _ = made(name)
    report = tfbn.export(model, tmp_path / "folded", samples=inputs)
    whole = tfbn.export(model, tmp_path / "whole", samples=inputs, fold=False)
    assert (report.inputs, report.outputs) == (whole.inputs, whole.outputs)
    assert report.fold is not None
    assert len(report.fold.kept) == 0


def test_words_fold_for_any_length_and_number_even_in_half_precision():
    keras.config.set_dtype_policy("mixed_float16")
    model = Words()
    model(ids())
    randomize(model)
    folded, _ = tfbn.fold(model)
    assert folded.input.dtype == "int32"
    # Float16 holds every integer up to 2048 alone.
    words = np.array([[4095, 4097, 4999]])
    assert relative_difference(folded(words), model(words, training=False)) < 1e-2


def test_other_arguments_are_named_with_a_way_that_helps():
    class Scaled(ConvBNReLU):
        def call(self, inputs, factor=None, training=None):
            x = super().call(inputs, training=training)
            return x if factor is None else x * factor

    class Model(keras.Model):
        def __init__(self):
            super().__init__()
            self.block = Scaled(name="block")

        def call(self, inputs, factor=None, training=None):
            return self.block(inputs, factor, training=training)

    model = Model()
    factor = np.full((2, 1, 1, 1), 2.0, "float32")
    model(image(0), factor)
    randomize(model)
    with pytest.raises(TypeError, match=r"call\(\) takes factor, too; .* keras.Model\(inputs, model"):
        tfbn.fold(model)
    inputs = [keras.Input(IMAGE), keras.Input((1, 1, 1))]
    folded, report = tfbn.fold(keras.Model(inputs, model(*inputs)))
    assert len(report.folded) == 1
    assert (
        relative_difference(folded([image(0), factor]), model(image(0), factor, training=False))
        < FLOAT32
    )


def test_a_model_that_says_nothing_of_what_it_was_built_on():
    class Silent(OfList):
        def get_build_config(self):
            return None

    model = Silent()
    model([image(0), image(1)])
    with pytest.raises(TypeError, match="does not say what it was built on; call it on keras.Input"):
        tfbn.fold(model)
