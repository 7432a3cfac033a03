"""The batch norms of TF1-style code in a layer: measured, recalibrated, and watched for idle updates."""

import warnings

import keras
import numpy as np
import pytest
import tensorflow as tf

import reference
import tfbn
from tfbn import compat

V1 = tf.compat.v1
X = reference.data((100, 3), seed=3)


@keras.saving.register_keras_serializable("tests")
def two_batch_norms(x, is_training):
    with V1.variable_scope("net"):
        x = x @ V1.get_variable("w", [3, 4])
        x = compat.batch_norm(x, is_training=is_training, scale=True)
        x = tf.nn.relu(x) @ V1.get_variable("v", [4, 2])
        return compat.batch_normalization(x, training=is_training, name="second")


def network(function=two_batch_norms):
    inputs = keras.Input((3,))
    layer = compat.VariableScopeLayer(function, name="tf1")
    model = keras.Model(inputs, layer(inputs))
    rng = np.random.default_rng(1)
    for name, variable in layer.variables_by_name.items():
        if name.endswith(("beta", "gamma")):
            variable.assign(rng.uniform(0.5, 2, variable.shape))
    return model, layer.variables_by_name


def expected_statistics(weights):
    """Mean and unbiased variance of what reaches each of the two, in float64."""
    first = np.asarray(X, "float64") @ weights["net/w"].numpy()
    statistics = [reference.moments(first)]
    affine = (weights[f"net/BatchNorm/{name}"].numpy() for name in ("beta", "gamma"))
    second = np.maximum(reference.apply(first, *statistics[0], *affine), 0) @ weights["net/v"].numpy()
    statistics.append(reference.moments(second))
    return [(mean, reference.unbiased(variance, len(X))) for mean, variance in statistics]


@pytest.mark.parametrize("eagerly", [False, True])
def test_recalibrate_reaches_the_batch_norms_of_tf1_code(eagerly):
    model, weights = network()
    model.compile(run_eagerly=eagerly)
    before = {name: variable.numpy() for name, variable in weights.items()}
    measured = tfbn.recalibrate(model, tf.data.Dataset.from_tensors(X), verbose=0)
    assert list(measured) == ["tf1/net/BatchNorm", "tf1/net/second"]
    for name, want in zip(("BatchNorm", "second"), expected_statistics(weights), strict=True):
        got = measured[f"tf1/net/{name}"]
        assert got.count == 100
        np.testing.assert_allclose(got.mean, want[0], rtol=1e-6, atol=1e-6)  # float32 products
        np.testing.assert_allclose(got.variance, want[1], rtol=1e-5)
        np.testing.assert_allclose(weights[f"net/{name}/moving_mean"], got.mean, rtol=1e-6)
        np.testing.assert_allclose(weights[f"net/{name}/moving_variance"], got.variance, rtol=1e-6)
    for name, value in before.items():
        if "moving" not in name:
            np.testing.assert_array_equal(weights[name], value)
    # Afterwards the layer infers with them, and trains, as if nothing had happened.
    y = model.predict(X, verbose=0)
    beta, gamma = (weights[f"net/second/{name}"].numpy() for name in ("beta", "gamma"))
    np.testing.assert_allclose(y.mean(0), beta, rtol=1e-3)
    np.testing.assert_allclose(y.std(0), gamma, rtol=1e-2)
    model(3 * X + 1, training=True)
    assert not np.allclose(weights["net/second/moving_mean"], measured["tf1/net/second"].mean, rtol=1e-6)


def test_recalibrate_in_a_subclassed_model():
    class Subclassed(keras.Model):
        def __init__(self):
            super().__init__()
            self.inner = compat.VariableScopeLayer(two_batch_norms, name="tf1")

        def call(self, x, training=None):
            return self.inner(x, training=training)

    model = Subclassed()
    model.compile("sgd", "mse")
    model.fit(X, np.zeros((100, 2)), verbose=0)  # Keras builds the layer while it infers shapes
    measured = tfbn.recalibrate(model, tf.data.Dataset.from_tensors(X), verbose=0)
    weights = model.inner.variables_by_name
    for name, want in zip(("BatchNorm", "second"), expected_statistics(weights), strict=True):
        np.testing.assert_allclose(measured[f"tf1/net/{name}"].mean, want[0], rtol=1e-5, atol=1e-6)


def test_population_statistics_change_nothing(unchanged):
    model, _ = network()
    with unchanged(model):
        tfbn.population_statistics(model, X, verbose=0)


@pytest.mark.filterwarnings("ignore:The batch norms")
def test_fold_names_them_and_convert_leaves_them():
    model, _ = network()
    report = str(tfbn.fold(model)[1])
    reason = "it is inside a layer whose graph Keras does not show; tfbn.export(model, path) folds it"
    assert f"tf1/net/BatchNorm stays: {reason}" in report
    np.testing.assert_allclose(tfbn.convert(model)(X), model(X), rtol=1e-6)


IDLE = (
    r"^The batch norms tf1/net/BatchNorm, tf1/net/second were trained, but their moving statistics are "
    r"still 0 and 1, .* call tfbn\.recalibrate\(model, data\)\.$"
)


@pytest.mark.parametrize("compiled", [False, True])
def test_using_statistics_that_training_left_out_warns_once(compiled):
    model, _ = network()
    call = tf.function(model) if compiled else model
    with pytest.warns(UserWarning, match=IDLE.replace("tf1/", "")):
        call(X)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        call(X)


def test_no_warning_before_training_nor_after_updates():
    model, weights = network()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model(X, training=True)  # its updates are run
        model(X)
        for scope in ("net/BatchNorm", "net/second"):
            for name, value in (("beta", 0), ("gamma", 1), ("moving_mean", 0), ("moving_variance", 1)):
                weights[f"{scope}/{name}"].assign(np.full(weights[f"{scope}/{name}"].shape, value))
        fresh, _ = network()
        fresh.layers[-1].set_weights(model.layers[-1].get_weights())
        fresh(X)  # nothing was trained


@pytest.mark.filterwarnings(
    "error",
    "ignore:.*got an unexpected keyword argument '___pyct_anno':DeprecationWarning",  # as pyproject.toml
)
def test_export_warns_of_them_too(tmp_path):
    model, _ = network()
    with pytest.warns(UserWarning, match=IDLE.replace("tf1/", "")):
        tfbn.export(model, tmp_path / "out")
    layer = tfbn.BatchNorm(name="bn")
    ours = keras.Sequential([keras.Input((3,)), layer])
    layer.beta.assign([1.0, 2.0, 3.0])
    with pytest.warns(UserWarning, match="^The batch norms bn were trained"):
        tfbn.export(ours, tmp_path / "ours")


def in_a_conditional(x, is_training):
    def call(reuse):
        return lambda: compat.batch_norm(
            x, is_training=is_training, reuse=reuse, scope="bn", updates_collections=None
        )

    return tf.cond(tf.constant(is_training), call(None), call(True))


def test_recalibrate_reaches_batch_norms_inside_conditionals():
    """Also where nobody uses what the conditional gives, as in the pass that measures."""
    model, weights = network(in_a_conditional)
    measured = tfbn.recalibrate(model, X, verbose=0)["tf1/bn"]
    mean, variance = reference.moments(X)
    assert measured.count == 100
    np.testing.assert_allclose(measured.mean, mean, rtol=1e-6, atol=1e-7)
    np.testing.assert_allclose(measured.variance, reference.unbiased(variance, 100), rtol=1e-6)
    np.testing.assert_allclose(weights["bn/moving_mean"], mean, rtol=1e-6, atol=1e-7)


def test_recalibrate_reaches_batch_norms_with_several_axes_and_virtual_batches():
    def code(x, is_training):
        x = compat.batch_normalization(x, virtual_batch_size=4, training=is_training, name="virtual")
        x = tf.reshape(x, (-1, 2, 3))
        return compat.batch_normalization(x, axis=[1, 2], training=is_training, name="axes")

    inputs = keras.Input((6,))
    layer = compat.VariableScopeLayer(code, name="tf1")
    model, x = keras.Model(inputs, layer(inputs)), reference.data((64, 6), seed=5)
    measured = tfbn.recalibrate(model, [(x,)], verbose=0)
    mean, variance = reference.moments(x)
    first, second = measured["tf1/virtual"], measured["tf1/axes"]
    np.testing.assert_allclose(first.mean.ravel(), mean, rtol=1e-6, atol=1e-7)
    # The first one has made each of the second one's channels a mean of 0 and a variance of nearly 1.
    assert second.count == 64
    want = variance / (variance + 1e-3) * 64 / 63
    np.testing.assert_allclose(second.variance.ravel(), want, rtol=1e-5)
    np.testing.assert_allclose(
        layer.variables_by_name["axes/moving_variance"].numpy().ravel(), want, rtol=1e-5
    )
