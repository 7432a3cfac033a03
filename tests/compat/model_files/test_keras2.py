"""Keras 2: tf_keras makes, runs and saves models; their files are loaded, as they are and as older
releases wrote them.
"""

import json
import warnings

import h5py
import keras
import numpy as np
import pytest
import tensorflow as tf
import tf_keras

import draws
import legacy_files as files
import tfbn
from draws import RANDOM
from keras2_layers import CLOSE, draw, image_layers, sequence_layers, volume_layers
from tfbn import compat
from tfbn.compat import model_files
from tfbn.compat.model_files.layers import keras2_table

L = tf_keras.layers
ELSEWHERE = {"CuDNNLSTM", "CuDNNGRU", "Merge", "BatchNormalizationV1", "BatchNormalizationV2"}


def fan(layers, *shape):
    x = L.Input(shape, name="x")
    return tf_keras.Model(x, [layer(x) for layer in layers]), [draw(2, *shape)]


def merging():
    """Two inputs in every merge, words with a mask, a state that is handed on, a shared model."""
    x, y, words = (
        L.Input((5, 3), name="x"),
        L.Input((5, 3), name="y"),
        L.Input((4,), name="w", dtype="int32"),
    )
    pair = [x, y]
    outputs = [kind()(pair) for kind in (L.Add, L.Subtract, L.Multiply, L.Average, L.Maximum, L.Minimum)]
    outputs += [L.Concatenate(axis=1)(pair), L.Dot(axes=(2, 2), normalize=True)(pair)]
    embedded = L.Embedding(9, 3, mask_zero=True)(words)
    sequence, state = L.GRU(3, return_sequences=True, return_state=True, name="encoder")(embedded)
    outputs += [sequence, L.GRU(3, name="decoder")(x, initial_state=state), L.RepeatVector(3)(state)]
    inner_in = L.Input((3,))
    inner_out = L.BatchNormalization(trainable=False)(L.Dense(3)(inner_in))
    inner = tf_keras.Model(inner_in, L.Dense(2)(L.BatchNormalization()(inner_out)), name="inner")
    outputs += [inner(state), inner(L.GlobalAveragePooling1D()(x))]
    return tf_keras.Model([words, x, y], outputs), [
        RANDOM.integers(0, 9, (2, 4)),
        draw(2, 5, 3),
        draw(2, 5, 3),
    ]


MODELS = {
    "images": lambda: fan(image_layers(), 9, 8, 4),
    "sequences": lambda: fan(sequence_layers(), 6, 4),
    "volumes": lambda: fan(volume_layers(), 4, 5, 4, 2),
    "merging": merging,
}


@pytest.fixture(scope="module", params=MODELS)
def original(request, tmp_path_factory):
    """A model of tf_keras with random weights, its files, inputs, and what it predicts."""
    draws.reset()
    model, inputs = MODELS[request.param]()
    model.set_weights(
        [
            np.abs(draw(*weight.shape)) if "variance" in weight.name else draw(*weight.shape)
            for weight in model.weights
        ]
    )
    folder = tmp_path_factory.mktemp(request.param)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="You are saving your model as an HDF5 file")
        model.save(folder / "model.h5")
    model.save_weights(folder / "weights.h5")
    (folder / "model.json").write_text(model.to_json())
    outputs = [tensor.numpy() for tensor in model(inputs, training=False)]
    return model, folder, inputs, outputs


def same(model, inputs, outputs, names):
    found = model(inputs if len(inputs) > 1 else inputs[0], training=False)
    for tensor, wanted, name in zip(found, outputs, names, strict=True):
        np.testing.assert_allclose(tensor, wanted, **CLOSE, err_msg=name)


def test_whole_files(original):
    theirs, folder, inputs, outputs = original
    model, report = model_files.load(folder / "model.h5")
    same(model, inputs, outputs, theirs.output_names)
    assert {layer.name for layer in theirs.layers} <= {layer.name for layer in model.layers}
    assert (report.keras_version, report.backend) == (tf_keras.__version__, "tensorflow")


def test_as_the_first_releases_wrote_it(original):
    """The JSON of Keras 2.0.x: "Model" for "Functional", no keys that later releases added."""
    theirs, folder, inputs, outputs = original

    def older(value):
        if isinstance(value, list):
            return [older(item) for item in value]
        if not isinstance(value, dict):
            return value
        value = {key: older(item) for key, item in value.items()}
        if value.get("class_name") == "Functional":
            value["class_name"] = "Model"
        if value.get("class_name") == "Sequential":
            value["config"] = [
                layer for layer in value["config"]["layers"] if layer["class_name"] != "InputLayer"
            ]
        later = (
            "module",
            "registered_name",
            "build_config",
            "groups",
            "keepdims",
            "time_major",
            "seed",
            "sparse",
        )
        return {
            key: item for key, item in value.items() if key not in later or item == 2 or item is True
        }

    config = older(json.loads((folder / "model.json").read_text()))
    config["keras_version"] = "2.0.5"
    (folder / "old.json").write_text(json.dumps(config))
    with h5py.File(folder / "weights.h5", "a") as file:
        file.attrs["keras_version"] = b"2.0.5"
    # Bilinear upsampling came with Keras 2.2.3, and was another one: see test_details.py.
    later_one = {"UpSampling2D": keras.layers.UpSampling2D}
    model, report = model_files.load(
        folder / "old.json", weights=folder / "weights.h5", custom_objects=later_one
    )
    same(model, inputs, outputs, theirs.output_names)
    assert report.keras_version == "2.0.5"


def test_every_row_has_a_layer():
    made = {
        type(layer).__name__
        for layers in (image_layers, sequence_layers, volume_layers)
        for layer in layers()
    }
    made |= {
        "Add",
        "Subtract",
        "Multiply",
        "Average",
        "Maximum",
        "Minimum",
        "Concatenate",
        "Dot",
        "Embedding",
        "RepeatVector",
    }
    assert keras2_table.TABLE.keys() - ELSEWHERE == made


def keras2_sequential(*layers, version="2.0.5"):
    return {
        "class_name": "Sequential",
        "config": list(layers),
        "keras_version": version,
        "backend": "tensorflow",
    }


@pytest.mark.parametrize("kind", ["LSTM", "GRU"])
def test_cudnn_layers(tmp_path, kind):
    """tf_keras' own reading of such weights is the oracle."""
    gates = {"LSTM": 4, "GRU": 3}[kind]
    arrays = [draw(5, 3 * gates), draw(3, 3 * gates), draw(6 * gates)]
    layer = files.layer(
        f"CuDNN{kind}", "rnn", units=3, batch_input_shape=[None, 4, 5], return_sequences=True
    )
    pairs = [
        ("rnn", list(zip(("rnn/kernel:0", "rnn/recurrent_kernel:0", "rnn/bias:0"), arrays, strict=True)))
    ]
    path = files.write(tmp_path / "m.h5", keras2_sequential(layer), pairs, "2.1.6", "tensorflow")
    theirs = tf_keras.Sequential([L.Input((4, 5)), getattr(L, kind)(3, return_sequences=True)])
    weights = files.write(tmp_path / "w.h5", None, pairs, "2.1.6", "tensorflow", whole=False)
    theirs.load_weights(weights)
    x = draw(2, 4, 5)
    np.testing.assert_allclose(compat.load_model(path)(x), theirs(x), **CLOSE)


def test_channels_first(tmp_path):
    """Against the same layers with channels last; one output is as wide as it is deep."""
    x = draw(2, 6, 5, 4)
    layers = [L.Conv2D(5, 3, padding="same"), L.Conv2D(4, 2), L.SeparableConv2D(4, 2)]
    layers += [
        L.DepthwiseConv2D(2, padding="same"),
        L.Conv2DTranspose(10, 2, strides=2),
        L.MaxPooling2D(2),
    ]
    layers += [L.UpSampling2D(2), L.BatchNormalization(), L.GlobalAveragePooling2D()]
    inputs = L.Input((6, 5, 4))
    theirs = tf_keras.Model(inputs, [layer(inputs) for layer in layers])
    theirs.set_weights([np.abs(draw(*weight.shape)) for weight in theirs.weights])
    theirs.save_weights(tmp_path / "w.h5")
    config = json.loads(theirs.to_json())
    for layer in config["config"]["layers"]:
        if "data_format" in layer["config"]:
            layer["config"]["data_format"] = "channels_first"
        if layer["class_name"] == "BatchNormalization":
            layer["config"]["axis"] = [1]
        if layer["class_name"] == "InputLayer":
            layer["config"]["batch_input_shape"] = [None, 4, 6, 5]
    (tmp_path / "m.json").write_text(json.dumps(config))
    for data_format in ("channels_last", "channels_first"):
        model = compat.load_model(
            tmp_path / "m.json", weights=tmp_path / "w.h5", data_format=data_format
        )
        assert model.get_layer(layers[5].name).data_format == data_format
        by_xla = tf.function(model, jit_compile=True)  # which runs both on every processor
        for found, wanted, layer in zip(by_xla(x.transpose(0, 3, 1, 2)), theirs(x), layers, strict=True):
            images = np.moveaxis(wanted.numpy(), -1, 1) if len(wanted.shape) == 4 else wanted
            np.testing.assert_allclose(found, images, **CLOSE, err_msg=layer.name)


def test_kernels_that_theano_trained(tmp_path):
    """Keras 2 on Theano turned kernels, and padded "same", as Keras 1 did."""
    import legacy_oracle as oracle  # noqa: PLC0415

    layer = files.layer(
        "Conv2D",
        "c",
        filters=3,
        kernel_size=[3, 2],
        strides=[2, 1],
        padding="same",
        batch_input_shape=[None, 6, 5, 2],
    )
    arrays = [draw(3, 2, 2, 3), draw(3)]
    config = keras2_sequential(layer) | {"backend": "theano"}
    path = files.write(
        tmp_path / "m.h5",
        config,
        [("c", list(zip(("c/kernel:0", "c/bias:0"), arrays, strict=True)))],
        "2.0.8",
        "theano",
    )
    x = draw(2, 6, 5, 2)
    wanted = (
        oracle.convolve(x.astype("float64"), arrays[0].astype("float64"), (2, 1), "same", "theano")
        + arrays[1]
    )
    np.testing.assert_allclose(compat.load_model(path)(x), wanted, **CLOSE)
    with pytest.raises(compat.LegacyModelError, match="the backends contradict each other"):
        compat.load_model(path, backend="tensorflow")


def test_sequential_without_input_layer_and_older_batch_norms(tmp_path):
    settings = {"axis": -1, "momentum": 0.9, "epsilon": 0.01, "center": True, "scale": True}
    layers = [
        files.layer(
            "Dense",
            "d/1",
            units=3,
            activation="relu",
            use_bias=True,
            batch_input_shape=[None, 4],
            dtype="float32",
        ),
        files.layer("BatchNormalizationV1", "v1", **settings),
        files.layer("BatchNormalizationV2", "v2", **(settings | {"axis": [1], "fused": None})),
    ]
    values = {name: [draw(3), draw(3), draw(3), np.abs(draw(3))] for name in ("v1", "v2")}
    names = ("gamma", "beta", "moving_mean", "moving_variance")
    pairs = [
        (layer, [(f"{layer}/{name}:0", value) for name, value in zip(names, values[layer], strict=True)])
        for layer in values
    ]
    dense = [draw(4, 3), draw(3)]
    pairs.insert(0, ("d/1", [("d/1/kernel:0", dense[0]), ("d/1/bias:0", dense[1])]))
    path = files.write(
        tmp_path / "m.h5", keras2_sequential(*layers, version="2.2.4"), pairs, "2.2.4", "tensorflow"
    )
    model, report = model_files.load(path)
    x = draw(3, 4)
    wanted = np.maximum(x @ dense[0] + dense[1], 0)
    for gamma, beta, mean, variance in values.values():
        wanted = gamma * (wanted - mean) / np.sqrt(variance + 0.01) + beta
    np.testing.assert_allclose(model(x), wanted, **CLOSE)
    assert [layer.name for layer in model.layers] == ["d_1", "v1", "v2"]
    assert isinstance(model, keras.Sequential)
    assert [layer.unbiased for layer in model.layers[1:]] == [True, True]
    assert all(
        entry.stored == "variance" and entry.became.endswith(", unbiased)")
        for entry in report.batch_norms
    )
    for _ in range(2):  # moves as Keras 2.2.4 trained: with the unbiased variance
        before = model.layers[1].moving_variance.numpy()
        hidden = model.layers[0](x).numpy().astype("float64")
        model.layers[1](hidden.astype("float32"), training=True)
        moved = 0.9 * before + 0.1 * hidden.var(0, ddof=1)
        np.testing.assert_allclose(model.layers[1].moving_variance, moved, rtol=1e-5, atol=1e-7)
    assert type(model.layers[1]) is tfbn.BatchNorm


@pytest.mark.parametrize(
    ("layer", "message"),
    [
        (
            files.layer("LocallyConnected1D", "l", filters=2),
            r"l: is no layer that can be loaded.*\(LocallyConnected1D",
        ),
        (
            files.layer("BatchNormalization", "l", renorm=True),
            "has the weights gamma, .*, renorm_stddev, and the file holds 4",
        ),
        (
            files.layer("BatchNormalization", "l", renorm_clipping=3),
            "must be an object of rmin, rmax and",
        ),
        (
            files.layer(
                "Dense",
                "l",
                units=3,
                kernel_initializer={"class_name": "os", "module": "os", "config": {}},
            ),
            "is none that Keras 2 had: 'os'",
        ),
        (files.layer("Dense", "l", units=-3), "units=-3 must be between 1"),
        (files.layer("Dense", "l"), "the configuration lacks 'units'"),
    ],
)
def test_what_cannot_be_loaded_is_named(tmp_path, layer, message):
    layer["config"]["batch_input_shape"] = [None, 4]
    count = 4 if "Batch" in layer["class_name"] else 2
    weights = [("l", [(f"w{number}", draw(3)) for number in range(count)])]
    path = files.write(tmp_path / "m.h5", keras2_sequential(layer), weights, "2.0.5", "tensorflow")
    with pytest.raises(compat.LegacyModelError, match=message):
        compat.load_model(path)
