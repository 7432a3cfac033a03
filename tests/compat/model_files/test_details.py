"""Details in which releases, files and global settings differ, and files that would take for ever."""

import json

import keras
import numpy as np
import pytest
import tensorflow as tf

import legacy_files as files
from draws import RANDOM
from tfbn import compat
from tfbn.compat.model_files.layers import legacy_layers

CLOSE = {"rtol": 1e-6, "atol": 1e-6}  # a rounding or two of float32


def one_layer(tmp_path, layer, shape, version="2.2.4", backend="tensorflow", weights=()):
    config = files.sequential(layer, shape=shape) | {"keras_version": version}
    pairs = [(layer["config"]["name"], list(weights))] if weights else []
    return files.write(tmp_path / "m.h5", config, pairs, version, backend)


def upsampling(tmp_path, version, backend="tensorflow"):
    layer = files.layer("UpSampling2D", "up", size=[2, 3], interpolation="bilinear")
    return one_layer(tmp_path, layer, (4, 5, 2), version, backend)


def interpolated(x, factor, axis, shift):
    """Linear interpolation at (i + shift) / factor - shift, clamped to the axis."""
    size = x.shape[axis]
    at = np.clip((np.arange(size * factor) + shift) / factor - shift, 0, size - 1)
    low = np.floor(at).astype(int)
    high = np.minimum(low + 1, size - 1)
    part = (at - low).reshape([-1 if number == axis else 1 for number in range(x.ndim)])
    return np.take(x, low, axis) * (1 - part) + np.take(x, high, axis) * part


@pytest.mark.parametrize(
    ("version", "shift"),
    [("2.2.4", 0), ("2.3.1", 0), ("2.1.6-tf", 0), ("2.3.0-tf", 0.5), ("2.5.0", 0.5)],
)
def test_bilinear_upsampling_of_each_release(tmp_path, version, shift):
    """TensorFlow's resize changed between 1.14 and 1.15: tensorflow #33691."""
    model = compat.load_model(upsampling(tmp_path, version))
    x = RANDOM.normal(0, 1, (2, 4, 5, 2))
    wanted = interpolated(interpolated(x, 2, 1, shift), 3, 2, shift)
    np.testing.assert_allclose(model(np.float32(x)), wanted, **CLOSE)
    model.save(tmp_path / "m.keras")
    np.testing.assert_allclose(
        keras.models.load_model(tmp_path / "m.keras")(np.float32(x)), wanted, **CLOSE
    )


def test_bilinear_upsampling_that_the_file_does_not_tell(tmp_path):
    path = upsampling(tmp_path, "2.2.4-tf")  # TensorFlow 1.13 to 2.1
    with pytest.raises(compat.UnsupportedLayerError, match=r"custom_objects=\{'UpSampling2D'"):
        compat.load_model(path)
    model = compat.load_model(path, custom_objects={"UpSampling2D": keras.layers.UpSampling2D})
    assert model.layers[0].interpolation == "bilinear"
    with pytest.raises(compat.UnsupportedLayerError, match="TensorFlow backend only"):
        compat.load_model(upsampling(tmp_path, "2.2.4", "theano"))


@pytest.mark.parametrize(
    ("layer", "version", "length"),
    [
        (files.layer("GlobalMaxPooling1D", "one"), "1.2.2", None),
        (files.layer("ZeroPadding1D", "one", padding=1), "1.2.2", 6),
        (files.layer("ZeroPadding1D", "one", padding=[1, 1]), "2.1.2", 6),
    ],
    ids=["pooling", "padding", "padding of Keras 2"],
)
def test_sequences_are_channels_last_whatever_keras_is_set_to(tmp_path, layer, version, length):
    keras.config.set_image_data_format("channels_first")
    try:
        model = compat.load_model(one_layer(tmp_path, layer, (4, 3), version))
    finally:
        keras.config.set_image_data_format("channels_last")
    assert model.output_shape == ((None, 3) if length is None else (None, length, 3))


def test_the_release_of_the_weights_tells_what_they_are(tmp_path):
    """An architecture of 1.0.5, where running_std was a deviation, with weights of 1.2.2."""
    layer = files.layer("BatchNormalization", "bn", mode=0, axis=-1, epsilon=0.0, momentum=0.9)
    arrays = zip(("gamma", "beta", "mean", "std"), ([1, 1], [0, 0], [0, 0], [4, 16]), strict=True)
    path = one_layer(
        tmp_path, layer, (2,), "1.2.2", weights=[(f"bn_{name}", array) for name, array in arrays]
    )
    config = files.sequential(layer, shape=(2,)) | {"keras_version": "1.0.5"}
    (tmp_path / "m.json").write_text(json.dumps(config))
    model = compat.load_model(tmp_path / "m.json", weights=path)
    np.testing.assert_allclose(model(np.ones((1, 2), "float32")), [[0.5, 0.25]], **CLOSE)


@pytest.mark.parametrize("data_format", [None, "channels_first"])
def test_an_activation_along_the_last_axis_stays_along_it(tmp_path, data_format):
    """Channels first, a softmax was along the length of a sequence."""
    config = {"filters": 4, "kernel_size": [1], "activation": "softmax", "data_format": "channels_first"}
    kernel, bias = RANDOM.normal(0, 1, (1, 2, 4)), RANDOM.normal(0, 1, 4)
    layer = files.layer("Conv1D", "one", **config)
    weights = [("one/kernel:0", kernel), ("one/bias:0", bias)]
    path = one_layer(tmp_path, layer, (2, 5), "2.2.4", "tensorflow", weights=weights)
    model = compat.load_model(path, data_format=data_format)
    x = np.float32(RANDOM.normal(0, 1, (3, 2, 5)))
    wanted = np.exp(np.einsum("ncl,cf->nfl", x, kernel[0]) + bias[:, np.newaxis])
    wanted /= wanted.sum(-1, keepdims=True)
    found = tf.function(model, jit_compile=True)(x)  # which runs it on every processor
    np.testing.assert_allclose(found, wanted, **CLOSE)


def test_synchronized_batch_norms_train_as_they_did(tmp_path):
    """tf.keras never fused them: the variance is biased."""
    layer = files.layer("SyncBatchNormalization", "bn", axis=[3], epsilon=0.1, momentum=0.9)
    names = ("gamma", "beta", "moving_mean", "moving_variance")
    weights = [(f"bn/{name}:0", np.ones(3)) for name in names]
    model = compat.load_model(one_layer(tmp_path, layer, (2, 2, 3), "2.6.0", weights=weights))
    assert model.layers[0].synchronized
    x = np.float32(RANDOM.normal(0, 1, (2, 2, 2, 3)))
    model(x, training=True)
    moved = 0.9 + 0.1 * x.var((0, 1, 2))
    np.testing.assert_allclose(model.layers[0].moving_variance, moved, **CLOSE)


class Halved(keras.layers.Layer):
    def call(self, x):
        return x / 2


def test_layers_of_the_caller_with_slashes_in_their_names(tmp_path):
    path = one_layer(tmp_path, files.layer("Halved", "a/b"), (3,))
    assert compat.load_model(path, custom_objects={"Halved": Halved}).layers[0].name == "a_b"


def test_rescaling_needs_its_scale(tmp_path):
    path = one_layer(tmp_path, files.layer("Rescaling", "r", offset=1.0), (3,), "2.6.0")
    with pytest.raises(compat.LegacyModelError, match="lacks 'scale'"):
        compat.load_model(path)


def test_states_of_a_huge_batch(tmp_path):
    layer = files.layer("SimpleRNN", "rnn", units=2, stateful=True, activation="tanh")
    layer["config"] |= {"batch_input_shape": [10**9, 3, 1]}
    weights = [("k", np.ones((1, 2))), ("r", np.ones((2, 2))), ("b", np.ones(2))]
    config = {"class_name": "Sequential", "config": [layer], "keras_version": "2.2.4"}
    path = files.write(tmp_path / "m.h5", config, [("rnn", weights)], "2.2.4", "tensorflow")
    with pytest.raises(compat.LegacyModelError, match="stateful for batches of 1000000000"):
        compat.load_model(path)


def nested(depth, times):
    """A model that calls one within `times` times, and so on: times ** depth calls, a small file."""
    source = files.layer("InputLayer", "x", batch_input_shape=[None, None])
    inner = files.layer("Activation", "a", activation="tanh") | {"inbound_nodes": [[["x", 0, 0]]]}
    end = ["a", 0, 0]
    for level in range(depth):
        layers = [source | {"name": "x", "inbound_nodes": []}, inner | {"name": end[0]}]
        config = {
            "name": f"m{level}",
            "layers": layers,
            "input_layers": [["x", 0, 0]],
            "output_layers": [end],
        }
        calls = [[["x", 0, 0]], *([[f"m{level}", call, 0]] for call in range(1, times))]
        inner = {"class_name": "Model", "config": config, "inbound_nodes": calls}
        end = [f"m{level}", times, 0]
    layers = [source | {"name": "x", "inbound_nodes": []}, inner | {"name": end[0]}]
    layers[0]["config"] = {"name": "x", "batch_input_shape": [None, 4]}
    config = {"name": "m", "layers": layers, "input_layers": [["x", 0, 0]], "output_layers": [end]}
    return {"class_name": "Model", "config": config, "keras_version": "2.2.4"}


def stepped(steps):
    """Steps within steps, through a model."""
    layer = files.layer("Activation", "a", activation="tanh")
    for number in range(2):
        layer = files.layer("TimeDistributed", f"t{number}", layer=layer)
        shape = [None, *[steps] * (number + 1), 1]
        layer["config"]["batch_input_shape"] = shape
        layer = {"class_name": "Sequential", "config": [layer]}
    return layer | {"keras_version": "2.2.4"}


@pytest.mark.parametrize("kind", ["models", "steps"])
def test_calls_that_multiply(tmp_path, kind):
    make = {"models": lambda n: nested(10, n), "steps": lambda n: stepped(n * n)}[kind]
    path = files.write(tmp_path / "m.h5", make(2), [], "2.2.4", "tensorflow")
    x = np.full((1, 4) if kind == "models" else (1, 4, 4, 1), 0.5, "float32")
    assert np.isfinite(compat.load_model(path)(x)).all()
    path = files.write(tmp_path / "m.h5", make(20), [], "2.2.4", "tensorflow")
    with pytest.raises(compat.LegacyModelError, match="calls more than 65536 layers"):
        compat.load_model(path)


def test_outputs_that_no_layer_has(tmp_path):
    layers = [
        files.source("x", 3),
        (files.layer("Activation", "a", activation="tanh"), [[("x", 0, 1)]]),
    ]
    config = files.functional(layers, ["x"], ["a"])
    path = files.write(tmp_path / "m.h5", config, [])
    with pytest.raises(compat.LegacyModelError, match="a: names the output 1 of call 0 of 'x'"):
        compat.load_model(path)


@pytest.mark.parametrize("rank", [1, 2, 3])
@pytest.mark.parametrize("padding", ["valid", "same"])
def test_transposed_convolutions_padded_by_0(rank, padding, tmp_path):
    """One less than those padded by 1, whose last place along the axis then is not made."""
    kind = getattr(legacy_layers, f"PaddedConv{rank}DTranspose")
    shared = {"filters": 2, "kernel_size": 3, "strides": 2, "padding": padding}
    layer = kind(**shared, output_padding=(*[1] * (rank - 1), 0))
    model = keras.Sequential([keras.Input((*[4] * rank, 3)), layer])
    longer = getattr(keras.layers, f"Conv{rank}DTranspose")(**shared, output_padding=1)
    longer.build((None, *[4] * rank, 3))
    longer.set_weights(layer.get_weights())
    x = RANDOM.normal(size=(2, *[4] * rank, 3)).astype("float32")
    cut = (..., slice(-1), slice(None))
    model.save(tmp_path / "m.keras")
    for network in (model, keras.models.load_model(tmp_path / "m.keras")):
        if padding == "valid":
            np.testing.assert_allclose(network(x), longer(x).numpy()[cut], **CLOSE)
        assert network(x).shape == longer(x).numpy()[cut].shape
        assert network.output_shape[1:] == network(x).shape[1:]


@pytest.mark.parametrize("form", ["channels_last", "channels_first"])
@pytest.mark.parametrize(
    "make",
    [
        lambda form: legacy_layers.TheanoPooling((2, 3), (2, 1), "MAX", form),
        lambda form: legacy_layers.CornerUpSampling2D((2, 3), data_format=form),
    ],
)
def test_sizes_are_known_in_a_graph(make, form):
    """Keras 3.8 cannot flatten what has two sizes that are not known."""
    layer = make(form)
    graph = tf.function(layer).get_concrete_function(tf.TensorSpec((None, 5, 6, 4), tf.float32))
    assert graph.output_shapes.as_list() == list(layer.compute_output_shape((None, 5, 6, 4)))
