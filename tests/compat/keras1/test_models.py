"""Models with compat.BatchNormalization: saved, folded, converted, measured, masked."""

import json

import keras
import numpy as np
import pytest

import reference
import tfbn
from networks import relative_difference
from tfbn.compat import BatchNormalization

pytestmark = pytest.mark.both
L = keras.layers


def starting_weights(size):
    p = reference.parameters((size,))
    return [p[name] for name in ("gamma", "beta", "mean", "variance")]


def test_masks_are_handed_on_and_change_nothing():
    layer = BatchNormalization(momentum=0.0)
    model = keras.Sequential([keras.Input((5, 3)), L.Masking(), layer, L.LSTM(2)])
    x = reference.data((6, 5, 3))
    x[:, 3:] = 0  # masked
    model(x, training=True)
    mean, variance = reference.moments(x)
    np.testing.assert_allclose(layer.running_mean, mean, rtol=1e-5)
    np.testing.assert_allclose(layer.running_std, variance, rtol=1e-5)
    np.testing.assert_allclose(model(x), model(x[:, :3]), rtol=1e-5, atol=1e-6)
    measured = tfbn.population_statistics(model, x, verbose=0)[layer.name]
    assert measured.count == 30
    np.testing.assert_allclose(measured.mean, mean, rtol=1e-5)


@pytest.mark.parametrize("mode", [0, 1, 2])
@pytest.mark.parametrize(
    "shape",
    [{"input_shape": (4, 3)}, {"batch_input_shape": (None, 4, 3), "input_dtype": "float32"}, {}],
)
def test_saved_and_loaded_models_are_the_same(tmp_path, mode, shape):
    layer = BatchNormalization(
        epsilon=0.01,
        mode=mode,
        momentum=0.7,
        weights=starting_weights(3),
        beta_init="he_normal",
        gamma_init=keras.initializers.Constant(2.0),
        gamma_regularizer={"name": "WeightRegularizer", "l1": 0.25, "l2": 0.5},
        beta_regularizer="l2",
        name="bn",
        **shape,
    )
    model = keras.Sequential([*([] if shape else [keras.Input((4, 3))]), layer, L.Dense(2)])
    model.save(tmp_path / "m.keras")
    loaded = keras.models.load_model(tmp_path / "m.keras")
    config = loaded.get_layer("bn").get_config()
    assert config == layer.get_config()
    assert json.loads(json.dumps(config)) == config
    assert config["gamma_regularizer"] == {"name": "WeightRegularizer", "l1": 0.25, "l2": 0.5}
    assert config["beta_regularizer"] == {"name": "WeightRegularizer", "l1": 0.0, "l2": 0.01}
    assert config["beta_init"] == "he_normal"
    assert config.get("batch_input_shape") == ([None, 4, 3] if shape else None)
    for array, expected in zip(loaded.get_weights(), model.get_weights(), strict=True):
        np.testing.assert_array_equal(array, expected)
    x = reference.data((6, 4, 3))
    np.testing.assert_array_equal(loaded(x), model(x))


def test_the_first_layer_takes_its_shape_as_it_did():
    for arguments in (
        {"input_dim": 6},
        {"input_shape": (6,)},
        {"batch_input_shape": [None, 6], "input_dtype": "float32"},
        {"batch_input_shape": (32, 6), "input_shape": (7,)},
    ):
        model = keras.Sequential([BatchNormalization(**arguments)])
        assert model.input_shape[1:] == (6,)
    with pytest.raises(TypeError, match=r"^input_shape must be a tuple of integers, received 6\. Write"):
        BatchNormalization(input_shape=6)


def test_fold_convert_and_recalibrate_take_mode_0():
    layer = BatchNormalization(axis=1, momentum=0.8, weights=starting_weights(5), name="bn")
    model = keras.Sequential([keras.Input((4,)), L.Dense(5, name="dense"), layer, L.ReLU()])
    x = reference.data((64, 4))
    folded, report = tfbn.fold(model)
    assert [(entry.path, entry.kind, entry.into) for entry in report.folded] == [
        ("bn", "BatchNormalization", ("dense",))
    ]
    assert relative_difference(folded(x), model(x)) < 1e-5
    for to in (tfbn.BatchNorm, L.BatchNormalization):
        new = tfbn.convert(model, to=to).get_layer("bn")
        assert type(new) is to
        for array, expected in zip(new.get_weights(), layer.get_weights(), strict=True):
            np.testing.assert_array_equal(array, expected)
        hidden = model.get_layer("dense")(x)
        got, want = new(hidden, training=True), layer(hidden, training=True)
        np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-5)
        np.testing.assert_allclose(new.moving_mean, layer.running_mean, rtol=1e-6)
        np.testing.assert_allclose(new.moving_variance, layer.running_std, rtol=1e-6)
        layer.set_weights(starting_weights(5))
    tfbn.recalibrate(model, x, verbose=0)
    mean, variance = reference.moments(model.get_layer("dense")(x))
    np.testing.assert_allclose(layer.running_mean, mean, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(layer.running_std, reference.unbiased(variance, 64), rtol=1e-5)


def test_what_convert_carries_over():
    layer = BatchNormalization(
        gamma_regularizer="l1", beta_regularizer=keras.regularizers.L2(0.5), gamma_init="he_uniform"
    )
    layer.trainable = False
    model = keras.Sequential([keras.Input((3,)), layer])
    new = tfbn.convert(model).layers[0]
    assert new.trainable is False
    config = new.get_config()
    assert config["gamma_regularizer"]["config"] == {"l1": 0.01, "l2": 0.0}
    assert config["beta_regularizer"]["config"] == {"l2": 0.5}
    assert config["gamma_initializer"]["config"] == {"name": "he_uniform"}


@pytest.mark.parametrize(
    ("mode", "reason"),
    [
        (1, "mode 1 normalises each sample by itself, at inference too"),
        (2, "mode 2 uses each batch's own statistics, at inference too"),
    ],
)
def test_modes_1_and_2_are_left_as_they_are(mode, reason):
    layer = BatchNormalization(mode=mode, weights=starting_weights(5)[:2], name="bn")
    model = keras.Sequential([keras.Input((4,)), L.Dense(5), layer])
    x = reference.data((8, 4))
    folded, report = tfbn.fold(model)
    assert str(report) == f"0 of 1 batch norms folded\n  bn stays: {reason}"
    for copy in (folded, tfbn.convert(model)):
        assert type(copy.get_layer("bn")) is BatchNormalization
        np.testing.assert_allclose(copy(x), model(x), rtol=1e-6)
    with pytest.raises(ValueError, match="has no batch norm to measure"):
        tfbn.population_statistics(model, x)


def test_a_subclass_with_a_call_of_its_own_is_left_alone():
    class Own(BatchNormalization):
        def call(self, inputs, training=None, mask=None):
            return inputs

    model = keras.Sequential([keras.Input((4,)), L.Dense(5), Own(name="own")])
    report = tfbn.fold(model)[1]
    assert "has a call() of its own, which may compute anything" in report.kept[0].reason
