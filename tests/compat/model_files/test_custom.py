"""What the caller supplies: functions, classes, activations, the backend."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import legacy_files as files
from keras1_files import CLOSE, apply, dense, dense_weights, draw
from tfbn import compat
from tfbn.data_format import channels_first


def test_lambdas_need_their_function(tmp_path):
    code = files.layer(
        "Lambda",
        "twice",
        function=["4wEAAAABAAAA", None, None],
        function_type="lambda",
        output_shape=None,
        output_shape_type="raw",
        arguments={"by": 2},
    )
    path = files.write(tmp_path / "m.h5", files.sequential(code, shape=(3,)), [])
    with pytest.raises(
        compat.UnsupportedLayerError,
        match=r"twice: is a Lambda.*bytecode, which is never run.*custom_objects=\{'twice'",
    ):
        compat.load_model(path)
    model = compat.load_model(path, custom_objects={"twice": lambda x, by: by * x})
    np.testing.assert_array_equal(model(np.ones((1, 3), "float32")), [[2, 2, 2]])


@keras.saving.register_keras_serializable(package="tests")
class Shifted(keras.layers.Layer):
    def __init__(self, units, **kwargs):
        super().__init__(**kwargs)
        self.units = units

    def build(self, input_shape):
        self.shift = self.add_weight(shape=(input_shape[-1],))

    def call(self, x):
        return x + self.shift


def test_classes_and_activations_of_the_caller(tmp_path):
    layers = [
        files.layer("Shifted", "own", units=3),
        dense("d", 2) | {"config": dense("d", 2)["config"] | {"activation": "cubed"}},
    ]
    shift, pairs = ("own", [("own_shift", draw(3))]), dense_weights("d", 3, 2)
    path = files.write(tmp_path / "m.h5", files.sequential(*layers, shape=(3,)), [shift, pairs])
    x = draw(2, 3)
    model = compat.load_model(path, custom_objects={"Shifted": Shifted, "cubed": lambda x: x**3})
    np.testing.assert_allclose(model(x), apply(x + shift[1][0][1], pairs) ** 3, **CLOSE)
    with pytest.raises(
        compat.UnsupportedLayerError, match=r"own: is no layer that can be loaded.*\(Shifted, "
    ):
        compat.load_model(path, custom_objects={"cubed": lambda x: x**3})
    with pytest.raises(compat.LegacyModelError, match="d: activation='cubed' is no activation"):
        compat.load_model(path, custom_objects={"Shifted": Shifted})
    with pytest.raises(compat.UnsupportedLayerError, match="which is no layer"):
        compat.load_model(path, custom_objects={"Shifted": int})


def test_kernels_need_their_backend(tmp_path):
    convolution = files.layer(
        "Convolution2D",
        "conv",
        nb_filter=2,
        nb_row=3,
        nb_col=1,
        dim_ordering="tf",
        border_mode="valid",
        subsample=[1, 1],
    )
    pairs = [("conv", [("W", draw(3, 1, 2, 2)), ("b", draw(2))])]
    path = files.write(tmp_path / "m.h5", files.sequential(convolution, shape=(5, 5, 2)), pairs)
    with pytest.raises(
        compat.LegacyModelError,
        match="conv: Theano turned kernels around, and the file does not say .*Pass backend='theano'",
    ):
        compat.load_model(path)


class OfOwnLayout(keras.layers.Layer):
    """A layer of the user's own, of which it is not known how to turn it."""

    def __init__(self, data_format, **kwargs):
        super().__init__(**kwargs)
        self.data_format = data_format

    def call(self, x):
        return 2 * x

    def get_config(self):
        return super().get_config() | {"data_format": self.data_format}


def test_a_model_that_cannot_be_turned_stays_channels_first_with_a_warning(tmp_path):
    conv = {"nb_filter": 5, "nb_row": 2, "nb_col": 2, "dim_ordering": "th"}
    layers = [
        files.layer("Convolution2D", "conv", **conv),
        files.layer("OfOwnLayout", "own", data_format="channels_first"),
    ]
    weights = [("conv", [("W", draw(5, 2, 2, 2)), ("b", draw(5))])]
    path = files.write(tmp_path / "m.h5", files.sequential(*layers, shape=(2, 6, 6)), weights)
    known = {"backend": "theano", "custom_objects": {"OfOwnLayout": OfOwnLayout}}
    with pytest.warns(UserWarning, match=r"'own' \(OfOwnLayout\) would stay channels first.*It stays"):
        model = compat.load_model(path, **known)
    kept = compat.load_model(path, data_format="channels_first", **known)
    # As wide as it has channels, Keras would add the bias along the last axis: kept apart from that.
    assert [layer.name for layer in model.layers] == [layer.name for layer in kept.layers]
    x = draw(3, 2, 6, 6)
    by_xla = [tf.function(network, jit_compile=True)(x) for network in (model, kept)]
    np.testing.assert_array_equal(*by_xla)
    with pytest.raises(ValueError, match="would stay channels first"):
        compat.load_model(path, data_format="channels_last", **known)


def test_an_activation_of_the_callers_is_turned_with_its_layer(tmp_path):
    conv = {"nb_filter": 5, "nb_row": 2, "nb_col": 2, "dim_ordering": "th", "activation": "own"}
    weights = [("conv", [("W", draw(5, 2, 2, 2)), ("b", draw(5))])]
    model = files.sequential(files.layer("Convolution2D", "conv", **conv), shape=(2, 6, 5))
    known = {"backend": "theano", "custom_objects": {"own": lambda x: x * keras.ops.sigmoid(x)}}
    path = files.write(tmp_path / "m.h5", model, weights)
    turned = compat.load_model(path, **known)
    assert not channels_first(turned)
    x = draw(3, 2, 6, 5)
    kept = compat.load_model(path, data_format="channels_first", **known)
    np.testing.assert_allclose(turned(x), tf.function(kept, jit_compile=True)(x), **CLOSE)
