"""`tfbn upgrade`: old files become .keras files that predict the same, or nothing."""

import json
import shutil
from pathlib import Path

import keras
import legacy_files as files
import numpy as np
import pytest
from click.testing import CliRunner

from networks import relative_difference
from tfbn.cli import main
from tfbn.compat.upgrade import UpgradeError, upgrade

DATA = Path(__file__).parent / "data" / "keras1"
MODELS = ["conv_th_axis1_mode0", "dense_mode0", "dense_mode1", "dense_mode2"]
CLOSE = 1e-5  # what the issue asks of the original's own predictions, which are float32


@pytest.fixture
def run(tmp_path, monkeypatch):
    shutil.copytree(DATA, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")

    def command(*arguments):
        return CliRunner().invoke(main, ["upgrade", *arguments], catch_exceptions=False)

    return command


def known(name):
    with np.load(DATA / f"{name}_ref.npz") as file:
        return file["x"], file["y"]


@pytest.mark.parametrize("name", MODELS)
def test_files_of_keras_1_become_keras_files_that_predict_the_same(run, name):
    # The Theano backend turned convolutions' kernels round, and no file of Keras 1 tells the backend.
    backend = ["--backend", "theano"] if name.startswith("conv") else []
    result = run(f"{name}_full.h5", "new.keras", "--reference", f"{name}_ref.npz", *backend)
    assert result.exit_code == 0, result.output
    shown = " ".join(result.output.split())
    assert "1 batch norms, written by Keras 1.2.2" in shown
    assert "Differs from the reference by at most" in shown
    assert shown.endswith("Written to new.keras")
    x, y = known(name)
    assert relative_difference(keras.models.load_model("new.keras")(x, training=False), y) < CLOSE


def test_architecture_and_weights_in_two_files(run):
    files = ["dense_mode0.json", "new.keras", "--weights", "dense_mode0_weights.h5"]
    assert run(*files).exit_code == 0
    x, y = known("dense_mode0")
    assert relative_difference(keras.models.load_model("new.keras")(x), y) < CLOSE


def test_predictions_that_differ_leave_nothing(run, tmp_path):
    x, y = known("dense_mode0")
    before = sorted(path.name for path in tmp_path.iterdir())
    for wrong in (y * 1.001, np.full_like(y, np.nan), np.where(y == y.max(), np.inf, y)):
        np.savez("wrong.npz", x=x, y=wrong)
        result = run("dense_mode0_full.h5", "new.keras", "--reference", "wrong.npz")
        assert result.exit_code == 1
        assert result.output.startswith("Error: The loaded model differs from wrong.npz by ")
        assert result.output.endswith("Nothing was written.\n")
        assert sorted(path.name for path in tmp_path.iterdir()) == sorted([*before, "wrong.npz"])
    np.savez("wrong.npz", x=x, y=y * 1.001)
    arguments = ["--reference", "wrong.npz", "--rtol", "0.01"]
    assert run("dense_mode0_full.h5", "new.keras", *arguments).exit_code == 0


X, Y = known("dense_mode0")


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"a": X}, "Error: ref.npz must hold x, and it holds a."),
        ({"x": X}, "Error: ref.npz must hold y, and it holds x."),
        (
            {"x": X, "y": Y[:5]},
            "Error: ref.npz has predictions of shapes [(5, 2)], and the model predicts [(None, 2)] for "
            "32 samples.",
        ),
        (
            {"x": X, "y": Y[:, :1]},
            "Error: ref.npz has predictions of shapes [(32, 1)], and the model predicts [(None, 2)] for "
            "32 samples.",
        ),
        ({"x": X, "y": np.array([{}], object)}, "Error: ref.npz cannot be read as an .npz file: "),
    ],
)
def test_references_that_do_not_fit(run, arrays, message):
    np.savez("ref.npz", **arrays)
    result = run("dense_mode0_full.h5", "new.keras", "--reference", "ref.npz")
    assert result.exit_code == 1
    assert result.output.startswith(message)
    assert not Path("new.keras").exists()


def test_targets_that_are_refused(run):
    Path("there.keras").write_text("somebody's")
    for target, message in (
        ("there.keras", "Error: there.keras exists already. Pass --overwrite to replace it.\n"),
        ("new.h5", "Error: NEW must end in .keras, received new.h5.\n"),
    ):
        assert run("dense_mode0_full.h5", target).output == message
    assert Path("there.keras").read_text() == "somebody's"
    assert run("dense_mode0_full.h5", "there.keras", "--overwrite").exit_code == 0


def test_what_cannot_be_loaded_is_answered_in_one_line(run):
    config = json.loads(Path("dense_mode0.json").read_text())
    config["config"][0]["class_name"] = "Strange"
    Path("strange.json").write_text(json.dumps(config))
    Path("broken.h5").write_bytes(Path("dense_mode0_full.h5").read_bytes()[:3000])
    for old in ("strange.json", "broken.h5"):
        result = run(old, "new.keras", "--weights", "dense_mode0_weights.h5")
        assert result.exit_code == 1
        assert result.output.count("\n") == 1
        assert not Path("new.keras").exists()


def test_several_inputs_and_outputs(tmp_path):
    """A file as Keras 2 wrote it, but for the version, which tf_keras writes."""
    import tf_keras  # noqa: PLC0415

    inputs = [tf_keras.Input((3,), name=name) for name in "ab"]
    outputs = [tf_keras.layers.Dense(2)(one) for one in inputs]
    old = tf_keras.Model(inputs, [*outputs, tf_keras.layers.Add()(outputs)])
    with pytest.warns(UserWarning, match="HDF5 file"):  # which tf_keras advises against
        old.save(tmp_path / "old.h5")
    x = [np.random.default_rng(n).normal(size=(4, 3)).astype("float32") for n in range(2)]
    named = {f"x_{n}": one for n, one in enumerate(x)}
    y = {f"y_{n}": one.numpy() for n, one in enumerate(old(x))}
    np.savez(tmp_path / "ref.npz", **named, **y)
    report = upgrade(tmp_path / "old.h5", tmp_path / "new.keras", reference=tmp_path / "ref.npz")
    assert (report.samples, report.legacy.batch_norms) == (4, ())
    assert report.difference < CLOSE
    np.savez(tmp_path / "ref.npz", **named, **(y | {"y_1": y["y_0"]}))
    arguments = {"reference": tmp_path / "ref.npz"}
    with pytest.raises(FileExistsError, match=r"new\.keras exists already\. Choose another path"):
        upgrade(tmp_path / "old.h5", tmp_path / "new.keras", **arguments)
    with pytest.raises(UpgradeError, match="allowed is 1e-05"):
        upgrade(tmp_path / "old.h5", tmp_path / "new.keras", overwrite=True, **arguments)


@pytest.mark.parametrize("kind", ["truncated", "one array", "texts", "a number"])
def test_references_that_are_none_are_named(run, kind):
    x, y = known("dense_mode0")
    np.savez("r.npz", x=x, y={"texts": np.full(y.shape, "a"), "a number": np.float32(1)}.get(kind, y))
    if kind == "truncated":
        Path("r.npz").write_bytes(Path("r.npz").read_bytes()[:-100])
    if kind == "one array":
        with open("r.npz", "wb") as file:
            np.save(file, x)
    with pytest.raises(ValueError, match=r"r\.npz (cannot be read|must hold arrays of numbers)"):
        upgrade("dense_mode0_full.h5", "new.keras", reference="r.npz")
    assert not Path("new.keras").exists()


def test_models_of_a_fixed_batch_are_compared_on_such_a_batch(tmp_path):
    layer = files.layer("SimpleRNN", "rnn", units=2, stateful=True, activation="tanh")
    layer["config"] |= {"batch_input_shape": [3, 4, 1]}
    weights = [("k", np.ones((1, 2))), ("r", np.ones((2, 2))), ("b", np.ones(2))]
    config = {"class_name": "Sequential", "config": [layer], "keras_version": "2.2.4"}
    path = files.write(tmp_path / "m.h5", config, [("rnn", weights)], "2.2.4", "tensorflow")
    upgrade(path, tmp_path / "new.keras")
    assert keras.models.load_model(tmp_path / "new.keras").input_shape == (3, 4, 1)
