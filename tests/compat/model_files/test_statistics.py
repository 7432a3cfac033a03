"""What running_std held, by release and backend: every row of the table against the division it was."""

import itertools

import keras
import numpy as np
import pytest

import legacy_files as files
import legacy_oracle as oracle
import tfbn
from tfbn import compat
from tfbn.compat import model_files
from tfbn.compat.model_files.layers import stored_statistics
from tfbn.compat.model_files.reading.writer_info import writer_info

DIVISORS = {
    "s + eps": lambda s, eps: s + eps,
    "sqrt(s + eps)": lambda s, eps: np.sqrt(s + eps),
    "sqrt(s) + eps": lambda s, eps: np.sqrt(s) + eps,
}
# Releases at both ends of each line of the table, and what they divided by.
TABLE = [
    ("0.3.3", None, "std", "s + eps"),
    ("1.0.0", None, "std", "s + eps"),
    ("1.0.5", "theano", "std", "s + eps"),
    ("1.0.5", "tensorflow", "std", "s + eps"),
    ("1.0.6", "theano", "std", "s + eps"),
    ("1.0.6", "tensorflow", "variance", "sqrt(s + eps)"),
    ("1.0.7", "theano", "variance", "sqrt(s) + eps"),
    ("1.0.7", "tensorflow", "variance", "sqrt(s + eps)"),
    ("1.0.8", None, "variance", "sqrt(s + eps)"),
    ("1.1.2", None, "variance", "sqrt(s + eps)"),
    ("1.2.2", None, "variance", "sqrt(s + eps)"),
]
GAMMA, BETA = np.array([-1.5, 0.5, 2.0, 1.0]), np.array([0.1, -0.2, 0.3, 0.0])
MEAN, S = np.array([0.5, -1.0, 2.0, 0.0]), np.array([0.9, 0.04, 1.7, 0.0])
WEIGHTS = [array.astype("float32") for array in (GAMMA, BETA, MEAN, S)]
X = np.random.default_rng(1).normal(0.5, 1.5, (6, 4)).astype("float32")


def write(path, version, weights=WEIGHTS, **config):
    layer = files.layer("BatchNormalization", "bn", axis=-1, **config)
    names = [f"bn_{name}" for name in ("gamma", "beta", "running_mean", "running_std")]
    pairs = [("bn", list(zip(names, weights, strict=False)))]
    return files.write(path, files.sequential(layer, shape=(4,)), pairs, version)


@pytest.mark.parametrize("epsilon", [1e-3, 0.25])
@pytest.mark.parametrize(("version", "backend", "stored", "divisor"), TABLE)
def test_each_row_divides_as_that_release_did(tmp_path, version, backend, stored, divisor, epsilon):
    path = write(tmp_path / "bn.h5", version, mode=0, epsilon=epsilon, momentum=0.9)
    model, report = model_files.load(path, backend=backend)
    wanted = oracle.batch_norm(X, WEIGHTS, DIVISORS[divisor], epsilon)
    # One float32 division, and a mean that is cancelled; s = 0 leaves a divisor of epsilon alone.
    np.testing.assert_allclose(model(X), wanted, rtol=2e-5, atol=1e-6 / epsilon)
    (found,) = report.batch_norms
    assert (found.stored, found.mode, found.path) == (stored, 0, "bn")
    assert type(model.layers[-1]) is tfbn.BatchNorm
    assert 0 < model.layers[-1].epsilon <= epsilon
    assert (model.layers[-1].moving_variance.numpy() >= 0).all()


def test_the_table_is_whole():
    """Every release on every backend has one row, and the test has both ends of each."""
    releases = (
        [(0, 3, 3)]
        + [(1, 0, n) for n in range(9)]
        + [(1, 1, n) for n in range(3)]
        + [(1, 2, n) for n in range(3)]
    )
    for release, backend in itertools.product(releases, ("theano", "tensorflow")):
        rows = [
            row
            for row in stored_statistics.KERAS1
            if row.first <= release <= row.last and row.backend in (None, backend)
        ]
        assert len(rows) == 1, (release, backend)
    tested = {version for version, *_ in TABLE}
    assert {
        ".".join(map(str, end)) for row in stored_statistics.KERAS1 for end in (row.first, row.last)
    } <= tested


@pytest.mark.parametrize(
    ("version", "epsilon", "momentum"),
    [
        ("1.0.6", 1e-6, 0.9),
        ("1.0.7", 1e-6, 0.99),
        ("1.0.8", 1e-5, 0.99),
        ("1.1.2", 1e-5, 0.99),
        ("1.2.0", 1e-3, 0.99),
    ],
)
def test_defaults_of_the_releases(tmp_path, version, epsilon, momentum):
    weights = [*WEIGHTS[:3], np.full(4, 0.5, "float32")]
    path = write(tmp_path / "bn.h5", version, weights, mode=0)
    layer = compat.load_model(path, backend="tensorflow").layers[-1]
    assert (layer.epsilon, layer.decay) == (epsilon, momentum)


def test_what_the_file_does_not_say_is_asked_for(tmp_path):
    path = write(tmp_path / "bn.h5", None, mode=0, epsilon=1e-3, momentum=0.9)
    with pytest.raises(
        compat.LegacyModelError, match=r"bn: running_std .* by the release of Keras.*Pass keras_version="
    ):
        compat.load_model(path)
    for vague in ("1", "1.0"):
        with pytest.raises(compat.LegacyModelError, match="only '1.*' is known. Pass keras_version="):
            compat.load_model(path, keras_version=vague)
    for version in ("1.0.6", "1.0.7"):
        with pytest.raises(
            compat.LegacyModelError,
            match="depends on the backend.*Pass backend='theano' or backend='tens",
        ):
            compat.load_model(path, keras_version=version)
    compat.load_model(path, keras_version="1.2")
    compat.load_model(path, keras_version="1.0.6", backend="tensorflow")
    # Modes 1 and 2 use no statistics, so that nothing is asked.
    path = write(tmp_path / "mode1.h5", None, mode=1, epsilon=1e-3, momentum=0.9)
    assert compat.load_model(path).layers[-1].mode == 1
    path = write(tmp_path / "bare.h5", None, mode=2)
    with pytest.raises(
        compat.LegacyModelError, match="the default epsilon and momentum differ by the release"
    ):
        compat.load_model(path)


def test_contradictions_are_errors(tmp_path):
    path = write(tmp_path / "bn.h5", "1.2.2", mode=0, epsilon=1e-3, momentum=0.9)
    compat.load_model(path, keras_version="1.2")
    for version in ("1.0.6", "2.1.0", "0.3.3"):
        with pytest.raises(
            compat.LegacyModelError, match="the versions contradict each other: .*'1.2.2'"
        ):
            compat.load_model(path, keras_version=version)
    with pytest.raises(
        compat.LegacyModelError, match="'jax' is no backend: one of theano, tensorflow, cntk"
    ):
        compat.load_model(path, backend="jax")
    for version in ("3.5.0", "0.2.0"):
        with pytest.raises(
            compat.LegacyModelError,
            match=r"is neither of 0.3.3 to 1.2.2 nor of Keras 2. .*keras.models.load_model",
        ):
            compat.load_model(path, keras_version=version)
    with pytest.raises(compat.LegacyModelError, match="'latest' is no version of Keras"):
        compat.load_model(path, keras_version="latest")
    with pytest.raises(compat.LegacyModelError, match="the backends contradict each other"):
        writer_info({}, {"JSON": "theano"}, None, "tensorflow", like_keras2=False)


def test_a_negative_deviation_is_damage(tmp_path):
    weights = [*WEIGHTS[:3], -WEIGHTS[3]]
    path = write(tmp_path / "bn.h5", "1.0.5", weights, mode=0, epsilon=1e-3)
    with pytest.raises(compat.LegacyModelError, match="running_std holds a std below 0"):
        compat.load_model(path)


def test_training_goes_on_as_keras1_trained(tmp_path):
    path = write(tmp_path / "bn.h5", "1.2.2", mode=0, epsilon=1e-3, momentum=0.9)
    model = compat.load_model(path)
    mean, variance = MEAN, S
    for step in range(3):
        x = X * (step + 1)
        model(x, training=True)
        mean = 0.9 * mean + 0.1 * x.astype("float64").mean(0)
        variance = 0.9 * variance + 0.1 * x.astype("float64").var(0)
    layer = model.layers[-1]
    np.testing.assert_allclose(layer.moving_mean, mean, rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(layer.moving_variance, variance, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("mode", [1, 2])
def test_modes_without_statistics(tmp_path, mode):
    """Files of releases that stored only gamma and beta in these modes, too."""
    path = write(tmp_path / "bn.h5", "1.2.2", WEIGHTS, mode=mode, epsilon=0.1, momentum=0.9)
    model, report = model_files.load(path)
    wide = X.astype("float64")
    axis = mode - 2  # mode 1 along the features, mode 2 along the batch
    mean, variance = wide.mean(axis, keepdims=True), wide.var(axis, keepdims=True)
    divisor = np.sqrt(variance + 0.1) + (0.1 if mode == 1 else 0)
    np.testing.assert_allclose(model(X), GAMMA * (wide - mean) / divisor + BETA, rtol=1e-5, atol=1e-6)
    assert report.batch_norms[0].stored == ""
    assert type(model.layers[-1]) is compat.BatchNormalization


UNBIASED = [
    ("2.0.5", 2, False), ("2.1.3", 4, False), ("2.1.4", 2, True), ("2.1.4", 4, True), ("2.2.4", 2, True),
    ("2.3.1", 4, True), ("2.2.4-tf", 4, True), ("2.2.4-tf", 5, True), ("2.2.4-tf", 2, False),
    ("2.2.4-tf", 3, False), ("2.4.0", 2, False), ("2.15.0", 4, True),
]  # fmt: skip


@pytest.mark.parametrize(("version", "rank", "unbiased"), UNBIASED)
def test_keras2_trained_with_either_variance(version, rank, unbiased):
    known = writer_info({"file": version}, {}, None, None, like_keras2=True)
    assert stored_statistics.unbiased(known, rank, 1, "bn") is unbiased


def test_several_axes_were_never_fused_and_vague_releases_are_asked_for():
    known = writer_info({"file": "2.15.0"}, {}, None, None, like_keras2=True)
    assert stored_statistics.unbiased(known, 4, 2, "bn") is False
    vague = writer_info({}, {}, "2.1", None, like_keras2=True)
    with pytest.raises(compat.LegacyModelError, match="Pass keras_version="):
        stored_statistics.unbiased(vague, 4, 1, "bn")


def test_settings_of_the_layer(tmp_path):
    regularizer = {"name": "WeightRegularizer", "l1": 0.0, "l2": 0.25}
    path = write(
        tmp_path / "bn.h5",
        "1.2.2",
        mode=0,
        epsilon=0.1,
        momentum=0.7,
        gamma_regularizer=regularizer,
        beta_regularizer=None,
    )
    layer = compat.load_model(path).layers[-1]
    assert (layer.decay, layer.epsilon, layer.axis) == (0.7, 0.1, -1)
    assert isinstance(layer.gamma_regularizer, keras.regularizers.L1L2)
    assert float(layer.gamma_regularizer.l2) == 0.25
    with pytest.raises(
        compat.UnsupportedLayerError, match="bn: colour='red' has no counterpart in Keras 3"
    ):
        compat.load_model(write(tmp_path / "strange.h5", "1.2.2", mode=0, epsilon=0.1, colour="red"))
