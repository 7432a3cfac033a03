"""`tfbn upgrade`: old files become .keras files that predict the same, or nothing."""

import json
import re
import shutil
from pathlib import Path

import keras
import numpy as np
import pytest
from click.testing import CliRunner

import legacy_files as files
import paths
from networks import relative_difference
from tfbn.cli import main
from tfbn.compat import load_model
from tfbn.compat.upgrade import UpgradeError, upgrade
from tfbn.data_format import support

DATA = paths.DATA / "keras1"
MODELS = ["conv_th_axis1_mode0", "dense_mode0", "dense_mode1", "dense_mode2"]
CLOSE = 1e-5  # of the original's own predictions, which are float32


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
    assert "Differs from the reference by at most" in shown
    assert shown.endswith("Written to new.keras. It loads after: import tfbn")
    x, y = known(name)
    assert relative_difference(keras.models.load_model("new.keras")(x, training=False), y) < CLOSE


def test_channels_first_is_kept_if_asked_and_refused_where_it_cannot_run(run, monkeypatch, tmp_path):
    files = ["conv_th_axis1_mode0_full.h5", "new.keras", "--backend", "theano"]
    shown = run(*files).output
    assert "backend theano, turned to channels last" in " ".join(shown.split())
    monkeypatch.setattr(support, "has_kernel", lambda kind, dtype: False)
    kept = [*files, "--overwrite", "--data-format", "channels_first"]
    refused = run(*kept)
    assert refused.exit_code == 1
    assert "channels first, for which TensorFlow has no kernel on this machine's CPU" in refused.output
    assert "Make the model channels last with --data-format channels_last, or set the" in refused.output


def test_architecture_and_weights_in_two_files(run):
    files = ["dense_mode0.json", "new.keras", "--weights", "dense_mode0_weights.h5"]
    assert run(*files).exit_code == 0
    x, y = known("dense_mode0")
    assert relative_difference(keras.models.load_model("new.keras")(x), y) < CLOSE


def test_what_a_batch_norm_was_and_became_is_shown(run):
    shown = run("dense_mode1_full.h5", "new.keras").output
    assert "1 batch norm, written by Keras 1.2.2, backend not told" in shown
    row = next(line for line in shown.splitlines() if "batchnormalization_2" in line)
    cells = [cell.strip() for cell in row.strip("│").split("│")]
    assert cells == ["batchnormalization_2", "1", "", "compat.BatchNormalization(epsilon=0.001, mode=1)"]
    assert "Not compared with what OLD predicted: pass --reference for that.\n" in shown
    shown = run("dense_mode0_full.h5", "new0.keras", "--keras-version", "1.2.2").output
    row = next(line for line in shown.splitlines() if "batchnormalization_1" in line)
    cells = [cell.strip() for cell in row.strip("│").split("│")]
    assert cells == ["batchnormalization_1", "0", "variance", "BatchNorm(epsilon=0.001)"]


def test_predictions_that_differ_leave_nothing(run, tmp_path):
    x, y = known("dense_mode0")
    before = sorted(path.name for path in tmp_path.iterdir())
    np.savez("wrong.npz", x=x, y=y * 1.001)
    result = run("dense_mode0_full.h5", "new.keras", "--reference", "wrong.npz")
    assert result.exit_code == 1
    assert result.output.startswith("Error: The loaded model differs from wrong.npz by 0.001 of the ")
    assert result.output.endswith("Nothing was written.\n")
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([*before, "wrong.npz"])
    arguments = ["--reference", "wrong.npz", "--rtol", "0.01"]
    assert run("dense_mode0_full.h5", "new.keras", *arguments).exit_code == 0


def test_predictions_of_mode_2_in_the_batches_that_predict_made(run):
    model = load_model("dense_mode2_full.h5")
    x = np.random.default_rng(0).normal(size=(80, 6)).astype("float32")
    batches = [np.asarray(model(x[start : start + 32])) for start in (0, 32, 64)]
    np.savez("ref.npz", x=x, y=np.concatenate(batches))
    assert run("dense_mode2_full.h5", "a.keras", "--reference", "ref.npz").exit_code == 0
    np.savez("ref.npz", x=x, y=np.asarray(model(x)))
    assert run("dense_mode2_full.h5", "b.keras", "--reference", "ref.npz").exit_code == 0
    np.savez("ref.npz", x=x, y=np.concatenate([np.asarray(model(batch)) for batch in (x[:40], x[40:])]))
    assert run("dense_mode2_full.h5", "c.keras", "--reference", "ref.npz").exit_code == 1


X, Y = known("dense_mode0")
HOW = "In the old Keras: numpy.savez('ref.npz', x=x, y=model.predict(x))\n"
NUMBERS = "values that are not all finite numbers.\n"
MISSING = "ref.npz must hold x, y (inputs {}, then the outputs, in the model's order), and it holds"
SHAPE = "Is it the reference of this model, with a row for each sample?\n"


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"a": X}, f"{MISSING} a. {HOW}"),
        ({"x": X}, f"{MISSING} x. {HOW}"),
        ({"x": X[:, :5], "y": Y}, f"ref.npz: x has the shape (32, 5), and should have (32, 6). {SHAPE}"),
        ({"x": X, "y": Y[:5]}, f"ref.npz: y has the shape (5, 2), and should have (32, 2). {SHAPE}"),
        ({"x": X, "y": Y[:, :1]}, f"ref.npz: y has the shape (32, 1), and should have (32, 2). {SHAPE}"),
        ({"x": X[:0], "y": Y[:0]}, f"ref.npz: x has the shape (0, 6), and should have (0, 6). {SHAPE}"),
        (
            {"x": X, "y": Y * np.nan},
            f"ref.npz: y holds float32 {NUMBERS}",
        ),
        (
            {"x": X.astype(str), "y": Y},
            f"ref.npz: x holds <U32 {NUMBERS}",
        ),
        ({"x": X, "y": np.array([{}], object)}, "ref.npz cannot be read as numbers: "),
        ({"x": X, "y": np.float32(1)}, f"ref.npz: y has the shape (), and should have (32, 2). {SHAPE}"),
        ({"x": np.float32(1), "y": Y}, f"ref.npz: x has the shape (), and should have (0, 6). {SHAPE}"),
        (b"text", f"ref.npz is no .npz file, or a damaged one. {HOW}"),
    ],
)
def test_references_that_do_not_fit(run, arrays, message):
    if isinstance(arrays, bytes):
        Path("ref.npz").write_bytes(arrays)
    else:
        np.savez("ref.npz", **arrays)
    result = run("dense_mode0_full.h5", "new.keras", "--reference", "ref.npz")
    assert result.exit_code == 1
    inputs = re.search(r"inputs (\w+),", result.output)  # Keras numbers them by process
    message = message.format(inputs[1] if inputs else "")
    assert result.output.startswith(f"Error: {message}")
    assert not Path("new.keras").exists()


def test_remedies_are_options_of_the_command(run):
    output = run("conv_th_axis1_mode0_full.h5", "new.keras").output
    assert "Pass --backend theano or --backend tensorflow" in output
    assert "--weights FILE" in run("dense_mode0.json", "new.keras").output
    config = json.loads(Path("dense_mode0.json").read_text())
    config["config"].append({"class_name": "Lambda", "config": {"name": "twice", "function": "f"}})
    Path("lambda.json").write_text(json.dumps(config))
    output = run("lambda.json", "new.keras", "--weights", "dense_mode0_weights.h5").output
    assert "custom_objects={'twice': function} to compat.load_model, in Python" in output
    assert run("dense_mode0_full.h5", "new.keras", "--rtol", "0.1").output == (
        "Error: --rtol is for --reference, which is missing.\n"
    )


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
    outputs = [tf_keras.layers.Dense(2)(tensor) for tensor in inputs]
    old = tf_keras.Model(inputs, [*outputs, tf_keras.layers.Add()(outputs)])
    with pytest.warns(UserWarning, match="HDF5 file"):  # which tf_keras advises against
        old.save(tmp_path / "old.h5")
    x = [np.random.default_rng(n).normal(size=(4, 3)).astype("float32") for n in range(2)]
    named = {f"x_{n}": array for n, array in enumerate(x)}
    y = {f"y_{n}": tensor.numpy() for n, tensor in enumerate(old(x))}
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


def test_models_of_a_fixed_batch_are_compared_on_such_a_batch(tmp_path):
    layer = files.layer("SimpleRNN", "rnn", units=2, stateful=True, activation="tanh")
    layer["config"] |= {"batch_input_shape": [3, 4, 1]}
    weights = [("k", np.ones((1, 2))), ("r", np.ones((2, 2))), ("b", np.ones(2))]
    config = {"class_name": "Sequential", "config": [layer], "keras_version": "2.2.4"}
    path = files.write(tmp_path / "m.h5", config, [("rnn", weights)], "2.2.4", "tensorflow")
    upgrade(path, tmp_path / "new.keras")
    assert keras.models.load_model(tmp_path / "new.keras").input_shape == (3, 4, 1)
