"""Each cause of bad moving statistics, produced in a small real training, is recognised."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import tfbn
from sweeps import some
from trainings import X, Y, conv, dense, ours, stock, trained

BAD_FOR_RECALIBRATION = {"lagging", "never updated", "other data"}


def diagnosed(model, data=X, **arguments):
    report = tfbn.diagnose(model, data, verbose=0, **arguments)
    for layer in report.layers.values():
        assert bool(layer.remedy) == (layer.verdict != "fine")
        if layer.verdict in BAD_FOR_RECALIBRATION:
            assert "tfbn.recalibrate(model, data)" in layer.remedy
    return report


def verdicts(model, data=X, **arguments):
    return {path: layer.verdict for path, layer in diagnosed(model, data, **arguments).layers.items()}


@pytest.mark.parametrize(
    ("build", "batch_norm", "decay", "epochs", "seed", "dropout"),
    [
        (conv, ours, 0.9, 1, 1, 0.0),
        (conv, stock, 0.99, 9, 2, 0.5),
        (dense, ours, 0.99, 8, 5, 0.5),
    ],
)
def test_healthy_models_are_fine(build, batch_norm, decay, epochs, seed, dropout):
    settings = {"batch_norm": batch_norm, "decay": decay, "dropout": dropout}
    model = trained(build, epochs, seed=seed, **settings)
    assert set(verdicts(model).values()) == {"fine"}
    # Few samples are far from the training's statistics by chance alone.
    assert set(verdicts(model, X[:6]).values()) == {"fine"}


def test_recalibration_makes_it_fine(lagging):
    model = keras.models.clone_model(lagging)
    model.set_weights(lagging.get_weights())
    report = diagnosed(model)  # without an optimizer's count of steps, too
    assert {layer.verdict for layer in report.layers.values()} == {"lagging"}
    assert "decay 0.999 over an unknown number of steps" in report.worst.reason
    tfbn.recalibrate(model, X, verbose=0)
    assert set(verdicts(model).values()) == {"fine"}


def test_lagging(lagging):
    report = diagnosed(lagging)
    assert {layer.verdict for layer in report.layers.values()} == {"lagging"}
    layer = report.layers["first"]
    assert layer.evidence.steps == 114
    assert layer.evidence.residue == pytest.approx(0.999**114)
    assert layer.evidence.residue_found()[0] == pytest.approx(0.999**114, abs=0.02)
    assert "still hold 89" in layer.reason
    assert "114 steps of decay 0.999" in layer.reason
    assert "decay=0.9 forgets its initial value in 114 steps" in layer.remedy


def test_lagging_of_batch_renorm():
    def renorm(decay, name):
        return tfbn.BatchRenorm(decay=decay, name=name, rmax=3, rmin=1 / 3, dmax=5)

    model = trained(conv, epochs=1, batch_norm=renorm, decay=0.99)
    assert verdicts(model)["first"] == "lagging"


def test_lagging_after_the_optimizer_began_anew(lagging):
    model = keras.models.clone_model(lagging)
    model.set_weights(lagging.get_weights())
    model.compile("sgd", "sparse_categorical_crossentropy")
    model.optimizer.build(model.trainable_variables)
    model.optimizer.iterations.assign(5)
    assert verdicts(model)["first"] == "lagging"


def test_never_updated():
    keras.utils.set_random_seed(0)
    model, optimizer = dense(), keras.optimizers.Adam()

    @tf.function
    def step(x, y):
        with tf.GradientTape() as tape:
            loss = keras.losses.sparse_categorical_crossentropy(y, model(x, training=False))
        gradients = tape.gradient(loss, model.trainable_variables)
        optimizer.apply_gradients(zip(gradients, model.trainable_variables, strict=True))

    for start in range(0, len(X) - 32, 32):
        step(X[start : start + 32], Y[start : start + 32])
    report = diagnosed(model)
    assert {layer.verdict for layer in report.layers.values()} == {"never updated"}
    layer = report.layers["first"]
    assert "still 0 and 1 in every channel" in layer.reason
    assert "model(x, training=True)" in layer.remedy
    fixed = diagnosed(dense(decay=1.0), X[:64])
    assert "with decay=1.0 they never move" in fixed.layers["first"].reason


@pytest.mark.parametrize(
    "change", [lambda x: x * 255, lambda x: 1 - x, lambda x: x + 1, lambda x: x / 4, lambda x: 2 * x]
)
def test_other_data(healthy, change):
    found = verdicts(healthy, change(X))
    assert found["first"] == "other data"
    assert set(found.values()) <= {"other data", "fine"}
    assert next(iter(found.values())) == "other data"  # worst first


@pytest.mark.parametrize("build", some([dense, conv], [dense]))
def test_small_batches(build):
    model = trained(build, epochs=1, batch_size=2)
    batches = tf.data.Dataset.from_tensor_slices((X, Y)).shuffle(2000, seed=0).batch(2)
    of_values = "first" if build is dense else "third"
    assert verdicts(model, batches, steps=100)[of_values] == "small batches"
    # Arrays are cut in batches of 32, and only the moving statistics tell.
    report = diagnosed(model, X)
    assert report.layers[of_values].verdict == "small batches"
    assert {layer.verdict for layer in report.layers.values()} <= {"fine", "small batches"}
    remedy = report.layers[of_values].remedy
    assert "synchronized=True" in remedy
    assert "tfbn.BatchRenorm" in remedy


def test_batches_of_one_class(healthy):
    order = np.argsort(Y, kind="stable")
    report = tfbn.diagnose(healthy, X[order], verbose=0)
    assert report.layers["third"].verdict == "small batches"
    assert "Shuffle data" in report.layers["third"].remedy


def test_frozen(lagging, healthy):
    model = keras.models.clone_model(lagging)
    model.set_weights(lagging.get_weights())
    model.trainable = False
    report = tfbn.diagnose(model, X, verbose=0)
    assert {layer.verdict for layer in report.layers.values()} == {"frozen"}
    assert f"frozen by {model.name}.trainable = False" in report.worst.reason
    assert "Set trainable = True and call tfbn.recalibrate(model, data)" in report.worst.remedy
    healthy.trainable = False
    try:
        assert set(verdicts(healthy).values()) == {"fine"}
        assert verdicts(healthy, X + 1)["first"] == "frozen"
    finally:
        healthy.trainable = True


def test_a_frozen_layer_runs_as_at_inference(lagging):
    """Behind a frozen one the data's statistics are those of what it makes with its own."""
    model = keras.models.clone_model(lagging)
    model.set_weights(lagging.get_weights())
    model.get_layer("first").trainable = False
    report = tfbn.diagnose(model, X, verbose=0)
    before = keras.Model(model.inputs, model.get_layer("second").input)
    inputs = before.predict(X, verbose=0).reshape(-1, 16).astype("float64")
    np.testing.assert_allclose(report.layers["second"].population.mean, inputs.mean(0), rtol=1e-4)
    np.testing.assert_allclose(report.layers["second"].population.variance, inputs.var(0), rtol=1e-3)


@pytest.mark.parametrize("spoilt", ["gamma", "moving_variance", "kernel"])
def test_diverged(healthy, spoilt):
    model = keras.models.clone_model(healthy)
    model.set_weights(healthy.get_weights())
    layer = model.layers[0] if spoilt == "kernel" else model.get_layer("first")
    weight = getattr(layer, spoilt)
    value = np.array(weight)
    value.flat[0] = {"gamma": 1e9, "moving_variance": -1, "kernel": np.nan}[spoilt]
    weight.assign(value)
    report = tfbn.diagnose(model, (X, Y), verbose=0)
    assert report.worst.verdict == report.layers["first"].verdict == "diverged"
    assert "lower learning rate" in report.worst.remedy
    assert report.effect is None


def test_training_that_diverges():
    model = trained(dense, epochs=1, optimizer=keras.optimizers.SGD(1e20))
    assert tfbn.diagnose(model, X, verbose=0).worst.verdict == "diverged"


def test_nan_in_the_data(healthy):
    x = X.copy()
    x[5, 0, 0, 0] = np.nan
    report = tfbn.diagnose(healthy, x, verbose=0)
    assert report.worst.verdict == "diverged"
    assert "data gives it NaN or infinite inputs" in report.worst.reason
    assert report.worst.remedy.startswith("Look for NaN in data")
