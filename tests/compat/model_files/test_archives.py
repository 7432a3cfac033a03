"""`.keras` archives of Keras 2, and what only files of Keras 2 say; the oracle is tf_keras."""

import json
import shutil
import zipfile

import keras
import numpy as np
import pytest
import tensorflow as tf
import tf_keras
from tf_keras.src.layers.normalization.batch_normalization_v1 import (
    BatchNormalization as BatchNormalizationV1,
)

import paths
import tfbn
from keras2_layers import CLOSE, draw, image_layers, sequence_layers
from tfbn import compat
from tfbn.compat.upgrade import upgrade

L = tf_keras.layers
DATA = paths.DATA / "keras2"
pytestmark = pytest.mark.filterwarnings("ignore:You are saving your model as an HDF5 file")


def weighed(model):
    rng = np.random.default_rng(0)
    weights = []
    for variable in model.weights:
        value = rng.normal(0, 0.5, variable.shape).astype("float32")
        weights.append(
            abs(value) + 0.1 if "variance" in variable.name or "stddev" in variable.name else value
        )
    model.set_weights(weights)
    return model


def check(model, tmp_path, *x, **arguments):
    """Saved as an archive, loaded, and computing the same; the loaded model."""
    model.save(tmp_path / "old.keras")
    loaded = compat.load_model(tmp_path / "old.keras", **arguments)
    given = x[0] if len(x) == 1 else list(x)
    want, got = (np.asarray(network(given, training=False)) for network in (model, loaded))
    np.testing.assert_allclose(got, want, **CLOSE)
    return loaded


# Of one model with random weights, saved by TensorFlow of these releases, and what it predicted there.
@pytest.mark.parametrize("release", ["2.12.1", "2.14.1", "2.15.1"])
def test_genuine_archives(release):
    loaded = compat.load_model(DATA / f"keras-{release}.keras")
    known = np.load(DATA / f"keras-{release}.npz")
    got = loaded.predict(known["x"], verbose=0)
    np.testing.assert_allclose(got, known["y"], rtol=1e-5, atol=1e-6)


IMAGES, SEQUENCES = image_layers(), sequence_layers()


@pytest.mark.parametrize("number", range(len(IMAGES)))
def test_layers_of_images(number, tmp_path):
    inputs = tf_keras.Input((9, 8, 4))
    check(weighed(tf_keras.Model(inputs, IMAGES[number](inputs))), tmp_path, draw(2, 9, 8, 4))


@pytest.mark.parametrize("number", range(len(SEQUENCES)))
def test_layers_of_sequences(number, tmp_path):
    inputs = tf_keras.Input((6, 4))
    check(weighed(tf_keras.Model(inputs, SEQUENCES[number](inputs))), tmp_path, draw(2, 6, 4))


def many(inputs):
    """Layers of one class, numbered in the archive, with models, wrappers and frozen ones between."""
    inner = tf_keras.Sequential([L.Dense(3), L.BatchNormalization(), L.Dense(4)], name="inner")
    other = tf_keras.Sequential([tf_keras.Sequential([L.Dense(4), L.BatchNormalization()]), L.Dense(4)])
    other.layers[0].trainable = False
    shared = L.Dense(4)
    x = shared(inner(L.Dense(4, name="named_by_hand")(inputs)))
    x = L.Add()([shared(x), other(x), inner(x)])
    x = L.Bidirectional(L.LSTM(3, return_sequences=True))(x)
    x = L.TimeDistributed(tf_keras.Sequential([L.Dense(4), L.BatchNormalization(), L.Dense(4)]))(x)
    return tf_keras.Model(inputs, L.GRU(2)(x))


def test_a_model_of_many(tmp_path):
    check(weighed(many(tf_keras.Input((6, 4)))), tmp_path, draw(3, 6, 4))


def test_a_sequential_model(tmp_path):
    layers = [L.Conv2D(3, 2), L.BatchNormalization(), L.ReLU(), L.Flatten(), L.Dense(2)]
    model = weighed(tf_keras.Sequential([tf_keras.Input((5, 5, 2)), *layers]))
    model.compile("adam", "mse")  # the archive holds the optimizer, too
    model.fit(draw(4, 5, 5, 2), draw(4, 2), verbose=0)
    loaded = check(model, tmp_path, draw(3, 5, 5, 2))
    assert isinstance(loaded, keras.Sequential)
    assert not tfbn.fold(loaded)[1].kept


def test_an_archive_is_upgraded_and_proved(tmp_path):
    model = weighed(many(tf_keras.Input((6, 4))))
    model.save(tmp_path / "old.keras")
    x = draw(5, 6, 4)
    np.savez(tmp_path / "ref.npz", x=x, y=model.predict(x, verbose=0))
    old, new, known = (tmp_path / name for name in ("old.keras", "new.keras", "ref.npz"))
    report = upgrade(old, new, reference=known)
    assert report.difference < 1e-5
    assert report.samples == 5


@pytest.fixture
def archive(tmp_path):
    weighed(tf_keras.Sequential([tf_keras.Input((4,)), L.Dense(2)])).save(tmp_path / "good.keras")
    return tmp_path / "good.keras"


def rewritten(source, target, change):
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w") as new:
        members = {name: old.read(name) for name in old.namelist()}
        for name, content in change(members).items():
            new.writestr(name, content)
    return target


DAMAGED = {
    "no weights": (lambda m: m | {"model.weights.h5": b""}, "cannot be read as HDF5"),
    "weights missing": (
        lambda m: {name: content for name, content in m.items() if "weights" not in name},
        r"model\.weights\.h5.*is missing from the archive",
    ),
    "no architecture": (
        lambda m: {name: content for name, content in m.items() if "config" not in name},
        r"config\.json.*is missing from the archive",
    ),
    "Keras 3": (
        lambda m: m | {"metadata.json": json.dumps({"keras_version": "3.5.0"})},
        r"keras\.models\.load_model reads as they are",
    ),
    "no metadata": (
        lambda m: m | {"metadata.json": b"[]"},
        r"keras\.models\.load_model reads as they are",
    ),
    "other layers": (
        lambda m: m | {"config.json": m["config.json"].replace(b'"Dense"', b'"Conv1D"')},
        "Conv1D has the weights kernel, bias, and the file holds 0: none",
    ),
}


@pytest.mark.parametrize("name", DAMAGED)
def test_damaged_archives(name, archive, tmp_path):
    change, message = DAMAGED[name]
    bad = rewritten(archive, tmp_path / "bad.keras", change)
    with pytest.raises(compat.LegacyModelError, match=message):
        compat.load_model(bad)


def test_a_truncated_archive(archive, tmp_path):
    content = archive.read_bytes()
    (tmp_path / "half.keras").write_bytes(content[: len(content) // 2])
    with pytest.raises(compat.LegacyModelError):
        compat.load_model(tmp_path / "half.keras")


def test_weights_beside_an_archive(archive, tmp_path):
    shutil.copy(archive, tmp_path / "w.h5")
    with pytest.raises(compat.LegacyModelError, match="holds its weights itself"):
        compat.load_model(archive, weights=tmp_path / "w.h5")


@pytest.mark.parametrize("suffix", ["h5", "keras"])
@pytest.mark.parametrize("kind", ["batch norm", "nested", "deeper"])
def test_training_that_a_file_fixes_is_built_in(kind, suffix, tmp_path):
    inputs = tf_keras.Input((4,))
    if kind == "batch norm":
        outputs = L.BatchNormalization()(L.Dense(3)(inputs), training=True)
    else:
        inner = tf_keras.Sequential([L.Dense(3), L.BatchNormalization()])
        if kind == "deeper":
            inner = tf_keras.Sequential([inner, L.Dense(2)])
        outputs = inner(inputs, training=True)
    model = weighed(tf_keras.Model(inputs, outputs))
    model.save(tmp_path / f"old.{suffix}")
    x = draw(16, 4)
    loaded = compat.load_model(tmp_path / f"old.{suffix}")
    want = model(x).numpy()
    np.testing.assert_allclose(loaded.predict(x, verbose=0), want, **CLOSE)
    loaded.save(tmp_path / "new.keras")
    again = keras.models.load_model(tmp_path / "new.keras")
    np.testing.assert_allclose(again.predict(x, verbose=0), want, **CLOSE)


def test_dropout_that_always_drops(tmp_path):
    inputs = tf_keras.Input((100,))
    tf_keras.Model(inputs, L.Dropout(0.5)(inputs, training=True)).save(tmp_path / "old.h5")
    y = compat.load_model(tmp_path / "old.h5").predict(np.ones((8, 100)), verbose=0)
    assert set(np.unique(y)) == {0.0, 2.0}


def test_a_layer_called_in_both_ways_is_refused(tmp_path):
    inputs, layer = tf_keras.Input((4,)), L.BatchNormalization(name="both")
    model = tf_keras.Model(inputs, layer(layer(inputs), training=True))
    model.save(tmp_path / "old.h5")
    with pytest.raises(compat.LegacyModelError, match="both.*is called with training=True and without"):
        compat.load_model(tmp_path / "old.h5")


@pytest.mark.parametrize(
    "inner",
    [
        lambda: L.Dense(3, activation="relu"),
        lambda: L.Conv1D(3, 2),
        L.BatchNormalization,
        lambda: tf_keras.Sequential([L.Conv1D(3, 2), L.BatchNormalization(), L.Flatten(), L.Dense(2)]),
    ],
    ids=["dense", "conv", "batch norm", "model"],
)
def test_sequences_of_free_length(inner, tmp_path):
    inputs = tf_keras.Input((None, 4, 3))
    model = weighed(tf_keras.Model(inputs, L.TimeDistributed(inner())(inputs)))
    model.save(tmp_path / "old.h5")
    loaded = compat.load_model(tmp_path / "old.h5")
    folded, report = tfbn.fold(loaded)
    assert len(report.kept) == isinstance(model.layers[1].layer, L.BatchNormalization)
    loaded.save(tmp_path / "new.keras")
    again = keras.models.load_model(tmp_path / "new.keras")
    for length in (2, 7, 3, 5, 1):
        x = draw(2, length, 4, 3)
        want = model.predict(x, verbose=0)
        for network in (loaded, again, folded):
            np.testing.assert_allclose(network.predict(x, verbose=0), want, **CLOSE)


@pytest.mark.parametrize(
    "arguments",
    [
        {"renorm": True},
        {
            "renorm": True,
            "renorm_momentum": 0.8,
            "renorm_clipping": {"rmax": 3.0, "rmin": 0.3, "dmax": 5.0},
        },
        {"renorm": True, "scale": False, "center": False},
        {"virtual_batch_size": 4},
    ],
    ids=["renorm", "clipped", "bare", "virtual"],
)
def test_batch_norms_of_tensorflow_1_in_keras_files(arguments, tmp_path):
    inputs = tf_keras.Input((6, 4))
    model = weighed(tf_keras.Model(inputs, BatchNormalizationV1(**arguments)(inputs)))
    model.save(tmp_path / "old.h5")
    loaded = compat.load_model(tmp_path / "old.h5")
    x = draw(8, 6, 4)
    np.testing.assert_allclose(loaded.predict(x, verbose=0), model.predict(x, verbose=0), **CLOSE)
    layer = loaded.layers[-1]
    if "renorm" in arguments:
        assert type(layer) is tfbn.BatchRenorm
        assert layer.renorm_decay == arguments.get("renorm_momentum", 0.99)
        clipping = arguments.get("renorm_clipping", {})
        assert {name: getattr(layer, name) for name in clipping} == clipping
        # Training goes on as it did.
        layer(tf.constant(x), training=True)
        model.layers[-1](tf.constant(x), training=True)
        for new, old in zip(layer.weights, model.layers[-1].weights, strict=True):
            np.testing.assert_allclose(new, old, rtol=1e-4, atol=1e-5, err_msg=old.name)


def written_for_javascript(model, folder, kinds=("float32",), shards=2):
    """What TensorFlow.js' converter writes of a model: JSON, and the arrays in shards beside it."""
    entries, content = [], b""
    for layer in model.layers:
        for number, weight in enumerate(layer.weights):
            kind, array = kinds[number % len(kinds)], weight.numpy()
            entry = {"name": weight.name.removesuffix(":0"), "shape": list(array.shape)}
            entry["dtype"] = "float32"
            if kind != "float32":
                entry["quantization"] = {"dtype": kind, "original_dtype": "float32"}
            if kind.startswith("uint"):
                most = 2 ** (8 * np.dtype(kind).itemsize) - 1
                scale = float(np.ptp(array)) / most or 1.0
                entry["quantization"] |= {"min": float(array.min()), "scale": scale}
                array = np.round((array - array.min()) / scale)
            content += array.astype(kind).tobytes()
            entries.append(entry)
    size = -(-len(content) // shards)
    paths = [f"group1-shard{number + 1}of{shards}.bin" for number in range(shards)]
    for number, path in enumerate(paths):
        (folder / path).write_bytes(content[number * size : (number + 1) * size])
    topology = json.loads(model.to_json())
    keras_own = {name: topology.pop(name) for name in ("keras_version", "backend")}
    whole = {
        "format": "layers-model",
        "modelTopology": keras_own | {"model_config": topology},
        "weightsManifest": [{"paths": paths, "weights": entries}],
    }
    (folder / "model.json").write_text(json.dumps(whole))
    return whole


@pytest.mark.parametrize(
    ("kinds", "close"),
    [
        (("float32",), 2e-5),
        (("float16",), 1e-2),
        (("uint16",), 1e-3),
        (("uint8", "float32"), 0.1),
    ],
)
def test_models_of_tensorflow_js(kinds, close, tmp_path):
    model = weighed(many(tf_keras.Input((6, 4))))
    written_for_javascript(model, tmp_path, kinds)
    loaded = compat.load_model(tmp_path / "model.json")
    x = draw(5, 6, 4)
    want = model.predict(x, verbose=0)
    np.testing.assert_allclose(loaded.predict(x, verbose=0), want, atol=close * np.abs(want).max())


def changed(whole, **changes):
    (group,) = whole["weightsManifest"]
    return whole | {"weightsManifest": [group | changes]}


BROKEN = {
    "another folder": (
        lambda whole: changed(whole, paths=["../secret"]),
        r"names a shard in another folder: '\.\./secret'",
    ),
    "no shard": (
        lambda whole: changed(whole, paths=["gone.bin"]),
        r"gone\.bin.*cannot be read: No such file.* Copy it beside the JSON",
    ),
    "too short": (
        lambda whole: changed(whole, paths=[whole["weightsManifest"][0]["paths"][0]]),
        "is not wholly in the shards",
    ),
    "too long": (
        lambda whole: changed(whole, weights=whole["weightsManifest"][0]["weights"][:1]),
        "leaves .* bytes of the shards over",
    ),
    "strings": (
        lambda whole: changed(
            whole, weights=[{"name": "dense/kernel", "shape": [1], "dtype": "string"}]
        ),
        r"dense/kernel.*has the shape \[1\] and the type 'string'",
    ),
    "graph": (lambda whole: whole | {"format": "graph-model"}, r"graph model of TensorFlow\.js"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_broken_models_of_tensorflow_js(name, tmp_path):
    model = weighed(tf_keras.Sequential([tf_keras.Input((4,)), L.Dense(2), L.Dense(3)]))
    change, message = BROKEN[name]
    whole = change(written_for_javascript(model, tmp_path))
    (tmp_path / "model.json").write_text(json.dumps(whole))
    with pytest.raises(compat.LegacyModelError, match=message):
        compat.load_model(tmp_path / "model.json")


def test_comparing_does_not_move_what_always_trains(tmp_path):
    inputs = tf_keras.Input((4,))
    model = weighed(tf_keras.Model(inputs, L.BatchNormalization()(L.Dense(3)(inputs), training=True)))
    model.save(tmp_path / "old.h5")
    x = draw(64, 4)
    np.savez(tmp_path / "ref.npz", x=x, y=np.concatenate([model(x[:32]), model(x[32:])]))
    want = compat.load_model(tmp_path / "old.h5").get_weights()
    upgrade(tmp_path / "old.h5", tmp_path / "new.keras", reference=tmp_path / "ref.npz")
    got = keras.models.load_model(tmp_path / "new.keras").get_weights()
    for array, expected in zip(got, want, strict=True):
        np.testing.assert_array_equal(array, expected)
