"""tfbn.export(freeze=): weights as constants of the SavedModel's graph, or as variables."""

import re
from types import SimpleNamespace

import keras
import numpy as np
import pytest
import tensorflow as tf

import reference
import tfbn
from networks import chain, randomize, relative_difference
from tfbn.compat import VariableScopeLayer
from tfbn.export import freezing

L = keras.layers


def load(path):
    return tf.saved_model.load(str(path))


def answer(path, x):
    return load(path).signatures["serving_default"](x=tf.constant(x))["output_0"].numpy()


def constants(path):
    """How many values the constants hold that the served function sees."""
    graph = load(path).signatures["serving_default"].graph.as_graph_def()
    nodes = [*graph.node, *(node for function in graph.library.function for node in function.node_def)]
    tensors = [node.attr["value"].tensor for node in nodes if node.op == "Const"]
    return sum(len(one.tensor_content) // tf.as_dtype(one.dtype).size for one in tensors)


@pytest.fixture(scope="module")
def model():
    keras.config.set_dtype_policy("float32")
    return chain((8, 8, 3), L.Conv2D(4, 3), tfbn.BatchNorm(name="bn"), L.ReLU(), L.Flatten(), L.Dense(2))


def size(path):
    return sum(file.stat().st_size for file in path.rglob("*") if file.is_file())


def test_weights_are_constants_unless_told(model, tmp_path, unchanged):
    x, weights = reference.data((5, 8, 8, 3)), tfbn.fold(model)[0].count_params()
    with unchanged(model):
        report = tfbn.export(model, tmp_path / "m")
    assert report.frozen
    assert report.reason_for_variables == ""
    assert "weights are constants\n" in str(report)
    assert load(tmp_path / "m").signatures["serving_default"].variables == ()
    assert weights <= constants(tmp_path / "m") <= weights + 50  # and a few shapes
    report = tfbn.export(model, tmp_path / "v", freeze=False)
    assert not report.frozen
    assert "weights are variables: freeze=False\n" in str(report)
    assert constants(tmp_path / "v") < 50
    for name in "mv":
        assert relative_difference(answer(tmp_path / name, x), model(x)) < 1e-5


def test_variables_can_be_trained_on(model, tmp_path):
    tfbn.export(model, tmp_path / "m", fold=False, freeze=False)
    loaded = load(tmp_path / "m")
    for name in ("variables", "trainable_variables", "non_trainable_variables"):
        for got, want in zip(getattr(loaded, name), getattr(model, name), strict=True):
            np.testing.assert_array_equal(got, want)
    layer = L.TFSMLayer(str(tmp_path / "m"), call_endpoint="serve")
    assert len(layer.trainable_weights) == len(model.trainable_weights) == 6
    x = reference.data((5, 8, 8, 3))
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(layer(x))
    assert all(one is not None for one in tape.gradient(loss, layer.trainable_weights))


@pytest.mark.parametrize("freeze", [True, False])
def test_each_weight_is_written_once(freeze, tmp_path):
    model = chain((300,), L.Dense(300), tfbn.BatchNorm(), L.Dense(300))
    tfbn.export(model, tmp_path / "m", freeze=freeze)
    assert 1 < size(tmp_path / "m") / (4 * 2 * 301 * 300) < 1.25


def cases():
    pixels, words = (8, 8, 3), (6,)
    yield "lstm", lambda: chain((7, 3), L.Bidirectional(L.LSTM(4)), L.BatchNormalization())
    yield "gru", lambda: chain((None, 3), L.GRU(4, return_sequences=True), L.Conv1D(2, 3))
    yield "embedding", lambda: chain(words, L.Embedding(9, 4, mask_zero=True), L.LSTM(3), dtype="int32")
    yield (
        "attention",
        lambda: chain(pixels, Attention(), L.LayerNormalization(), L.GroupNormalization(3)),
    )
    yield "norms", lambda: chain((5,), L.Dense(4), tfbn.BatchRenorm(), L.PReLU())
    yield "separable", lambda: chain(pixels, L.SeparableConv2D(4, 3, activation="relu6"))
    yield "nested", lambda: chain(pixels, chain(pixels, L.Conv2D(3, 1), tfbn.BatchNorm()), L.ReLU())


class Attention(L.Layer):
    """Of a layer of its own inside, as subclassed models have them."""

    def build(self, shape):
        self.inner = L.MultiHeadAttention(2, 3)
        self.inner.build(shape, shape)

    def call(self, x):
        return self.inner(x, x)


@pytest.mark.parametrize("policy", ["float32", "float64", "mixed_float16", "mixed_bfloat16"])
@pytest.mark.parametrize("name", dict(cases()))
def test_models_of_all_kinds(name, policy, tmp_path):
    keras.config.set_dtype_policy(policy)
    model = dict(cases())[name]()
    report = tfbn.export(model, tmp_path / "m", fold=False, freeze=True)
    assert report.frozen
    assert load(tmp_path / "m").signatures["serving_default"].variables == ()
    shape = [5, *(one or 7 for one in model.inputs[0].shape[1:])]
    x = np.tile(np.arange(6), (5, 1)) if name == "embedding" else reference.data(shape)
    x = x.astype(model.inputs[0].dtype)
    tolerance = {"mixed_float16": 1e-2, "mixed_bfloat16": 1e-1}.get(policy, 1e-5)
    assert relative_difference(answer(tmp_path / "m", x), model(x)) < tolerance


def test_tables_come_along(tmp_path):
    for reader in (L.StringLookup(vocabulary=["a", "b"]), L.TextVectorization(vocabulary=["a", "b"])):
        inputs = keras.Input((1,), dtype="string", name="x")
        model = keras.Model(inputs, L.Embedding(4, 2)(reader(inputs)))
        x = np.array([["b"], ["z"], ["a"]])
        for freeze in (True, False):
            report = tfbn.export(model, tmp_path / "m", overwrite=True, freeze=freeze, samples=x)
            assert report.frozen is freeze
            np.testing.assert_array_equal(answer(tmp_path / "m", x), model(tf.constant(x)))


class Counter(L.Layer):
    """Counts its calls at inference."""

    def build(self, shape):
        self.count = self.add_weight(shape=(), initializer="zeros", trainable=False, name="count")

    def call(self, x):
        self.count.assign_add(1.0)
        return x + 0.0


class Handle(L.Layer):
    """Needs its weight as TensorFlow's own variable."""

    def build(self, shape):
        self.scale = self.add_weight(shape=(shape[-1],), initializer="ones", name="scale")

    def call(self, x):
        return x * self.scale.value.read_value()


@keras.saving.register_keras_serializable("test_freezing")
def network(x):
    return x @ tf.compat.v1.get_variable("w", [4, 2])


@pytest.mark.parametrize(
    ("layer", "reason"),
    [
        (Counter, "cannot be constants: a call writes to counter/count."),
        (Handle, "cannot be constants: Exception .* object has no attribute 'read_value'"),
        (
            lambda name: VariableScopeLayer(network, name=name),
            "cannot be constants: Exception .* 'counter' does not support stateless_call.* itself.$",
        ),
    ],
)
def test_layers_that_need_variables_keep_them(layer, reason, tmp_path):
    inputs = keras.Input((4,), name="x")
    model = randomize(keras.Model(inputs, layer(name="counter")(inputs)))
    with pytest.raises(
        ValueError, match=f"The weights of 'functional.*{reason.strip('$')}.*Leave freeze= out"
    ):
        tfbn.export(model, tmp_path / "m", freeze=True)
    assert list(tmp_path.iterdir()) == []
    report = tfbn.export(model, tmp_path / "m")
    assert not report.frozen
    assert re.search(reason, report.reason_for_variables)
    x = reference.data((5, 4))
    assert relative_difference(answer(tmp_path / "m", x), model(x)) < 1e-6
    if layer is Counter:
        loaded = load(tmp_path / "m")
        (count,) = loaded.variables
        before = float(count)
        for _ in range(3):
            loaded.signatures["serving_default"](x=tf.zeros((1, 4)))
        assert float(count) == before + 3


def test_large_weights_stay_variables(model, tmp_path, monkeypatch):
    bytes_ = 4 * tfbn.fold(model)[0].count_params()
    monkeypatch.setattr(freezing, "AUTOMATIC", bytes_)
    assert tfbn.export(model, tmp_path / "a").frozen
    monkeypatch.setattr(freezing, "AUTOMATIC", bytes_ - 1)
    report = tfbn.export(model, tmp_path / "b")
    message = "they are 0 MB, above 0 MB; freeze=True makes them constants all the same"
    assert report.reason_for_variables == message
    assert tfbn.export(model, tmp_path / "c", freeze=True).frozen
    monkeypatch.setattr(freezing, "POSSIBLE", bytes_ - 1)
    assert tfbn.export(model, tmp_path / "d").reason_for_variables == "they are 0 MB, above 0 MB"
    monkeypatch.setattr(tfbn.folding, "fold", None)  # before any work
    with pytest.raises(ValueError, match=r"are 0\.0 GB, .* holds at most 0\.0 GB of constants\. Leave"):
        tfbn.export(model, tmp_path / "e", freeze=True)
    assert {path.name for path in tmp_path.iterdir()} == set("abcd")


def test_how_large_constants_may_be():
    def reason(megabytes, dtype, freeze=None):
        size = int(megabytes * 1e6) // np.dtype(dtype).itemsize
        weights = [
            SimpleNamespace(shape=one, dtype=dtype) for one in ((size // 2000, 1000), (size // 2,))
        ]
        return freezing.reason_for_variables(SimpleNamespace(name="m", variables=weights), freeze)

    for dtype in ("float16", "float32", "float64"):
        assert reason(134.2, dtype) == reason(2080, dtype, freeze=True) == ""
        assert reason(135, dtype).startswith("they are 135 MB, above 134 MB; freeze=True makes")
        assert reason(2081, dtype) == "they are 2081 MB, above 134 MB"
        with pytest.raises(
            ValueError, match=r"are 2\.1 GB, and .* at most 2\.1 GB of constants\. Leave"
        ):
            reason(2081, dtype, freeze=True)
