"""The command `tfbn`, as a user types it."""

import re
import subprocess
import sys
import zipfile

import keras
import numpy as np
import pytest
import tensorflow as tf

import reference
import tfbn
from networks import chain, relative_difference
from tfbn.data_format import support

L = keras.layers


@pytest.fixture
def model(tmp_path):
    model = chain((6, 6, 3), L.Conv2D(4, 3, name="conv"), tfbn.BatchNorm(name="bn"), L.ReLU())
    model.save(tmp_path / "m.keras")
    return model


def test_export(run, model, tmp_path):
    result = run("export", "m.keras", "out")
    assert result.exit_code == 0, result.output
    for text in (
        "1 of 1 batch norms folded",
        "conv",
        "SavedModel out",
        "float32 (None, 6, 6, 3)",
        "constants",
    ):
        assert text in result.output
    assert (tmp_path / "out" / "saved_model.pb").is_file()
    refused = run("export", "m.keras", "out")
    assert refused.exit_code == 1
    assert refused.output == "Error: out exists already. Pass --overwrite to replace it.\n"
    unfolded = run("export", "m.keras", "out", "--overwrite", "--no-fold", "--no-freeze")
    assert unfolded.exit_code == 0
    assert "batch norms folded" not in unfolded.output
    assert "variables: freeze=False" in unfolded.output


@pytest.mark.parametrize(
    ("option", "text"), [("--freeze", "constants"), ("--no-freeze", "variables: freeze")]
)
def test_export_of_constants_and_variables(option, text, run, model):
    result = run("export", "m.keras", "out", option)
    assert result.exit_code == 0, result.output
    assert text in result.output


def test_export_compares_on_samples(run, tmp_path):
    inputs = keras.Input((1,), dtype="string", name="a word")
    keras.Model(inputs, L.StringLookup(vocabulary=["a", "b"])(inputs)).save(tmp_path / "m.keras")
    refused = run("export", "m.keras", "out")
    assert refused.exit_code == 1
    assert "of type string. Pass --samples FILE, a small batch" in refused.output
    np.savez(tmp_path / "x.npz", a_word=np.array([["a"], ["z"], ["b"]]))
    result = run("export", "m.keras", "out", "--samples", "x.npz")
    assert result.exit_code == 0, result.output
    assert "3 samples" in result.output
    a, b = keras.Input((2,), name="a"), keras.Input((2,), name="b")
    keras.Model([a, b], L.Subtract()([a, b])).save(tmp_path / "two.keras")
    np.savez(tmp_path / "x.npz", b=np.ones((5, 2)), a=np.zeros((5, 2)))
    result = run("export", "two.keras", "two", "--samples", "x.npz")
    assert "5 samples" in result.output
    assert "the outputs hardly vary among the samples" in result.output
    assert "pass --samples FILE on which they do" in " ".join(result.output.split())
    np.savez(tmp_path / "x.npz", b=np.ones((5, 2)), c=np.zeros((5, 2)))
    refused = run("export", "two.keras", "three", "--samples", "x.npz")
    assert refused.exit_code == 1
    assert "A dict of arrays named a, b will do" in refused.output


@pytest.mark.parametrize(
    ("title", "arguments", "files"),
    [
        ("LiteRT", ["m.tflite"], ["m.tflite"]),
        ("ONNX", ["m.v1", "--format", "onnx"], ["m.v1"]),
        ("OpenVINO", ["m.xml"], ["m.bin", "m.xml"]),
    ],
)
def test_export_of_other_formats(title, arguments, files, run, model, tmp_path):
    result = run("export", "m.keras", *arguments)
    assert result.exit_code == 0, result.output
    for text in ("1 of 1 batch norms folded", f"{title} {arguments[0]}", "constants", "(None, 6, 6, 3)"):
        assert text in result.output
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([*files, "m.keras"])
    refused = run("export", "m.keras", *arguments, "--overwrite", "--freeze")
    assert refused.exit_code == 1
    told = f"--freeze is for SavedModels; the weights of {title} are constants. Leave it out."
    assert refused.output == f"Error: {told}\n"


def test_samples_that_are_no_npz_file_are_refused(run, model, tmp_path):
    np.save(tmp_path / "x.npy", np.ones(3))
    (tmp_path / "x.npz").write_bytes(b"x")
    for name in ("x.npy", "x.npz"):
        refused = run("export", "m.keras", "out", "--samples", name)
        assert refused.exit_code == 1
        assert refused.output.startswith(f"Error: {name} is no .npz file, or a damaged one. Write it by")
    assert not (tmp_path / "out").exists()


def test_a_remedy_behind_what_is_quoted_is_shown(run, model, monkeypatch):
    def refuse(*arguments, **keywords):
        raise ValueError("It fails: bad.\n\nArguments received by X: {}\nPass samples=, a small batch.")

    monkeypatch.setattr("tfbn.commands.export", refuse)
    assert run("export", "m.keras", "out").output.endswith("Pass --samples FILE, a small batch.\n")


def test_fold_does_not_replace_what_it_reads(run, model, tmp_path):
    before = (tmp_path / "m.keras").read_bytes()
    refused = run("fold", "m.keras", "./m.keras", "--overwrite")
    assert refused.output == "Error: m.keras is MODEL itself, which could not be trained then.\n"
    assert (tmp_path / "m.keras").read_bytes() == before


def test_versions_lie_side_by_side_as_tensorflow_serving_wants_them(run, model, tmp_path):
    for version in ("0", "1", "2"):
        result = run("export", "m.keras", "out", "--version", version)
        assert result.exit_code == 0, result.output
        assert f"SavedModel out/{version}" in result.output
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["0", "1", "2"]
    assert (tmp_path / "out" / "2" / "saved_model.pb").is_file()
    refused = run("export", "m.keras", "out", "--version", "2")
    assert refused.output == "Error: out/2 exists already. Pass --overwrite to replace it.\n"
    assert run("export", "m.keras", "out", "--version", "2", "--overwrite").exit_code == 0
    for wrong in ("-1", "next", "1.5"):
        assert run("export", "m.keras", "out", "--version", wrong).exit_code == 2
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["0", "1", "2"]


def test_fold(run, model, tmp_path):
    result = run("fold", "m.keras", "folded.keras")
    assert result.exit_code == 0, result.output
    assert "1 of 1 batch norms folded" in result.output
    x = reference.data((3, 6, 6, 3))
    folded = keras.models.load_model(tmp_path / "folded.keras")
    assert relative_difference(folded(x), model(x)) < 1e-5
    assert len(folded.layers) == len(model.layers) - 1
    before = (tmp_path / "folded.keras").read_bytes()
    refused = run("fold", "m.keras", "folded.keras")
    assert (refused.exit_code, refused.output) == (
        1,
        "Error: folded.keras exists already. Pass --overwrite to replace it.\n",
    )
    assert (tmp_path / "folded.keras").read_bytes() == before
    assert run("fold", "m.keras", "folded.keras", "--overwrite").output.endswith("to folded.keras\n")
    (tmp_path / "d.keras").mkdir()
    assert run("fold", "m.keras", "d.keras", "--overwrite").output.startswith("Error: d.keras is a dir")
    assert run("fold", "m.keras", "folded").output == "Error: OUT must end in .keras, received folded.\n"


def test_fold_to_another_precision(run, model, tmp_path):
    assert run("fold", "m.keras", "half.keras", "--dtype", "float16").exit_code == 0
    folded = keras.models.load_model(tmp_path / "half.keras")
    assert {weight.dtype for weight in folded.weights} == {"float16"}
    x = reference.data((3, 6, 6, 3))
    assert relative_difference(folded(x), model(x)) < 1e-2  # 11 bits, sums of 27 products
    assert run("fold", "m.keras", "odd.keras", "--dtype", "int7").exit_code == 2
    assert not (tmp_path / "odd.keras").exists()


def test_fold_compares(run, model, tmp_path, monkeypatch):
    np.savez(tmp_path / "x.npz", x=reference.data((7, 6, 6, 3)))
    result = run("fold", "m.keras", "out.keras", "--samples", "x.npz")
    assert result.exit_code == 0, result.output
    assert re.search(
        r"Differs from the model by at most \d\S+ of the largest output, on 7 sam", result.output
    )
    wrong = chain((6, 6, 3), L.Conv2D(4, 3))
    monkeypatch.setattr("tfbn.commands.fold", lambda model, dtype: (wrong, tfbn.FoldReport(())))
    refused = run("fold", "m.keras", "wrong.keras")
    assert refused.exit_code == 1
    assert "The folded model's output_0 differs from the model's by" in refused.output
    assert not (tmp_path / "wrong.keras").exists()


def test_fold_refuses_weights_that_are_no_numbers(run, tmp_path):
    model = chain((4,), L.Dense(3, name="mended"), tfbn.BatchNorm(name="bn"))
    model.get_layer("bn").moving_mean.assign([1.0, np.nan, 2.0])
    model.save(tmp_path / "m.keras")
    refused = run("fold", "m.keras", "out.keras")
    assert refused.output == (
        "Error: The weights of the layer 'bn' hold NaN or infinity. Mend them, or train again.\n"
    )


OWN_CLASS = """
import keras

@keras.saving.register_keras_serializable("cli_tests")
class Twice(keras.layers.Layer):
    def call(self, x):
        return 2 * x
"""


@pytest.mark.parametrize("command", [["export", "m.keras", "out"], ["fold", "m.keras", "o.keras"]])
def test_a_module_of_the_users_is_imported(command, run, tmp_path, monkeypatch):
    name = f"own_layers_{command[0]}"
    (tmp_path / "made").mkdir()
    module = tmp_path / "made" / f"{name}.py"
    module.write_text(OWN_CLASS.replace("cli_tests", name))
    made = (
        f"import keras, {name}; keras.Sequential([keras.Input((3,)), keras.layers.Dense(2), "
        f"{name}.Twice()]).save('../m.keras')"
    )
    subprocess.run([sys.executable, "-c", made], check=True, cwd=module.parent)
    refused = run(*command)
    assert "Name the module that registers classes and functions of your own (with" in refused.output
    assert run(*command, "--import", "nowhere").output.startswith(
        "Error: --import nowhere fails: No mod"
    )
    module.rename(tmp_path / module.name)
    monkeypatch.setattr(sys, "path", [*sys.path])
    result = run(*command, "--import", name)
    assert result.exit_code == 0, result.output


def test_inputs_are_named_as_the_clients_do(run, model):
    result = run("export", "m.keras", "out", "--input-name", "input_layer")
    assert result.exit_code == 0, result.output
    assert "input 'input_layer'" in result.output
    refused = run("export", "m.keras", "two", "--input-name", "a", "--input-name", "b")
    assert "--input-name" in refused.output
    assert "must be 1 name, one for each input of the model, received ('a', 'b')" in refused.output


def test_the_reason_is_shown_for_what_stays(run, tmp_path):
    chain((4,), L.Dense(3, activation="tanh", name="d"), tfbn.BatchNorm()).save(tmp_path / "m.keras")
    result = run("fold", "m.keras", "out.keras")
    assert "0 of 1 batch norms folded" in result.output
    assert "stays: backwards, 'd' applies its own activation (tanh)" in result.output


def test_channels_first_models_are_turned_if_asked(run, tmp_path, monkeypatch):
    monkeypatch.setattr(support, "has_kernel", lambda kind, dtype: False)
    first = {"data_format": "channels_first"}
    model = chain((3, 6, 5), L.Conv2D(4, 3, **first), tfbn.BatchNorm(axis=1), L.Flatten(), L.Dense(2))
    model.save(tmp_path / "m.keras")
    refused = run("export", "m.keras", "out")
    assert refused.exit_code == 1
    assert (
        "Make the model channels last with --data-format channels_last, or set the environment"
        in refused.output
    )
    x = reference.data((4, 3, 6, 5)).astype("float32")
    wanted = tf.function(model, jit_compile=True)(x)  # which runs on every processor
    assert run("fold", "m.keras", "folded.keras", "--data-format", "channels_last").exit_code == 0
    assert relative_difference(keras.models.load_model(tmp_path / "folded.keras")(x), wanted) < 1e-5
    result = run("export", "m.keras", "out", "--data-format", "channels_last")
    assert result.exit_code == 0, result.output
    assert "(None, 3, 6, 5)" in result.output


def corrupt(path, kind):
    if kind == "text":
        path.write_text("not a model")
    elif kind == "empty":
        path.write_bytes(b"")
    elif kind == "truncated":
        chain((4,), L.Dense(3)).save(path)
        path.write_bytes(path.read_bytes()[:-300])
    elif kind == "zip of something else":
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("readme.txt", "hello")
    elif kind == "unknown class":

        class Local(L.Layer):
            def call(self, x):
                return x

        chain((4,), Local()).save(path)


@pytest.mark.parametrize(
    "kind", ["text", "empty", "truncated", "zip of something else", "unknown class"]
)
@pytest.mark.parametrize("command", ["export", "fold"])
def test_corrupt_files_are_answered_in_one_line(run, command, kind, tmp_path):
    corrupt(tmp_path / "m.keras", kind)
    out = "out.keras" if command == "fold" else "out"
    result = run(command, "m.keras", out)
    assert result.exit_code == 1
    assert result.output.count("\n") == 1
    assert result.output.startswith("Error: m.keras cannot be loaded as a Keras model")
    assert not (tmp_path / out).exists()


def test_unknown_files_and_commands(run):
    for arguments in (
        ["export", "missing.keras", "out"],
        ["fold", "missing.keras", "out.keras"],
        ["melt"],
    ):
        assert run(*arguments).exit_code == 2
    assert "Path 'missing.keras' does not exist." in run("export", "missing.keras", "out").output


def test_the_installed_command(model, tmp_path):
    command = [str(next(p for p in (tmp_path.__class__(sys.executable).parent).glob("tfbn*")))]
    version = subprocess.run([*command, "--version"], check=True, capture_output=True, text=True)
    assert version.stdout == f"tfbn, version {tfbn.__version__}\n"
    assert version.stderr == ""
    failed = subprocess.run(
        [*command, "fold", "m.txt", "o.keras"], check=False, capture_output=True, text=True, cwd=tmp_path
    )
    assert failed.returncode == 2
    assert failed.stderr.endswith("Path 'm.txt' does not exist.\n")
    (tmp_path / "m.txt").write_text("not a model")
    failed = subprocess.run(
        [*command, "fold", "m.txt", "o.keras"], check=False, capture_output=True, text=True, cwd=tmp_path
    )
    assert failed.returncode == 1
    assert failed.stderr.startswith("Error: m.txt cannot be loaded as a Keras model. Keras says: ")
    assert failed.stderr.count("\n") == 1
    assert np.array_equal(failed.stdout, "")
