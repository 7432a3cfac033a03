"""What an export allows and says: sensitivity, random outputs, training inside, far statistics."""

import contextlib
import warnings

import keras
import numpy as np
import pytest
import tensorflow as tf

import reference
import tfbn
from networks import chain, randomize
from tfbn.export import ExportError, tolerance

pytestmark = pytest.mark.both
L = keras.layers


@pytest.fixture(scope="module")
def deep():
    """A chain that makes rounding larger at each step."""
    keras.config.set_dtype_policy("float32")
    keras.utils.set_random_seed(1)
    layers = []
    for _ in range(8):
        layers += [L.Dense(16, use_bias=False), tfbn.BatchNorm(), L.Activation(tf.math.sin)]
    model = chain((8,), *layers)
    for layer in model.layers:
        if isinstance(layer, L.Dense):
            layer.kernel.assign(1.3 * layer.kernel)
    return model


def test_rounding_in_a_sensitive_model_is_no_difference(deep, tmp_path):
    report = tfbn.export(deep, tmp_path / "out")
    assert report.relative_difference > 1e-5  # more than is allowed of others
    assert report.sensitivity > 1e-6
    assert report.relative_difference <= tolerance.BEYOND_SENSITIVITY * report.sensitivity
    assert f"outputs move by {report.sensitivity:.2g} relative when its inputs do" in str(report)


def test_what_the_user_allows_is_all_that_is_allowed(deep, tmp_path):
    with pytest.raises(ExportError, match="rtol=1e-07"):
        tfbn.export(deep, tmp_path / "out", rtol=1e-7)


def test_sensitivity_of_a_linear_model_is_its_rounding(tmp_path):
    model = chain((8,), L.Dense(3))
    assert tfbn.export(model, tmp_path / "out").sensitivity < 1e-6
    words = chain((8,), L.Embedding(2, 3), dtype="int32")
    report = tfbn.export(words, tmp_path / "words")
    assert report.sensitivity is None
    assert "last digit" not in str(report)


class Sampling(L.Layer):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.seed_generator = keras.random.SeedGenerator(1)

    def call(self, x):
        return x + keras.random.normal(tf.shape(x), seed=self.seed_generator)


def test_random_outputs_are_told_apart_and_named(tmp_path):
    model = chain((8,), L.Dense(3), Sampling(name="sampling"))
    message = r"output_0 is random: two runs .* differ by .* The layers sampling draw random numbers\."
    with pytest.raises(ValueError, match=message):
        tfbn.export(model, tmp_path / "out")
    assert not list(tmp_path.iterdir())


def keras_export(model, path, x):
    model.export(str(path), verbose=False)
    return tf.saved_model.load(str(path)).signatures["serving_default"](tf.constant(x))


@pytest.mark.parametrize("kind", [tfbn.BatchNorm, L.BatchNormalization])
@pytest.mark.parametrize("nested", [False, True])
def test_training_inside_the_graph_is_exported_as_keras_exports_it(kind, nested, tmp_path):
    inputs = keras.Input((8,), name="x")
    if nested:
        inner = keras.Sequential([keras.Input((8,)), L.Dense(4), kind(name="bn")], name="inner")
        outputs = inner(inputs, training=True)
    else:
        outputs = kind(name="bn")(L.Dense(4)(inputs), training=True)
    model = keras.Model(inputs, L.Dense(2)(outputs))
    x = reference.data((6, 8))
    report = tfbn.export(model, tmp_path / "ours", samples=x)
    path = "inner/bn" if nested else "bn"
    assert path in report.in_training
    layers = ", ".join(report.in_training)
    assert f"run as in training, for the model calls layers so: {layers}" in str(report)
    assert "uses each batch's own statistics" in report.fold.kept[0].reason
    (want,) = keras_export(model, tmp_path / "keras", x).values()
    (got,) = (
        tf.saved_model.load(str(tmp_path / "ours"))
        .signatures["serving_default"](tf.constant(x))
        .values()
    )
    np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-6)
    assert not np.allclose(got, model(x, training=False), rtol=1e-2)


class Fixed(L.Layer):
    """Computes with the batch size that it was traced with, or fails on any other."""

    def __init__(self, fails, **kwargs):
        super().__init__(**kwargs)
        self.fails = fails

    def get_config(self):
        return super().get_config() | {"fails": self.fails}

    def compute_output_shape(self, shape):
        return shape

    def call(self, x):
        if tf.executing_eagerly():
            return x
        return tf.ensure_shape(x, (3, None)) if self.fails else tf.repeat(x, 2, axis=1)


@pytest.mark.parametrize(
    ("fails", "message"),
    [
        (True, r"^The reloaded SavedModel does not run on inputs on which the model does\. Not"),
        (
            False,
            r"^The reloaded SavedModel's output_0 has the shape \(4, 6\), and the model's has \(4, 3\)",
        ),
    ],
)
def test_a_savedmodel_that_fails_or_has_another_shape(fails, message, tmp_path):
    model = chain((8,), L.Dense(3), Fixed(fails))
    with pytest.raises(ExportError, match=message):
        tfbn.export(model, tmp_path / "out")
    assert not list(tmp_path.iterdir())


@contextlib.contextmanager
def warnings_as_errors():
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message="The inputs of these batch norms")
        yield


@pytest.mark.parametrize("frozen", [False, True])
def test_samples_far_from_the_moving_statistics_are_told(frozen, tmp_path):
    model = chain(
        (6, 6, 3), tfbn.BatchNorm(name="far"), L.Conv2D(4, 3), L.BatchNormalization(name="near")
    )
    x = reference.data((8, 6, 6, 3))
    tfbn.recalibrate(model, [(x,)], verbose=0)
    model.get_layer("far").trainable = not frozen
    with warnings_as_errors():
        tfbn.export(model, tmp_path / "out", samples=x)
    far = model.get_layer("far")
    far.moving_variance.assign(far.moving_variance / 50)
    with pytest.warns(
        UserWarning, match=r"far \(49 times the variance\).* call tfbn\.recalibrate\(model, data\)"
    ):
        tfbn.export(model, tmp_path / "far", samples=x)
    with warnings_as_errors():
        tfbn.export(model, tmp_path / "drawn")  # nothing is known of the data


def test_what_trains_in_the_graph_is_left_as_it_was(tmp_path, unchanged):
    inputs = keras.Input((8,), name="x")
    x = L.BatchNormalization(name="always")(L.Dense(6)(inputs), training=True)
    model = randomize(keras.Model(inputs, L.Dense(2)(L.BatchNormalization(name="later")(L.Dense(4)(x)))))
    samples = reference.data((16, 8))
    with unchanged(model), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        report = tfbn.export(model, tmp_path / "out", samples=samples)
    # Keras hands `training` on to what comes after.
    assert set(report.in_training) == {"always", "later"}
    assert {entry.path for entry in report.fold.kept} == {"always", "later"}
    (want,) = keras_export(model, tmp_path / "keras", samples).values()
    served = tf.saved_model.load(str(tmp_path / "out")).signatures["serving_default"]
    (got,) = served(tf.constant(samples)).values()
    np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-5)


def test_augmentation_is_no_randomness_of_the_outputs(tmp_path):
    model = chain((8, 8, 3), L.RandomFlip(), L.Conv2D(3, 3), tfbn.BatchNorm())
    assert tfbn.export(model, tmp_path / "out").relative_difference < 1e-5


def test_sensitivity_stays_in_the_domain_of_functions_and_off_indices(tmp_path):
    inputs = keras.Input((3,))
    model = keras.Model(inputs, L.Dense(2)(keras.ops.sqrt(1 - inputs)))
    samples = np.array([[0, 0.5, 1], [1, 1, 0.3]], "float32")
    assert tfbn.export(model, tmp_path / "root", samples=samples).relative_difference < 1e-5
    indices = keras.Input((3,))
    model = keras.Model(indices, L.Embedding(9, 4)(keras.ops.cast(indices, "int32")))
    samples = np.array([[5, 1, 8], [0, 2, 3]], "float32")
    assert tfbn.export(model, tmp_path / "words", samples=samples).sensitivity is None


@pytest.mark.parametrize("kind", ["strings", "declared size", "nested"])
def test_samples_of_any_kind_are_looked_at(kind, tmp_path):
    if kind == "strings":
        inputs = keras.Input((), dtype="string")
        x = L.TextVectorization(vocabulary=["a", "b"], output_sequence_length=4)(inputs)
        model, samples = (
            keras.Model(inputs, tfbn.BatchNorm()(L.Embedding(9, 3)(x))),
            np.array(["a b", "b"]),
        )
    elif kind == "declared size":
        inputs = keras.Input(batch_shape=(16, 3))
        model, samples = keras.Model(inputs, tfbn.BatchNorm()(inputs)), reference.data((4, 3))
    else:
        inputs = {"p": [keras.Input((3,)), keras.Input((3,))]}
        model = keras.Model(inputs, tfbn.BatchNorm()(L.Add()(inputs["p"])))
        samples = {"p": [reference.data((4, 3)), reference.data((4, 3), 1)]}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert tfbn.export(model, tmp_path / "out", samples=samples).relative_difference < 1e-5


def test_names_that_are_chosen_name_the_samples_too(tmp_path):
    inputs = [keras.Input((3,)), keras.Input((2,))]
    model = keras.Model(inputs, L.Concatenate()(inputs))
    samples = {"q": reference.data((5, 2)), "p": reference.data((5, 3))}
    report = tfbn.export(model, tmp_path / "out", input_names=["p", "q"], samples=samples)
    assert report.samples == 5


@pytest.mark.parametrize(
    ("samples", "message"),
    [
        ("x.npz", r"^samples are arrays, received the path 'x\.npz'\. Pass numpy\.load"),
        (tf.data.Dataset.range(3), r"^samples are arrays, received a _RangeDataset\. Pass one batch"),
        ([np.ones((2, 8)), np.ones(2)], r"^samples are a list of 2 arrays, .* Of \(x, y\) pass x alone"),
    ],
)
def test_samples_that_are_no_arrays(samples, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        tfbn.export(chain((8,), L.Dense(3)), tmp_path / "out", samples=samples)
