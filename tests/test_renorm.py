"""tfbn.BatchRenorm: against the paper's formulas in float64, and Keras' own renorm=True."""

import inspect
import itertools

import keras
import numpy as np
import pytest
import tensorflow as tf

import reference
import tfbn

pytestmark = pytest.mark.both
KERAS_HAS_RENORM = "renorm" in inspect.signature(keras.layers.BatchNormalization).parameters
BOUNDS = [{}, {"rmin": 0.7, "rmax": 1.4, "dmax": 0.5}, {"rmax": 1.1}]
STATE = ("moving_mean", "moving_variance", "moving_stddev", "renorm_mean", "renorm_stddev")


def oracle(batches, decay, renorm_decay, epsilon, bounds, beta, gamma):
    """Outputs and the state after Algorithm 1 of arXiv 1702.03275 on batches [n, channels], float64."""
    channels = batches[0].shape[1]
    state = {name: np.zeros(channels) if "mean" in name else np.ones(channels) for name in STATE}
    outputs = []
    for x in batches:
        mean, variance = reference.moments(x)
        stddev = np.sqrt(variance + epsilon)
        sigma = np.maximum(state["renorm_stddev"], np.sqrt(epsilon))
        r = np.clip(stddev / sigma, bounds.get("rmin", 0), bounds.get("rmax", np.inf))
        dmax = bounds.get("dmax", np.inf)
        d = np.clip((mean - state["renorm_mean"]) / sigma, -dmax, dmax)
        outputs.append(gamma * ((np.asarray(x, float) - mean) / stddev * r + d) + beta)
        for name, value, rate in (
            ("renorm_mean", mean, renorm_decay),
            ("renorm_stddev", stddev, renorm_decay),
            ("moving_mean", mean, decay),
            ("moving_stddev", stddev, decay),
        ):
            state[name] = rate * state[name] + (1 - rate) * value
        state["moving_variance"] = np.maximum(state["moving_stddev"] ** 2 - epsilon, 0)
    return outputs, state


@pytest.mark.parametrize("bounds", BOUNDS)
@pytest.mark.parametrize("compiled", [False, True])
def test_training_equals_the_papers_formulas(bounds, compiled):
    batches = [reference.data((size, 4), seed=size) for size in (8, 3, 16, 5)]
    p = reference.parameters((4,))
    layer = tfbn.BatchRenorm(decay=0.9, renorm_decay=0.7, epsilon=1e-2, **bounds)
    layer.build((None, 4))
    layer.gamma.assign(p["gamma"])
    layer.beta.assign(p["beta"])
    call = tf.function(layer) if compiled else layer
    got = [call(batch, training=True) for batch in batches]
    want, state = oracle(batches, 0.9, 0.7, 1e-2, bounds, p["beta"], p["gamma"])
    for array, expected in zip(got, want, strict=True):
        np.testing.assert_allclose(array, expected, rtol=1e-5, atol=2e-5)
    for name, value in state.items():
        np.testing.assert_allclose(getattr(layer, name), value, rtol=1e-5, atol=1e-6)
    x = batches[0]
    inference = reference.apply(
        x, state["moving_mean"], state["moving_variance"], p["beta"], p["gamma"], 1e-2
    )
    np.testing.assert_allclose(layer(x), inference, rtol=1e-5, atol=2e-5)


def runs(layer, shape):
    """Outputs, gradients and weights of four training steps."""
    layer.build((None, *shape[1:]))
    results = []
    for seed in range(4):
        x = tf.constant(reference.data(shape, layer.axis, seed=seed))
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = layer(x, training=True)
            loss = tf.reduce_sum(tf.sin(y))
        variables = [variable.value for variable in layer.trainable_variables]
        results += [y, *tape.gradient(loss, [x, *variables])]
    return [np.array(result) for result in results] + [np.array(w) for w in layer.get_weights()]


@pytest.mark.skipif(not KERAS_HAS_RENORM, reason="a reference that Keras has from 3.14 on")
@pytest.mark.parametrize("bounds", BOUNDS)
@pytest.mark.parametrize(("shape", "axis"), [((8, 5), -1), ((4, 6, 3), 1), ((4, 5, 6, 3), -1)])
def test_training_equals_keras(bounds, shape, axis):
    for center, scale in itertools.product((True, False), repeat=2):
        shared = {"axis": axis, "center": center, "scale": scale}
        ours = tfbn.BatchRenorm(decay=0.9, renorm_decay=0.8, **bounds, **shared)
        stock = keras.layers.BatchNormalization(
            momentum=0.9, renorm=True, renorm_momentum=0.8, renorm_clipping=bounds, **shared
        )
        got, want = runs(ours, shape), runs(stock, shape)
        assert [w.name for w in ours.weights] == [w.name for w in stock.weights]
        for array, expected in zip(got, want, strict=True):
            np.testing.assert_allclose(array, expected, rtol=1e-4, atol=1e-4)


def test_confined_it_is_batch_norm():
    x = reference.data((8, 5))
    renorm, plain = tfbn.BatchRenorm(rmin=1, rmax=1, dmax=0), tfbn.BatchNorm()
    np.testing.assert_allclose(renorm(x, training=True), plain(x, training=True), rtol=1e-5, atol=1e-5)


def test_an_empty_batch_and_a_frozen_layer_change_nothing(unchanged):
    layer = tfbn.BatchRenorm()
    layer.build((None, 3))
    with unchanged(layer):
        layer(np.zeros((0, 3), "float32"), training=True)
        layer.trainable = False
        layer(np.ones((4, 3), "float32"), training=True)


def test_models_with_it_save_recalibrate_and_fold(tmp_path):
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3), tfbn.BatchRenorm(rmax=2.0)])
    x = reference.data((64, 4))
    model.compile("sgd", "mse")
    model.fit(x, np.zeros((64, 3)), verbose=0)
    tfbn.recalibrate(model, x, verbose=0)
    layer = model.layers[-1]
    np.testing.assert_allclose(layer.moving_stddev**2 - 1e-3, layer.moving_variance, rtol=1e-5)
    model.save(tmp_path / "m.keras")
    loaded = keras.models.load_model(tmp_path / "m.keras")
    assert loaded.layers[-1].get_config() == layer.get_config()
    folded, report = tfbn.fold(loaded)
    assert len(report.folded) == 1
    np.testing.assert_allclose(folded(x), model(x), rtol=1e-4, atol=1e-5)


@pytest.mark.skipif(not KERAS_HAS_RENORM, reason="a reference that Keras has from 3.14 on")
def test_conversion_there_and_back():
    stock = keras.layers.BatchNormalization(renorm=True, renorm_clipping={"rmax": 3.0}, name="bn")
    model = keras.Sequential([keras.Input((4,)), stock])
    model(reference.data((8, 4)), training=True)
    ours = tfbn.convert(model)
    assert isinstance(ours.layers[0], tfbn.BatchRenorm)
    assert ours.layers[0].rmax == 3.0
    back = tfbn.convert(ours, to=keras.layers.BatchNormalization)
    assert back.layers[0].get_config() == stock.get_config()
    for array, expected in zip(back.get_weights(), model.get_weights(), strict=True):
        np.testing.assert_array_equal(array, expected)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"rmin": 2, "rmax": 1}, "rmax must not be below rmin, received rmin=2, rmax=1"),
        ({"dmax": -1}, r"dmax must be a number at least 0, received -1\."),
        ({"renorm_decay": 2}, r"renorm_decay must be a number between 0 and 1, received 2\."),
    ],
)
def test_wrong_bounds(arguments, message):
    with pytest.raises(ValueError, match=message):
        tfbn.BatchRenorm(**arguments)
