"""Finding batch norms, and reading ours and Keras' the same way."""

import keras
import numpy as np
import pytest

import reference
import tfbn
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
