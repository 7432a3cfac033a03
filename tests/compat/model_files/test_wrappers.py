"""Wrappers of Keras 1, and the layers that are ours since Keras 3 has none."""

import keras
import numpy as np
import pytest

import legacy_files as files
import legacy_oracle as oracle
import tfbn
from keras1_files import (
    CLOSE,
    apply,
    dense,
    dense_weights,
    draw,
    lstm_config,
    norm,
    norm_weights,
    normalized,
)
from tfbn import compat
from tfbn.compat import model_files


@pytest.mark.parametrize("merge_mode", ["concat", "sum", "mul", "ave"])
def test_bidirectional(tmp_path, merge_mode):
    lstm = {"class_name": "LSTM", "config": lstm_config(name="lstm_1", trainable=True)}
    weights = [draw(*shape) for _ in range(8) for shape in ((3, 4), (4, 4), (4,))]
    layer = files.layer("Bidirectional", "both", layer=lstm, merge_mode=merge_mode)
    pairs = [("both", [(f"w{number}", array) for number, array in enumerate(weights)])]
    model = compat.load_model(
        files.write(tmp_path / "m.h5", files.sequential(layer, shape=(5, 3)), pairs)
    )
    x = draw(2, 5, 3)
    forward, backward = oracle.lstm(x, weights[:12]), oracle.lstm(x[:, ::-1], weights[12:])[:, ::-1]
    merge = {
        "concat": lambda a, b: np.concatenate([a, b], -1),
        "sum": np.add,
        "mul": np.multiply,
        "ave": lambda a, b: (a + b) / 2,
    }
    np.testing.assert_allclose(model(x), merge[merge_mode](forward, backward), **CLOSE)


def test_time_distributed(tmp_path):
    """Of a dense layer, of a padded convolution, of batch norms, of a model."""
    d, c, n, e = (
        dense_weights("d", 3, 4),
        ("c", [("W", draw(4, 3, 1, 2)), ("b", draw(2))]),
        norm_weights("n", 2),
        dense_weights("e", 2, 2),
    )
    convolution = files.layer(
        "Convolution1D", "conv", nb_filter=2, filter_length=4, border_mode="same", subsample_length=1
    )
    inner = files.sequential(dense("e", 2), shape=(2,))
    shape = (5, 3)
    layers = [
        files.layer("TimeDistributed", "d", layer=dense("dense", 4)),
        files.layer("Reshape", "r", target_shape=[5, 4, 1]),
        files.layer("TimeDistributed", "c", layer=convolution),
        files.layer("TimeDistributed", "n", layer=norm("norm", axis=2)),
        files.layer("Reshape", "s", target_shape=[20, 2]),
        files.layer("TimeDistributed", "e", layer=inner),
    ]
    kernel = [draw(4, 1, 1, 2), draw(2)]
    c = ("c", [("W", kernel[0]), ("b", kernel[1])])
    path = files.write(tmp_path / "m.h5", files.sequential(*layers, shape=shape), [d, c, n, e])
    model, report = model_files.load(path, backend="theano")
    x = draw(2, *shape)
    y = apply(x, d).reshape(10, 4, 1)
    y = oracle.convolve(y, kernel[0][:, 0], (1,), "same", "theano") + kernel[1]
    y = apply(normalized(y.reshape(2, 5, 4, 2), n).reshape(2, 20, 2), e)
    np.testing.assert_allclose(model(x), y, **CLOSE)
    assert type(model.get_layer("n")) is tfbn.BatchNorm
    assert model.get_layer("n").axis == 3
    assert [entry.path for entry in report.batch_norms] == ["n/n"]


def test_our_own_layers_save_and_load(tmp_path):
    """And what Keras 3 saves by name: the activations inside recurrent layers, in wrappers too."""
    lstm = {"class_name": "LSTM", "config": lstm_config(name="l", trainable=True)}
    names = ("t_left", "a_left", "t_right", "a_right")
    layers = [
        (files.layer("Bidirectional", "both", layer=lstm, merge_mode="sum"), [["x"]]),
        (files.layer("ThresholdedReLU", "threshold", theta=-0.1), [["both"]]),
        (files.layer("ParametricSoftplus", "softplus", alpha_init=0.2, beta_init=5.0), [["threshold"]]),
        (files.layer("SReLU", "s", **{f"{name}_init": "zero" for name in names}), [["softplus"]]),
        (files.layer("AveragePooling1D", "pool", pool_length=2, stride=2, border_mode="same"), [["s"]]),
        (files.layer("Merge", "cos", mode="cos", dot_axes=2), [["pool", "pool"]]),
    ]
    both = [draw(*shape) for _ in range(8) for shape in ((3, 4), (4, 4), (4,))]
    pairs = [("both", [(f"w{number}", array) for number, array in enumerate(both)])]
    pairs.append(("softplus", [(weight, draw(5, 4)) for weight in ("alphas", "betas")]))
    pairs.append(("s", [(weight, draw(5, 4)) for weight in names]))
    config = files.functional([files.source("x", 5, 3), *layers], ["x"], ["cos"])
    model = compat.load_model(files.write(tmp_path / "m.h5", config, pairs), backend="theano")
    x = draw(2, 5, 3)
    wanted = model(x).numpy()
    assert np.ptp(wanted) > 0.01
    model.save(tmp_path / "m.keras")
    np.testing.assert_array_equal(keras.models.load_model(tmp_path / "m.keras")(x), wanted)


def test_wrappers_in_wrappers(tmp_path):
    d = dense_weights("d", 3, 2)
    both = files.layer(
        "TimeDistributed", "t", layer=files.layer("TimeDistributed", "u", layer=dense("d", 2))
    )
    path = files.write(tmp_path / "m.h5", files.sequential(both, shape=(4, 5, 3)), [("t", d[1])])
    x = draw(2, 4, 5, 3)
    np.testing.assert_allclose(compat.load_model(path)(x), apply(x, d), **CLOSE)
    path = files.write(tmp_path / "long.h5", files.sequential(both, shape=(4097, 2, 3)), [("t", d[1])])
    with pytest.raises(
        compat.UnsupportedLayerError, match="t: has 4097 steps, which Keras 3 would write out"
    ):
        compat.load_model(path)
    layer = dense("d", 2)
    for _ in range(60):  # 2 ** 60 weights, if it were let
        layer = files.layer("Bidirectional", "b", layer=layer, merge_mode="sum")
    path = files.write(tmp_path / "deep.h5", files.sequential(layer, shape=(4, 3)), [("b", d[1])])
    with pytest.raises(compat.UnsupportedLayerError, match="b: holds a wrapper and no recurrent layer"):
        compat.load_model(path)


def test_masks_travel(tmp_path):
    """The last state of a masked sequence is that of its last step that is not masked."""
    masking = files.layer("Masking", "mask", mask_value=0.0)
    gru = files.layer(
        "GRU",
        "gru",
        **{
            key: value
            for key, value in lstm_config(return_sequences=False).items()
            if key[:6] != "forget"
        },
    )
    weights = [draw(*shape) for _ in range(3) for shape in ((3, 4), (4, 4), (4,))]
    pairs = [("gru", [(f"w{number}", array) for number, array in enumerate(weights)])]
    model = compat.load_model(
        files.write(tmp_path / "m.h5", files.sequential(masking, gru, shape=(5, 3)), pairs)
    )
    x = draw(2, 5, 3)
    x[:, 3:] = 0
    np.testing.assert_allclose(model(x), oracle.gru(x[:, :3], weights)[:, -1], **CLOSE)
