"""Models of Keras 1 as wholes: graphs, merges, wrappers, old formats, what the caller supplies."""

import json

import keras
import numpy as np
import pytest
import tensorflow as tf

import legacy_files as files
import legacy_oracle as oracle
import tfbn
from draws import RANDOM
from tfbn import compat
from tfbn.compat import legacy
from tfbn.data_format import channels_first

CLOSE = {"rtol": 1e-5, "atol": 1e-5}  # float32 sums of a few products


def draw(*shape):
    return RANDOM.normal(0.2, 0.7, shape).astype("float32")


def dense(name, units, **config):
    return files.layer(
        "Dense", name, output_dim=units, init="uniform", activation="linear", bias=True, **config
    )


def dense_weights(name, *shape):
    return name, [(f"{name}_W", draw(*shape)), (f"{name}_b", draw(shape[1]))]


def arrays(pairs):
    return [array.astype("float64") for _, array in pairs[1]]


def apply(x, pairs):
    W, b = arrays(pairs)
    return x @ W + b


def merged(tmp_path, shapes, **config):
    """A model that merges inputs, called on random ones."""
    names = [f"in{number}" for number in range(len(shapes))]
    base = {"mode_type": "raw", "output_shape": None, "output_shape_type": "raw", "output_mask": None}
    base |= {"output_mask_type": "raw", "arguments": {}, "concat_axis": -1, "dot_axes": -1}
    base |= {"node_indices": None, "tensor_indices": None}
    layers = [files.source(name, *shape) for name, shape in zip(names, shapes, strict=True)]
    layers.append((files.layer("Merge", "merge_1", **(base | config)), [names]))
    path = files.write(tmp_path / "m.h5", files.functional(layers, names, ["merge_1"]), [])
    inputs = [draw(2, *shape) for shape in shapes]
    return [one.astype("float64") for one in inputs], compat.load_model(path)(inputs)


@pytest.mark.parametrize(
    ("config", "shapes", "answer"),
    [
        ({"mode": "sum"}, [(3,)] * 3, lambda x, y, z: x + y + z),
        ({"mode": "mul"}, [(3, 2)] * 2, lambda x, y: x * y),
        ({"mode": "ave"}, [(3,)] * 3, lambda x, y, z: (x + y + z) / 3),
        ({"mode": "max"}, [(3,)] * 2, np.maximum),
        ({"mode": "concat", "concat_axis": 1}, [(3, 2), (4, 2)], lambda x, y: np.concatenate([x, y], 1)),
        ({"mode": "concat"}, [(3, 2), (3, 5)], lambda x, y: np.concatenate([x, y], -1)),
        ({"mode": "dot", "dot_axes": 1}, [(3,)] * 2, lambda x, y: (x * y).sum(1, keepdims=True)),
        (
            {"mode": "dot", "dot_axes": [2, 2]},
            [(3, 4), (5, 4)],
            lambda x, y: np.einsum("bik,bjk->bij", x, y),
        ),
        (
            {"mode": "dot", "dot_axes": [[2], [1]]},
            [(3, 4), (4, 5)],
            lambda x, y: np.einsum("bik,bkj->bij", x, y),
        ),
        (
            {"mode": "cos", "dot_axes": 1},
            [(3,)] * 2,
            lambda x, y: ((x * y).sum(1) / np.sqrt((x * x).sum(1) * (y * y).sum(1)))[:, None, None],
        ),
    ],
    ids=lambda value: str(value) if isinstance(value, dict) else "",
)
def test_merge_modes(tmp_path, config, shapes, answer):
    inputs, found = merged(tmp_path, shapes, **config)
    np.testing.assert_allclose(found, answer(*inputs), **CLOSE)


def test_merge_of_functions_is_refused(tmp_path):
    with pytest.raises(compat.LegacyModelError, match="merge_1: mode='.*' must be one of 'sum'"):
        merged(tmp_path, [(3,)] * 2, mode="4wAAAAAA", mode_type="lambda")
    with pytest.raises(compat.LegacyModelError, match="mode_type='function' must be one of 'raw'"):
        merged(tmp_path, [(3,)] * 2, mode="sum", mode_type="function")


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
    assert [one.name for one in model.inputs] == ["b", "a"]


def norm(name, **config):
    return files.layer(
        "BatchNormalization",
        name,
        **({"mode": 0, "axis": -1, "epsilon": 0.01, "momentum": 0.9} | config),
    )


def norm_weights(name, size):
    values = [draw(size), draw(size), draw(size), draw(size) ** 2]
    return name, [
        (f"{name}_{one}", value)
        for one, value in zip(("gamma", "beta", "running_mean", "running_std"), values, strict=True)
    ]


def normalized(x, pairs, axis=-1):
    return oracle.batch_norm(x, arrays(pairs), lambda s, eps: np.sqrt(s + eps), 0.01, axis)


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
    model, report = legacy.load(files.write(tmp_path / "m.h5", config, [("inner", flat)]))
    x = draw(5, 3)
    np.testing.assert_allclose(model(x), apply(normalized(apply(x, d), n), e), **CLOSE)
    assert [one.path for one in report.batch_norms] == ["inner/n"]
    assert model.get_layer("inner").get_layer("n").trainable is not frozen
    # A Sequential model in a Sequential model has no name of its own in Keras 1.
    outer = {
        "class_name": "Sequential",
        "config": [{"class_name": "Sequential", "config": inner["config"]}, dense("f", 2)],
    }
    f = dense_weights("f", 2, 2)
    model = compat.load_model(files.write(tmp_path / "s.h5", outer, [("sequential_1", flat), f]))
    np.testing.assert_allclose(model(x), apply(apply(normalized(apply(x, d), n), e), f), **CLOSE)


def test_a_merge_of_models_starts_a_sequential_model(tmp_path):
    pairs = [dense_weights("p", 3, 4), dense_weights("q", 2, 4), dense_weights("r", 8, 2)]
    branches = [files.sequential(dense("p", 4), shape=(3,)), files.sequential(dense("q", 4), shape=(2,))]
    merge = files.layer("Merge", "m", mode="concat", concat_axis=-1, layers=branches)
    config = {"class_name": "Sequential", "config": [merge, dense("r", 2)]}
    model = compat.load_model(files.write(tmp_path / "m.h5", config, pairs))
    x, y = draw(4, 3), draw(4, 2)
    both = np.concatenate([apply(x, pairs[0]), apply(y, pairs[1])], -1)
    np.testing.assert_allclose(model([x, y]), apply(both, pairs[2]), **CLOSE)


def lstm_config(**config):
    base = {"output_dim": 4, "init": "uniform", "inner_init": "orthogonal", "forget_bias_init": "one"}
    return (
        base
        | {"activation": "tanh", "inner_activation": "hard_sigmoid", "return_sequences": True}
        | config
    )


@pytest.mark.parametrize("merge_mode", ["concat", "sum", "mul", "ave"])
def test_bidirectional(tmp_path, merge_mode):
    one = {"class_name": "LSTM", "config": lstm_config(name="lstm_1", trainable=True)}
    weights = [draw(*shape) for _ in range(8) for shape in ((3, 4), (4, 4), (4,))]
    layer = files.layer("Bidirectional", "both", layer=one, merge_mode=merge_mode)
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
    model, report = legacy.load(path, backend="theano")
    x = draw(2, *shape)
    y = apply(x, d).reshape(10, 4, 1)
    y = oracle.convolve(y, kernel[0][:, 0], (1,), "same", "theano") + kernel[1]
    y = apply(normalized(y.reshape(2, 5, 4, 2), n).reshape(2, 20, 2), e)
    np.testing.assert_allclose(model(x), y, **CLOSE)
    assert type(model.get_layer("n")) is tfbn.BatchNorm
    assert model.get_layer("n").axis == 3
    assert [one.path for one in report.batch_norms] == ["n/n"]


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
    pairs = [("both", [(f"w{number}", one) for number, one in enumerate(both)])]
    pairs.append(("softplus", [(one, draw(5, 4)) for one in ("alphas", "betas")]))
    pairs.append(("s", [(one, draw(5, 4)) for one in names]))
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
    one = dense("d", 2)
    for _ in range(60):  # 2 ** 60 weights, if it were let
        one = files.layer("Bidirectional", "b", layer=one, merge_mode="sum")
    path = files.write(tmp_path / "deep.h5", files.sequential(one, shape=(4, 3)), [("b", d[1])])
    with pytest.raises(compat.UnsupportedLayerError, match="b: holds a wrapper and no recurrent layer"):
        compat.load_model(path)


def test_masks_travel(tmp_path):
    """The last state of a masked sequence is that of its last step that is not masked."""
    masking = files.layer("Masking", "mask", mask_value=0.0)
    gru = files.layer(
        "GRU",
        "gru",
        **{key: one for key, one in lstm_config(return_sequences=False).items() if key[:6] != "forget"},
    )
    weights = [draw(*shape) for _ in range(3) for shape in ((3, 4), (4, 4), (4,))]
    pairs = [("gru", [(f"w{number}", array) for number, array in enumerate(weights)])]
    model = compat.load_model(
        files.write(tmp_path / "m.h5", files.sequential(masking, gru, shape=(5, 3)), pairs)
    )
    x = draw(2, 5, 3)
    x[:, 3:] = 0
    np.testing.assert_allclose(model(x), oracle.gru(x[:, :3], weights)[:, -1], **CLOSE)


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
    one = files.layer(
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
    path = files.write(tmp_path / "m.h5", files.sequential(one, shape=(5, 5, 2)), pairs)
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
    by_xla = [tf.function(one, jit_compile=True)(x) for one in (model, kept)]
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
    model, report = legacy.load(path, backend="theano")
    names = [layer.name for layer in model.layers]
    added = {"inputs_channels_last", "conv_padding", "pool_channels_first"}
    assert [one for one in names if one not in added] == [
        "conv",
        "bn",
        "hard",
        "pool",
        "flat",
        "d",
        "bn2",
        "mode1",
    ]
    assert [one.became.split("(")[0] for one in report.batch_norms] == ["BatchNorm"] * 2 + [
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
