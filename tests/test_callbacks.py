"""Callbacks: population statistics at the end or for validation, and drift in the logs."""

import re

import keras
import numpy as np
import pytest

import tfbn
from trainings import X, Y, conv, trained

VALIDATION = (X[-300:], Y[-300:])


def fitted(callbacks, epochs=2, **settings):
    keras.utils.set_random_seed(0)
    model = conv(decay=0.999, dropout=0.2, **settings)
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    history = model.fit(
        X[:600], Y[:600], epochs=epochs, validation_data=VALIDATION, callbacks=callbacks, verbose=0
    )
    return model, history.history


@pytest.fixture(scope="module")
def without():
    return fitted([])


def test_at_the_end(without):
    model, _ = fitted([tfbn.callbacks.Recalibrate(X[:600])])
    expected = keras.models.clone_model(without[0])
    expected.set_weights(without[0].get_weights())
    tfbn.recalibrate(expected, X[:600], verbose=0)
    for got, want in zip(model.get_weights(), expected.get_weights(), strict=True):
        np.testing.assert_array_equal(got, want)


def test_for_validation_training_goes_on_as_without(without):
    model, history = fitted([tfbn.callbacks.Recalibrate(X[:600], when="validation")])
    plain, plain_history = without
    for got, want in zip(model.get_weights(), plain.get_weights(), strict=True):
        np.testing.assert_array_equal(got, want)
    assert history["loss"] == plain_history["loss"]
    # At decay 0.999 moving averages are of no use after 38 steps.
    assert history["val_accuracy"][-1] > plain_history["val_accuracy"][-1] + 0.2
    tfbn.recalibrate(plain := _copy(plain), X[:600], verbose=0)
    plain.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    expected = plain.evaluate(*VALIDATION, verbose=0, return_dict=True)
    assert history["val_loss"][-1] == pytest.approx(expected["loss"], rel=1e-5)


def _copy(model):
    copy = keras.models.clone_model(model)
    copy.set_weights(model.get_weights())
    return copy


def test_batch_renorm_gets_all_its_statistics_back():
    layer = tfbn.BatchRenorm(name="bn")
    model = keras.Sequential([keras.Input((8, 8, 1)), layer])
    callback = tfbn.callbacks.Recalibrate(X[:64], when="validation")
    callback.set_model(model)
    layer.moving_stddev.assign([0.25])
    before = model.get_weights()
    callback.on_test_begin()
    np.testing.assert_allclose(layer.moving_mean, [X[:64].mean()], rtol=1e-6)
    np.testing.assert_allclose(layer.moving_stddev, [np.sqrt(X[:64].var(ddof=1) + 1e-3)], rtol=1e-5)
    callback.on_test_end()
    for got, want in zip(model.get_weights(), before, strict=True):
        np.testing.assert_array_equal(got, want)


class Broken(keras.callbacks.Callback):
    def on_test_batch_end(self, batch, logs=None):
        raise RuntimeError("the disk is full")


def test_moving_averages_are_put_back_after_a_validation_that_raised(without):
    model = _copy(without[0])
    model.compile("adam", "sparse_categorical_crossentropy")
    before = model.get_weights()
    callback = tfbn.callbacks.Recalibrate(X[:600], when="validation")
    with pytest.raises(RuntimeError, match="the disk is full"):
        model.evaluate(*VALIDATION, callbacks=[callback, Broken()], verbose=0)
    model.evaluate(*VALIDATION, callbacks=[callback], verbose=0)
    for got, want in zip(model.get_weights(), before, strict=True):
        np.testing.assert_array_equal(got, want)
    with pytest.raises(RuntimeError, match="the disk is full"):
        model.evaluate(*VALIDATION, callbacks=[callback, Broken()], verbose=0)
    callback.on_train_begin()
    for got, want in zip(model.get_weights(), before, strict=True):
        np.testing.assert_array_equal(got, want)


def test_monitor_logs_the_drift(without):
    model, history = fitted([tfbn.callbacks.Monitor(X[:320], steps=8)])
    for got, want in zip(model.get_weights(), without[0].get_weights(), strict=True):
        np.testing.assert_array_equal(got, want)
    report = tfbn.diagnose(model, X[:320], steps=8, verbose=0)
    assert {name for name in history if name.startswith("drift")} == {
        "drift",
        *(f"drift/{path}" for path in report.layers),
    }
    for path, layer in report.layers.items():
        assert history[f"drift/{path}"][-1] == pytest.approx(layer.evidence.drift)
    assert history["drift"][-1] == max(history[f"drift/{path}"][-1] for path in report.layers)
    assert history["drift"][0] != history["drift"][1]


def test_monitor_measures_every_so_many_epochs():
    layer = tfbn.BatchNorm(name="bn")
    monitor = tfbn.callbacks.Monitor(X[:64], every=2)
    monitor.set_model(keras.Sequential([keras.Input((8, 8, 1)), layer]))
    drifts = []
    for epoch in range(3):
        logs = {"loss": 1.0}
        monitor.on_epoch_end(epoch, logs)
        assert logs.keys() == {"loss", "drift", "drift/bn"}
        drifts.append(logs["drift"])
        layer.moving_mean.assign_add([0.5])
    first, second, third = drifts
    assert first == second != third


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: tfbn.callbacks.Recalibrate(X, when="start"),
            "when must be 'end' or 'validation', received 'start'.",
        ),
        (
            lambda: tfbn.callbacks.Recalibrate(iter([X]), when="validation"),
            "Recalibrate reads data again and again, received a list_iterator, which ends. Pass arrays, "
            "a tf.data.Dataset or a PyDataset.",
        ),
        (
            lambda: tfbn.callbacks.Monitor(iter([X])),
            "Monitor reads data again and again, received a list_iterator, which ends. Pass arrays, "
            "a tf.data.Dataset or a PyDataset.",
        ),
        (
            lambda: tfbn.callbacks.Monitor(X, every=0),
            "every must be a positive number of epochs, received 0.",
        ),
    ],
)
def test_wrong_arguments(make, message):
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        make()


def test_data_is_checked_before_training():
    with pytest.raises(ValueError, match="steps must be a positive number"):
        tfbn.callbacks.Recalibrate(X, steps=Y)


def test_an_iterator_will_do_for_the_end():
    model = trained(conv, epochs=1)
    before = np.array(model.get_layer("first").moving_mean)
    batches = (x for x in np.split(X[:320], 10))
    model.fit(X[:32], Y[:32], callbacks=[tfbn.callbacks.Recalibrate(batches, steps=10)], verbose=0)
    assert not np.allclose(before, model.get_layer("first").moving_mean)
