"""Algorithm 2, lines 7 to 10: exact over the whole data, any kind of data, and nothing half changed."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import reference
import tfbn
from networks import chain
from population_data import TARGETS, Batches, Sequence, X, assert_first_is_exact, full, unequal_batches
from tfbn.batch_norms import batch_norms

L = keras.layers
DATA = {
    "array": lambda: X,
    "tensor": lambda: tf.constant(X),
    "x, y": lambda: (X, TARGETS),
    "x, y, weights": lambda: (X, TARGETS, np.linspace(0, 1, len(X))),
    "dataset of x": lambda: tf.data.Dataset.from_tensor_slices(X).batch(64),
    "dataset of x, y": lambda: tf.data.Dataset.from_tensor_slices((X, TARGETS)).batch(30),
    "dataset of x, y, weights": lambda: tf.data.Dataset.from_tensor_slices((X, TARGETS, TARGETS)).batch(
        7
    ),
    "generator": unequal_batches,
    "PyDataset": Sequence,
    "list of batches": lambda: [(X[:7], TARGETS[:7]), (X[7:], TARGETS[7:])],
    "list of one array": lambda: [X],
    "generator of x": lambda: (part for part in np.split(X, 4)),
    "dataset's iterator": lambda: iter(tf.data.Dataset.from_tensor_slices((X, TARGETS)).batch(64)),
    "iterable": Batches,
    "iterator": lambda: zip(np.split(X, 4), np.split(TARGETS, 4), strict=True),
}


@pytest.mark.parametrize("kind", [tfbn.BatchNorm, keras.layers.BatchNormalization])
def test_a_model_that_is_built_by_the_pass(kind):
    """Keras' own layer has statistics, `None`, before it is built."""
    x = reference.data((40, 5)).astype("float32")
    model = keras.Sequential([kind(name="bn"), keras.layers.Dense(2)])
    found = tfbn.recalibrate(model, x, verbose=0)["bn"]
    np.testing.assert_allclose(found.mean, reference.moments(x)[0], rtol=1e-6)
    np.testing.assert_allclose(model.get_layer("bn").moving_mean, found.mean, rtol=1e-6)


@pytest.mark.parametrize("kind", DATA)
def test_any_data_gives_exact_statistics(model, kind, unchanged, capsys):
    with unchanged(model):
        statistics = tfbn.population_statistics(model, DATA[kind](), verbose=0)
    assert statistics.keys() == {"first", "stock", "inner/ours", "timed/step"}
    assert_first_is_exact(statistics, X)
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("axis", [-1, 1, (1, 3)])
def test_any_axis(axis):
    model = chain((6, 5, 3), tfbn.BatchNorm(axis=axis, name="first"))
    assert_first_is_exact(tfbn.population_statistics(model, X, verbose=0), X, axis=axis)


def test_far_from_zero_no_digit_is_lost():
    x = (X + np.float32(1e4)).astype("float32")
    model = chain((6, 5, 3), tfbn.BatchNorm(name="first"))
    assert_first_is_exact(tfbn.population_statistics(model, x, verbose=0), x)


def test_inner_batch_norms_see_the_training_network_without_dropout(model):
    # With all data in one batch, every statistic follows from the oracle's forward pass.
    statistics = tfbn.population_statistics(model, [(X,)], verbose=0)
    first, dense, stock = model.get_layer("first"), model.layers[3], model.get_layer("stock")
    x = reference.apply(X, *reference.moments(X), first.beta, first.gamma)
    kernel, bias = (weight.astype("float64") for weight in dense.get_weights())
    x = x @ kernel + bias
    mean, variance = full(x)
    np.testing.assert_allclose(statistics["stock"].mean, mean, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(statistics["stock"].variance, variance, rtol=1e-5)
    x = reference.apply(x, *reference.moments(x), stock.beta, stock.gamma)
    inner = model.get_layer("inner")
    x = inner.layers[0](x.astype("float32")).numpy()
    np.testing.assert_allclose(statistics["inner/ours"].mean, full(x)[0], rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(statistics["inner/ours"].variance, full(x)[1], rtol=1e-4)


def test_a_batch_norm_called_twice_is_measured_over_both():
    layer, inputs = tfbn.BatchNorm(name="first"), keras.Input((3,))
    model = keras.Model(inputs, layer(inputs) + layer(inputs * 10.0))
    x = X.reshape(-1, 3)[:50]
    statistics = tfbn.population_statistics(model, x, verbose=0)
    assert_first_is_exact(statistics, np.concatenate([x, x * np.float32(10)]))


def test_masked_positions_do_not_count():
    model = keras.Sequential(
        [
            keras.Input((7,), dtype="int32"),
            L.Embedding(9, 4, mask_zero=True),
            tfbn.BatchNorm(name="first"),
        ]
    )
    tokens = np.random.default_rng(0).integers(0, 9, (40, 7)).astype("int32")
    embedded = model.layers[0].get_weights()[0][tokens[tokens > 0]]
    assert_first_is_exact(tfbn.population_statistics(model, tokens, verbose=0), embedded)


def test_several_inputs():
    inputs = {"a": keras.Input((3,), name="a"), "b": keras.Input((2,), name="b")}
    joined = L.Concatenate()([inputs["a"], inputs["b"]])
    model = keras.Model(inputs, tfbn.BatchNorm(name="first")(joined))
    x = reference.data((50, 5))
    statistics = tfbn.population_statistics(model, {"a": x[:, :3], "b": x[:, 3:]}, verbose=0)
    assert_first_is_exact(statistics, x)


def test_a_generator_for_several_inputs():
    inputs = [keras.Input((3,)), keras.Input((2,))]
    model = keras.Model(inputs, tfbn.BatchNorm(name="first")(L.Concatenate()(inputs)))
    x = reference.data((50, 5))
    batches = (([part[:, :3], part[:, 3:]], part[:, 0]) for part in np.split(x, 5))
    assert_first_is_exact(tfbn.population_statistics(model, batches, verbose=0), x)


@pytest.mark.parametrize("called_before", [False, True])
@pytest.mark.parametrize("decorated", ["call", "part"])
def test_models_of_tf_functions_are_measured_and_keep_no_trace_of_it(
    called_before, decorated, unchanged
):
    class Model(keras.Model):
        def __init__(self):
            super().__init__()
            self.norm = tfbn.BatchNorm(name="first")
            self.norm.build(X.shape)

        def build(self, shape):
            self.built = True

        def part(self, x, training=None):
            if tf.reduce_all(x < 0):  # what only a tf.function may ask in a graph
                return x
            return self.norm(x, training=training)

        def call(self, x, training=None):
            return self.part(x, training=training)

    setattr(Model, decorated, tf.function(getattr(Model, decorated)))
    model = Model()
    expected = model.norm(X, training=False)
    if called_before:
        model(X[:3], training=False)
    with unchanged(model):
        assert_first_is_exact(tfbn.population_statistics(model, X, verbose=0), X)
    np.testing.assert_allclose(model(X, training=False), expected, rtol=1e-6, atol=1e-6)
    assert not tf.config.functions_run_eagerly()


def test_state_that_inference_changes_is_put_back():
    class Counter(L.Layer):
        def build(self, shape):
            self.calls = self.add_weight(shape=(), initializer="zeros", trainable=False)

        def call(self, x):
            self.calls.assign_add(1.0)
            return x

    counter, rnn = Counter(), L.LSTM(3, stateful=True)
    inputs = keras.Input(batch_shape=(10, 5, 4))
    model = keras.Model(inputs, rnn(tfbn.BatchNorm(name="first")(counter(inputs))))
    x = reference.data((10, 5, 4))
    model(x)
    before = [state.numpy() for state in rnn.states]
    # Of known size: Keras 3.12 and 3.13 run no stateful LSTM on batches of another kind.
    data = tf.data.Dataset.from_tensors(x)
    assert_first_is_exact(tfbn.population_statistics(model, data, verbose=0), x)
    assert float(counter.calls) == 1
    for old, new in zip(before, rnn.states, strict=True):
        np.testing.assert_array_equal(old, new)


def test_inside_a_strategy():
    with tf.distribute.OneDeviceStrategy("CPU:0").scope():
        model = chain((6, 5, 3), tfbn.BatchNorm(name="first"))
        assert_first_is_exact(tfbn.population_statistics(model, X, verbose=0), X)


def test_subclassed_and_eager_models():
    class Subclassed(keras.Model):
        def __init__(self):
            super().__init__()
            self.norms = [tfbn.BatchNorm(name="first")]

        def call(self, x, training=None):
            return self.norms[0](x.numpy(), training=training)  # runs eagerly only

    model = Subclassed()
    model.compile(run_eagerly=True)
    assert_first_is_exact(tfbn.population_statistics(model, X, verbose=0), X)


def test_mixed_precision():
    keras.config.set_dtype_policy("mixed_float16")
    model = chain((6, 5, 3), tfbn.BatchNorm(name="first"))
    x = X.astype("float16")
    assert_first_is_exact(tfbn.population_statistics(model, x, verbose=0), x)


@pytest.mark.parametrize("layer", [tfbn.BatchNorm, L.BatchNormalization])
def test_recalibrate_assigns_what_it_measured(layer):
    model = chain((6, 5, 3), layer(name="first"), L.Dense(4), layer(name="second"))
    measured = tfbn.population_statistics(model, X, verbose=0)
    assigned = tfbn.recalibrate(model, X, verbose=0)
    for path, batch_norm in batch_norms(model).items():
        np.testing.assert_array_equal(assigned[path].mean, measured[path].mean)
        np.testing.assert_array_equal(batch_norm.moving_mean, measured[path].mean.astype("float32"))
        np.testing.assert_array_equal(
            batch_norm.moving_variance, measured[path].variance.astype("float32")
        )
    p = model.get_layer("first")
    expected = reference.apply(X, *full(X), p.beta, p.gamma)
    np.testing.assert_allclose(p(X), expected, rtol=1e-5, atol=1e-5)


def test_frozen_batch_norms_stay_and_run_as_at_inference():
    model = chain((6, 5, 3), tfbn.BatchNorm(name="frozen"), tfbn.BatchNorm(name="second"))
    frozen = model.get_layer("frozen")
    frozen.trainable = False
    before = [weight.copy() for weight in frozen.get_weights()]
    statistics = tfbn.recalibrate(model, X, verbose=0)
    assert statistics.keys() == {"second"}
    for old, new in zip(before, frozen.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)
    p = [np.asarray(weight, "float64") for weight in before]
    assert_first_is_exact(statistics, reference.apply(X, p[2], p[3], p[1], p[0]), "second")


def test_training_goes_on_as_if_nothing_had_been_measured(model):
    def train(measure):
        keras.utils.set_random_seed(3)
        copy = keras.models.clone_model(model)
        copy.compile("sgd", "mse")
        copy.fit(X, np.zeros((200, 4, 3, 4)), epochs=1, verbose=0, shuffle=False)
        if measure:
            tfbn.population_statistics(copy, X, verbose=0)
        copy.fit(X, np.zeros((200, 4, 3, 4)), epochs=1, verbose=0, shuffle=False)
        return copy.get_weights()

    for with_pass, without in zip(train(True), train(False), strict=True):
        np.testing.assert_array_equal(with_pass, without)


def test_a_progress_bar(model, capsys):
    tfbn.population_statistics(model, X, verbose=1)
    assert "7/7" in capsys.readouterr().out


def test_steps(model):
    dataset = tf.data.Dataset.from_tensor_slices(X).batch(20).repeat()
    statistics = tfbn.population_statistics(model, dataset, steps=np.int64(3), verbose=0)
    assert_first_is_exact(statistics, X[:60])
    statistics = tfbn.population_statistics(model, X, steps=2, verbose=0)
    assert_first_is_exact(statistics, X[:64])
