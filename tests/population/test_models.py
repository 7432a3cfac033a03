"""What is measured where a model's code calls its batch norms, loops over them or prepares its data."""

import json

import keras
import numpy as np
import pytest
import tensorflow as tf

import reference
import tfbn
from networks import chain
from population_data import assert_exact
from tfbn import compat

L = keras.layers
X = reference.data((48, 5, 3), seed=2)


class Backbone(L.Layer):
    """Runs its first batch norm as at inference whatever the model does, as pretrained backbones do."""

    def __init__(self, kind, **kwargs):
        super().__init__(**kwargs)
        self.pretrained, self.own = kind(name="pretrained"), kind(name="own")

    def build(self, shape):
        self.pretrained.build(shape)
        self.own.build(shape)

    def call(self, x, training=None):
        return self.own(self.pretrained(x, training=False), training=training)


@pytest.mark.parametrize("eagerly", [False, True])
@pytest.mark.parametrize("kind", [tfbn.BatchNorm, L.BatchNormalization])
def test_a_batch_norm_that_training_runs_as_at_inference_is_left(kind, eagerly):
    model = chain((5, 3), Backbone(kind, name="backbone"))
    model.compile(run_eagerly=eagerly)
    pretrained = model.get_layer("backbone").pretrained
    before = [variable.numpy() for variable in pretrained.variables]
    found = tfbn.recalibrate(model, X, verbose=0)
    for old, new in zip(before, pretrained.variables, strict=True):
        np.testing.assert_array_equal(old, new)
    assert found.keys() == {"backbone/own"}
    assert found.left == {
        "backbone/pretrained": "the model's own code runs it with training=False, in training too"
    }
    assert_exact(found["backbone/own"], pretrained(X).numpy())


def test_training_that_a_graph_fixes_is_what_fit_overrides():
    inputs = keras.Input((5, 3))
    model = keras.Model(inputs, tfbn.BatchNorm(name="bn")(inputs, training=False))
    assert_exact(tfbn.population_statistics(model, X, verbose=0)["bn"], X)


def test_only_the_calls_that_train_are_measured():
    class Twice(keras.Model):
        def __init__(self):
            super().__init__()
            self.bn = tfbn.BatchNorm(name="bn")

        def call(self, x, training=None):
            return self.bn(self.bn(x, training=False) + 5.0, training=training)

    model = Twice()
    model(X[:1])
    model.bn.moving_mean.assign([1.0, 2.0, 3.0])
    seen = model.bn(X).numpy() + 5.0
    assert_exact(tfbn.population_statistics(model, X, verbose=0)["bn"], seen)


def test_a_branch_of_inference_is_left():
    class Branches(keras.Model):
        def __init__(self):
            super().__init__()
            self.both, self.never = tfbn.BatchNorm(name="both"), tfbn.BatchNorm(name="never")

        def call(self, x, training=None):
            x = self.both(x, training=training)
            return x if training else self.never(x, training=training)

    model = Branches()
    model(X[:1])
    found = tfbn.population_statistics(model, X, verbose=0)
    assert found.keys() == {"both"}
    assert found.left == {"never": "training does not call it"}


@keras.saving.register_keras_serializable("tests")
def one_frozen(x, is_training):
    x = compat.batch_norm(x, is_training=False, scope="frozen")
    return compat.batch_norm(x, is_training=is_training, scope="trained")


@pytest.mark.filterwarnings("ignore:The batch norms")
def test_tf1_code_that_fixes_its_batch_norm_to_inference():
    model = chain((3,), compat.VariableScopeLayer(one_frozen, name="tf1"))
    found = tfbn.recalibrate(model, X[:, 0], verbose=0)
    assert found.keys() == {"tf1/trained"}
    assert found.left.keys() == {"tf1/frozen"}
    weights = model.get_layer("tf1").variables_by_name
    assert_exact(found["tf1/trained"], tfbn_inference(X[:, 0], weights))


def tfbn_inference(x, weights):
    parts = ("moving_mean", "moving_variance", "beta")
    return reference.apply(x, *(weights[f"frozen/{part}"].numpy() for part in parts))


@keras.saving.register_keras_serializable("tests")
class Cell(L.Layer):
    def __init__(self, stock=False, **kwargs):
        super().__init__(**kwargs)
        self.bn, self.state_size = (L.BatchNormalization if stock else tfbn.BatchNorm)(name="bn"), 3

    def build(self, shape):
        self.bn.build(shape)

    def call(self, x, states, training=None):
        y = self.bn(x, training=training)
        return y, [y]


@pytest.mark.parametrize("eagerly", [False, True])
@pytest.mark.parametrize("time", [5, None])
@pytest.mark.parametrize(
    "make",
    [
        lambda: L.RNN(Cell(), name="rnn"),
        lambda: L.RNN(Cell(stock=True), return_sequences=True, name="rnn"),
        lambda: L.RNN([Cell(), L.SimpleRNNCell(3)], name="rnn"),
        lambda: L.Bidirectional(L.RNN(Cell(), name="rnn")),
    ],
    ids=["ours", "stock", "stacked", "bidirectional"],
)
def test_a_cell_sees_each_step_once(make, time, eagerly):
    model = chain((time, 3), make())
    model.compile(run_eagerly=eagerly)
    for statistics in tfbn.population_statistics(model, X, verbose=0).values():
        assert_exact(statistics, X)


def test_an_unrolled_cell_sees_each_step_once():
    model = chain((5, 3), L.RNN(Cell(), unroll=True, name="rnn"))
    (statistics,) = tfbn.population_statistics(model, X, verbose=0).values()
    assert_exact(statistics, X)


@pytest.mark.parametrize("inner", [L.BatchNormalization, lambda: chain((3,), tfbn.BatchNorm())])
def test_steps_of_any_number_through_time_distributed(inner):
    model = chain((None, 3), L.TimeDistributed(inner(), name="timed"))
    batches = [(X,), (X[:, :3],), (X[:7, :4],)]
    (statistics,) = tfbn.population_statistics(model, batches, verbose=0).values()
    assert_exact(statistics, np.concatenate([x.reshape(-1, 3) for (x,) in batches]))


class Counter(L.Layer):
    """Counts its calls in a variable, a variable of TensorFlow and a sublayer's."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.inner, self.plain = L.Dense(3), tf.Variable(0.0)

    def build(self, shape):
        self.calls = self.add_weight(shape=(), initializer="zeros", trainable=False, name="calls")
        self.scale = self.add_weight(shape=(), initializer="ones", name="scale")
        self.inner.build(shape)

    def call(self, x):
        for counter in (self.calls, self.plain, self.scale):
            counter.assign_add(tf.ones_like(counter))
        return self.inner(x)


@pytest.mark.parametrize("frozen", [False, True])
@pytest.mark.parametrize("eagerly", [False, True])
def test_nothing_that_layers_write_is_left_changed(frozen, eagerly, unchanged):
    counter = Counter(name="counter")
    model = chain((5, 3), counter, tfbn.BatchNorm(name="bn"))
    model.compile(run_eagerly=eagerly)
    counter.trainable = not frozen
    plain = counter.plain.numpy()
    with unchanged(model):
        tfbn.population_statistics(model, X, verbose=0)
    assert counter.plain.numpy() == plain


class Unused(keras.Model):
    def __init__(self):
        super().__init__()
        names = ("used", "unused", "frozen")
        self.used, self.unused, self.frozen = (tfbn.BatchNorm(name=name) for name in names)
        self.single = tfbn.BatchNorm(axis=1, name="single")
        for layer in (self.unused, self.frozen):
            layer.build((None, 5, 3))
        self.frozen.trainable = False

    def call(self, x, training=None):
        self.single(self.frozen(x)[:1, :, 0], training=training)
        return self.used(x, training=training)


def test_what_no_data_reaches_is_left_and_named():
    model = Unused()
    model(X[:1])
    before = [variable.numpy() for variable in model.unused.variables]
    with pytest.warns(UserWarning, match=r"not measured: single \(it saw 1 value in a channel, and"):
        found = tfbn.recalibrate(model, [(X,)], verbose=0)
    assert found.left == {
        "unused": "training does not call it",
        "frozen": "frozen (trainable = False)",
        "single": "it saw 1 value in a channel, and a variance needs two",
    }
    assert_exact(found["used"], X)
    np.testing.assert_allclose(model.used.moving_mean, found["used"].mean, rtol=1e-6)
    for old, new in zip(before, model.unused.variables, strict=True):
        np.testing.assert_array_equal(old, new)


def test_a_mask_that_leaves_nothing():
    inputs, mask = keras.Input((5, 3)), keras.Input((5,), dtype="bool")
    first, second = tfbn.BatchNorm(name="first"), tfbn.BatchNorm(name="second")
    model = keras.Model([inputs, mask], second(first(inputs), mask=mask))
    with pytest.warns(UserWarning, match=r"second \(no value of the data reached it\)"):
        found = tfbn.recalibrate(model, [X, np.zeros((48, 5), bool)], verbose=0)
    assert found.keys() == {"first"}


def test_the_table():
    model = Unused()
    model(X[:1])
    model.used.moving_mean.assign([0.5, 0.5, 0.5])
    with pytest.warns(UserWarning, match="single"):
        lines = str(tfbn.recalibrate(model, [(X,)], verbose=0)).splitlines()
    flat = X.reshape(-1, 3).astype("float64")
    mean, variance = flat.mean(0), flat.var(0, ddof=1)
    assert lines[0] == "1 of 4 batch norms measured"
    assert " ".join(lines[1].split()) == "values mean before measured variance before measured"
    means, variances = (
        f"{statistic.min():.3g} … {statistic.max():.3g}" for statistic in (mean, variance)
    )
    assert " ".join(lines[2].split()) == f"used 240 0.5 {means} 1 {variances}"
    assert lines[3:] == [
        "  unused  left: training does not call it",
        "  frozen  left: frozen (trainable = False)",
        "  single  left: it saw 1 value in a channel, and a variance needs two",
    ]


def test_what_was_measured_is_a_dictionary():
    found = tfbn.population_statistics(chain((5, 3), tfbn.BatchNorm(name="bn")), X, verbose=0)
    assert json.dumps({path: moments.mean.tolist() for path, moments in found.items()})
    assert found.left == {}
    np.testing.assert_array_equal(found.before["bn"][0].shape, (3,))


def test_a_cell_of_two_sequences_counts_both():
    cell, inputs = Cell(), keras.Input((5, 3))
    outputs = [L.RNN(cell)(inputs), L.RNN(cell, return_sequences=True)(10.0 * inputs)]
    model = keras.Model(inputs, outputs)
    (statistics,) = tfbn.population_statistics(model, X, verbose=0).values()
    assert_exact(statistics, np.concatenate([X, X * np.float32(10)]))


class FreeLength(L.Layer):
    """Keras does not know how many steps come out."""

    def call(self, x):
        return tf.reshape(x, [-1, tf.shape(x)[1], 3])

    def compute_output_shape(self, shape):
        return (None, None, 3)


def test_steps_whose_number_is_lost_on_the_way():
    model = chain((5, 3), FreeLength(), L.TimeDistributed(L.BatchNormalization(), name="timed"))
    (statistics,) = tfbn.population_statistics(model, X, verbose=0).values()
    assert_exact(statistics, X)


class OneBatchNorm(keras.Model):
    def __init__(self):
        super().__init__()
        self.bn = tfbn.BatchNorm(name="bn")


class Otherwise(OneBatchNorm):
    """Calls its batch norm once more in training."""

    def call(self, x, training=None):
        if training:
            self.bn(x * 10.0, training=False)
        return self.bn(x, training=training)


def test_more_calls_in_training_than_at_inference():
    model = Otherwise()
    model(X[:1])
    assert_exact(tfbn.population_statistics(model, X, verbose=0)["bn"], X)


class Fussy(OneBatchNorm):
    def call(self, x, training=None):
        if training:
            x, _ = x
        return self.bn(x, training=training)


def test_a_model_that_trains_on_other_data():
    model = Fussy()
    model(X[:1])
    with pytest.warns(UserWarning, match="cannot be called with training=True, so that every"):
        assert_exact(tfbn.population_statistics(model, X, verbose=0)["bn"], X)


class Holding(L.Layer):
    """Has variables in a dictionary, and a metric."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.held = {"calls": [tf.Variable(0.0)]}
        self.mean = keras.metrics.Mean()

    def call(self, x):
        self.held["calls"][0].assign_add(1.0)
        self.mean.update_state(x)
        return x


def test_variables_in_dictionaries_and_metrics_are_put_back():
    layer = Holding()
    model = chain((5, 3), layer, tfbn.BatchNorm())
    before = [layer.held["calls"][0].numpy(), *(variable.numpy() for variable in layer.mean.variables)]
    tfbn.population_statistics(model, X, verbose=0)
    after = [layer.held["calls"][0].numpy(), *(variable.numpy() for variable in layer.mean.variables)]
    np.testing.assert_array_equal(before, after)
