"""Models of Keras 1 as wholes: graphs, nested models, old formats, and what can be done with them."""

import json

import keras
import numpy as np
import pytest

import legacy_files as files
import legacy_oracle as oracle
import tfbn
from keras1_files import CLOSE, apply, arrays, dense, dense_weights, draw, norm, norm_weights, normalized
from tfbn import compat
from tfbn.compat import model_files


def test_a_graph_with_shared_layers_and_two_ends(tmp_path):
    weights = [dense_weights("shared", 3, 3), dense_weights("out", 3, 2)]
    layers = [
        (dense("out", 2), [[("shared", 1, 0)], ["shared"]]),  # before what it takes: order is not given
        files.source("a", 3),
        (dense("shared", 3), [["a"], [("b", 0, 0)]]),
        files.source("b", 3),
    ]
    config = files.functional(layers, ["b", "a"], [("out", 0, 0), ("out", 1, 0), "shared"])
    model = compat.load_model(files.write(tmp_path / "m.h5", config, weights))
    b, a = draw(4, 3), draw(4, 3)
    first, second, third = model([b, a])
    np.testing.assert_allclose(first, apply(apply(b, weights[0]), weights[1]), **CLOSE)
    np.testing.assert_allclose(second, apply(apply(a, weights[0]), weights[1]), **CLOSE)
    np.testing.assert_allclose(third, apply(a, weights[0]), **CLOSE)
    assert [tensor.name for tensor in model.inputs] == ["b", "a"]


@pytest.mark.parametrize("frozen", [False, True])
def test_models_within_models(tmp_path, frozen):
    """Their weights are one list, trained ones first; a frozen batch norm's are all at its end."""
    d, n, e = dense_weights("d", 3, 4), norm_weights("n", 4), dense_weights("e", 4, 2)
    frozen_norm = norm("n") | {"config": norm("n")["config"] | {"trainable": not frozen}}
    inner = files.sequential(dense("d", 4), frozen_norm, dense("e", 2), shape=(3,)) | {"name": "inner"}
    (gamma, beta, mean, std), first, last = n[1], d[1], e[1]
    flat = [*first, *last, gamma, beta, mean, std] if frozen else [*first, gamma, beta, *last, mean, std]
    # A model's calls are numbered from 1: 0 is its own making.
    config = files.functional([files.source("x", 3)], ["x"], [("inner", 1, 0)])
    config["config"]["layers"].append(inner | {"inbound_nodes": [[["x", 0, 0]]]})
    model, report = model_files.load(files.write(tmp_path / "m.h5", config, [("inner", flat)]))
    x = draw(5, 3)
    np.testing.assert_allclose(model(x), apply(normalized(apply(x, d), n), e), **CLOSE)
    assert [entry.path for entry in report.batch_norms] == ["inner/n"]
    assert model.get_layer("inner").get_layer("n").trainable is not frozen
    # A Sequential model in a Sequential model has no name of its own in Keras 1.
    outer = {
        "class_name": "Sequential",
        "config": [{"class_name": "Sequential", "config": inner["config"]}, dense("f", 2)],
    }
    f = dense_weights("f", 2, 2)
    model = compat.load_model(files.write(tmp_path / "s.h5", outer, [("sequential_1", flat), f]))
    np.testing.assert_allclose(model(x), apply(apply(normalized(apply(x, d), n), e), f), **CLOSE)


def test_architecture_and_weights_in_files_of_their_own(tmp_path):
    config = files.sequential(dense("d", 4), dense("e", 2), shape=(3,))
    pairs = [dense_weights("d", 3, 4), dense_weights("e", 4, 2)]
    x = draw(2, 3)
    wanted = apply(apply(x, pairs[0]), pairs[1])
    architecture, weights = tmp_path / "m.json", tmp_path / "w.h5"
    files.write(weights, None, pairs, None, whole=False)
    for text in (json.dumps(config), json.dumps(json.dumps(config))):
        architecture.write_text(text)
        np.testing.assert_allclose(compat.load_model(architecture, weights=weights)(x), wanted, **CLOSE)
    renamed = [(f"other_{name}", arrays) for name, arrays in pairs]  # by position, as Keras did
    files.write(weights, None, renamed, None, whole=False)
    np.testing.assert_allclose(compat.load_model(architecture, weights=weights)(x), wanted, **CLOSE)
    files.write(weights, None, pairs[::-1], None, whole=False)  # by name, whatever the order
    np.testing.assert_allclose(compat.load_model(architecture, weights=weights)(x), wanted, **CLOSE)
    files.write(weights, None, pairs, None, whole=False, numbered=True)
    np.testing.assert_allclose(compat.load_model(architecture, weights=weights)(x), wanted, **CLOSE)
    files.write(weights, None, pairs[:1], None, whole=False)
    with pytest.raises(
        compat.LegacyModelError, match=r"weights of 1 layers \(d\), and the architecture 2 .*\(d, e\)"
    ):
        compat.load_model(architecture, weights=weights)


def test_the_format_of_keras_0_3(tmp_path):
    """Layers without class_name and config, weights by number."""
    common = {"cache_enabled": True, "trainable": True}
    dense = {
        "name": "Dense",
        "custom_name": "dense",
        "output_dim": 4,
        "init": "uniform",
        "activation": "relu",
    }
    dense |= {"input_shape": [3], "W_regularizer": None, "input_dim": 3}
    norm = {
        "name": "BatchNormalization",
        "custom_name": "bn",
        "epsilon": 0.01,
        "mode": 0,
        "momentum": 0.9,
    }
    layers = [dense | common, norm | common]
    pairs = [dense_weights("dense", 3, 4), norm_weights("bn", 4)]
    weights = files.write(tmp_path / "w.h5", None, pairs, None, whole=False, numbered=True)
    path = tmp_path / "m.json"
    path.write_text(json.dumps({"class_name": "Sequential", "layers": layers, "loss": "mse"}))
    model = compat.load_model(path, weights=weights, keras_version="0.3.3")
    x = draw(2, 3)
    hidden = np.maximum(apply(x, pairs[0]), 0)
    wanted = oracle.batch_norm(hidden, arrays(pairs[1]), lambda s, eps: s + eps, 0.01)
    np.testing.assert_allclose(model(x), wanted, **CLOSE)
    path.write_text(json.dumps({"class_name": "Graph", "layers": []}))
    with pytest.raises(
        compat.UnsupportedLayerError, match="is a Graph, the container of Keras before 1.0"
    ):
        compat.load_model(path, weights=weights)


def test_the_loaded_model_is_one_of_keras3(tmp_path):
    """It saves, loads, folds, converts and exports; its layers are named as they were."""
    hard = files.layer("Activation", "hard", activation="hard_sigmoid")
    rows = files.layer(
        "Convolution2D",
        "conv",
        nb_filter=4,
        nb_row=2,
        nb_col=3,
        dim_ordering="th",
        border_mode="same",
        subsample=[2, 1],
    )
    pooled = files.layer(
        "MaxPooling2D", "pool", pool_size=[2, 2], strides=[2, 2], border_mode="same", dim_ordering="th"
    )
    layers = [
        rows,
        norm("bn", axis=1),
        hard,
        pooled,
        files.layer("Flatten", "flat"),
        dense("d", 4),
        norm("bn2"),
        norm("mode1", mode=1),
    ]
    pairs = [
        ("conv", [("W", draw(4, 2, 2, 3)), ("b", draw(4))]),
        norm_weights("bn", 4),
        dense_weights("d", 24, 4),
    ]
    pairs += [norm_weights("bn2", 4), norm_weights("mode1", 4)]
    path = files.write(tmp_path / "m.h5", files.sequential(*layers, shape=(2, 6, 5)), pairs)
    model, report = model_files.load(path, backend="theano")
    names = [layer.name for layer in model.layers]
    added = {"inputs_channels_last", "conv_padding", "pool_channels_first"}
    assert [name for name in names if name not in added] == [
        "conv",
        "bn",
        "hard",
        "pool",
        "flat",
        "d",
        "bn2",
        "mode1",
    ]
    assert [entry.became.split("(")[0] for entry in report.batch_norms] == ["BatchNorm"] * 2 + [
        "compat.BatchNormalization"
    ]
    assert str(report).splitlines()[0] == "Keras 1.2.2, backend theano, 3 batch norms"
    assert len(str(report).splitlines()) == 5
    x = draw(3, 2, 6, 5)
    wanted = model(x).numpy()
    model.save(tmp_path / "m.keras")
    np.testing.assert_array_equal(keras.models.load_model(tmp_path / "m.keras")(x), wanted)
    folded, told = tfbn.fold(model)
    assert {entry.path: entry.into for entry in told.folded} == {"bn": ("conv",), "bn2": ("d",)}
    np.testing.assert_allclose(folded(x), wanted, **CLOSE)
    stock = tfbn.convert(model, to=keras.layers.BatchNormalization)
    kinds = [type(stock.get_layer(name)) for name in ("bn", "bn2")]
    assert kinds == [keras.layers.BatchNormalization] * 2
    np.testing.assert_allclose(stock(x), wanted, **CLOSE)
    tfbn.export(model, tmp_path / "out")
    keras.Model(model.inputs, model.get_layer("bn").output)  # its tensors are those of the model
