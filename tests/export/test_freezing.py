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
from sweeps import thinned
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
    return sum(len(tensor.tensor_content) // tf.as_dtype(tensor.dtype).size for tensor in tensors)


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
    assert all(gradient is not None for gradient in tape.gradient(loss, layer.trainable_weights))


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


@pytest.mark.parametrize(
    ("policy", "name"),
    thinned(3, ["float32", "float64", "mixed_float16", "mixed_bfloat16"], dict(cases())),
)
def test_models_of_all_kinds(name, policy, tmp_path):
    keras.config.set_dtype_policy(policy)
    model = dict(cases())[name]()
    report = tfbn.export(model, tmp_path / "m", fold=False, freeze=True)
    assert report.frozen
    assert load(tmp_path / "m").signatures["serving_default"].variables == ()
    shape = [5, *(size or 7 for size in model.inputs[0].shape[1:])]
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


class Metric(L.Layer):
    """Counts in a metric, which is no weight of the model."""

    def __init__(self, **arguments):
        super().__init__(**arguments)
        self.count = keras.metrics.Sum(name="count")

    def call(self, x):
        self.count.update_state(1.0)
        return x + 0.0


class Random(L.Layer):
    """Draws from Keras' global generator."""

    def call(self, x):
        return x + 1e-9 * keras.random.normal((4,))


class Handle(L.Layer):
    """Needs its weight as TensorFlow's own variable."""

    def build(self, shape):
        self.scale = self.add_weight(shape=(shape[-1],), initializer="ones", name="scale")

    def call(self, x):
        return x * self.scale.value.read_value()


class Raw(L.Layer):
    """Has a variable that Keras does not know."""

    def build(self, shape):
        self.scale = tf.Variable(tf.ones(shape[-1]), name="raw")

    def call(self, x):
        return x * self.scale


class Traced(L.Layer):
    """Calls a tf.function, which keeps its traces."""

    def build(self, shape):
        self.scale = self.add_weight(shape=(shape[-1],), initializer="ones", name="scale")

    @tf.function
    def scaled(self, x):
        return x * self.scale

    def call(self, x):
        return self.scaled(x)


@keras.saving.register_keras_serializable("test_freezing")
def network(x):
    return x @ tf.compat.v1.get_variable("w", [4, 2])


NEEDY = {
    "counter": (Counter, "a call writes to .*count"),
    "metric": (Metric, "a call writes to .*count"),
    "random": (Random, "a call writes to .*seed"),
    "handle": (Handle, "object has no attribute 'read_value'"),
    "raw": (Raw, "a layer reads variables that are not Keras' own: raw"),
    "traced": (Traced, "a layer calls a tf.function"),
    "tf1": (lambda: VariableScopeLayer(network), "a layer reads variables that are not Keras' own: w"),
}


@pytest.mark.parametrize("name", NEEDY)
def test_layers_that_need_variables_keep_them(name, tmp_path):
    make, reason = NEEDY[name]
    inputs = keras.Input((4,), name="x")
    model = randomize(keras.Model(inputs, make()(inputs)))
    with pytest.raises(
        ValueError, match=f"the weights of 'func.* cannot be .*{reason}.* Leave freeze= out"
    ):
        tfbn.export(model, tmp_path / "m", fold=False, freeze=True)
    assert list(tmp_path.iterdir()) == []
    report = tfbn.export(model, tmp_path / "m", fold=False)
    assert not report.frozen
    assert re.search(reason, report.reason_for_variables)
    x = reference.data((5, 4))
    assert relative_difference(answer(tmp_path / "m", x), model(x)) < 1e-6


def test_a_batch_norm_that_stays_has_constants(tmp_path):
    layers = [keras.Input((8, 8, 4)), keras.layers.Activation("tanh"), tfbn.BatchNorm()]
    model = randomize(keras.Sequential([*layers, keras.layers.Activation("tanh"), tfbn.BatchNorm()]))
    report = tfbn.export(model, tmp_path / "m", freeze=True)
    assert report.frozen
    assert len(report.fold.kept) == 2


@pytest.mark.parametrize("make", [Counter, Metric])
def test_what_a_call_writes_goes_on(make, tmp_path):
    inputs = keras.Input((4,), name="x")
    tfbn.export(keras.Model(inputs, make()(inputs)), tmp_path / "m")
    loaded = load(tmp_path / "m")
    signature = loaded.signatures["serving_default"]
    count = max(signature.variables, key=lambda variable: variable.numpy())
    before = float(count)
    for _ in range(3):
        signature(x=tf.zeros((1, 4)))
    assert float(count) == before + 3


class Net(keras.Model):
    def __init__(self):
        super().__init__()
        self.dense = L.Dense(2)

    def build(self, shape):
        self.dense.build(shape)

    @tf.function
    def call(self, x, training=False):
        return self.dense(x)


def test_the_model_lives_on(tmp_path):
    # What it keeps of its traces must not hold the constants of the first export.
    model, x = Net(), reference.data((2, 4))
    model(x)
    tfbn.export(model, tmp_path / "m", fold=False, samples=x)
    model.dense.set_weights([np.full((4, 2), 5.0), np.zeros(2)])
    five = reference.data((5, 4))
    want = 5 * five.sum(1, keepdims=True) * [1, 1]
    np.testing.assert_allclose(model(five), want, rtol=1e-5)
    np.testing.assert_allclose(model.predict(five, verbose=0), want, rtol=1e-5)
    tfbn.export(model, tmp_path / "m", fold=False, samples=x, overwrite=True)
    served = load(tmp_path / "m").signatures["serving_default"](inputs=tf.constant(five))["output_0"]
    np.testing.assert_allclose(served, want, rtol=1e-5)
    model.compile("sgd", "mse")
    model.fit(five, want + 1, verbose=0)
    assert not (model.dense.kernel.numpy() == 5).all()


class Fleeting(L.Dense):
    """Makes a tf.function in each call, as Keras does for grouped convolutions."""

    def call(self, x):
        return tf.function(lambda: x @ self.kernel)()


FIRST = {"data_format": "channels_first"}
GROUPED = {
    "conv1d": ((9, 4), lambda: L.Conv1D(6, 3, groups=2)),
    "conv2d": ((7, 7, 4), lambda: L.Conv2D(6, 3, groups=2, strides=2, padding="same")),
    "conv3d": ((5, 5, 5, 4), lambda: L.Conv3D(6, 2, groups=2)),
    "conv1d_first": ((4, 9), lambda: L.Conv1D(6, 3, groups=2, **FIRST)),
    "conv2d_first": ((4, 7, 7), lambda: L.Conv2D(6, 3, groups=2, **FIRST)),
    "conv3d_first": ((4, 5, 5, 5), lambda: L.Conv3D(6, 2, **FIRST)),
    "separable": ((7, 7, 4), lambda: L.SeparableConv2D(6, 3)),
    "timed": ((3, 9, 4), lambda: L.TimeDistributed(L.Conv1D(6, 3, groups=2))),
    "fleeting": ((4,), lambda: Fleeting(3)),
}


@pytest.mark.parametrize("name", GROUPED)
def test_functions_that_die_with_their_call_keep_no_constants(name, tmp_path):
    shape, make = GROUPED[name]
    inputs = keras.Input(shape, name="x")
    layer = make()
    model, x = randomize(keras.Model(inputs, layer(inputs))), reference.data((5, *shape))
    want = model(x).numpy()
    report = tfbn.export(model, tmp_path / "m", fold=False, freeze=True)
    assert report.frozen
    assert load(tmp_path / "m").signatures["serving_default"].variables == ()
    assert relative_difference(answer(tmp_path / "m", x), want) < 1e-5
    # The model goes on with its variables.
    fresh = randomize(keras.Model(inputs, make()(inputs)), seed=1)
    model.set_weights(fresh.get_weights())
    assert relative_difference(model(x), want) > 1e-2
    for got in (model(x), model.predict(x, verbose=0)):
        assert relative_difference(got, fresh(x)) < 1e-5


class Losing(keras.Model):
    """Returns what its layer added as a loss."""

    def __init__(self):
        super().__init__()
        self.dense = L.Dense(3, activity_regularizer="l2")

    def call(self, x):
        y = self.dense(x)
        return y + keras.ops.sum(self.losses[0])


def test_losses_are_there_as_in_the_model(tmp_path):
    model, x = Losing(), reference.data((4, 4))
    model(x)
    assert tfbn.export(model, tmp_path / "m", fold=False, samples=x).frozen


def test_large_weights_stay_variables(model, tmp_path, monkeypatch):
    bytes_ = 4 * tfbn.fold(model)[0].count_params()
    monkeypatch.setattr(freezing, "FREEZE_UP_TO_BYTES", bytes_)
    assert tfbn.export(model, tmp_path / "a").frozen
    monkeypatch.setattr(freezing, "FREEZE_UP_TO_BYTES", bytes_ - 1)
    report = tfbn.export(model, tmp_path / "b")
    message = "they are 0 MB, above 0 MB; freeze=True makes them constants all the same"
    assert report.reason_for_variables == message
    assert tfbn.export(model, tmp_path / "c", freeze=True).frozen
    monkeypatch.setattr(freezing, "GRAPHDEF_LIMIT_BYTES", bytes_ - 1)
    assert tfbn.export(model, tmp_path / "d").reason_for_variables == "they are 0 MB, above 0 MB"
    monkeypatch.setattr(tfbn.folding, "fold", None)  # before any work
    with pytest.raises(ValueError, match=r"are 0\.0 GB, .* holds at most 0\.0 GB of constants\. Leave"):
        tfbn.export(model, tmp_path / "e", freeze=True)
    assert {path.name for path in tmp_path.iterdir()} == set("abcd")


def test_how_large_constants_may_be():
    def reason(megabytes, dtype, freeze=None):
        size = int(megabytes * 1e6) // np.dtype(dtype).itemsize
        weights = [
            SimpleNamespace(shape=shape, dtype=dtype) for shape in ((size // 2000, 1000), (size // 2,))
        ]
        return freezing.unfrozen_because(SimpleNamespace(name="m", variables=weights), freeze)

    for dtype in ("float16", "float32", "float64"):
        assert reason(40, dtype) == reason(2000, dtype, freeze=True) == ""
        assert reason(41, dtype).startswith("they are 41 MB, above 40 MB; freeze=True makes")
        assert reason(2001, dtype) == "they are 2001 MB, above 40 MB"
        with pytest.raises(
            ValueError, match=r"are 2\.0 GB, and .* at most 2\.0 GB of constants\. Leave"
        ):
            reason(2001, dtype, freeze=True)
