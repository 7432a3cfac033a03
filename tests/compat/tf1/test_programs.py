"""Programs in the style of old projects: run unchanged and migrated, restored, as layers, exported.

They are in tests/data/tf1_programs; the oracle is the same files with tf_slim's and tf_keras' originals.
"""

import os
import runpy
import shutil
import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf
from sklearn.datasets import load_digits

import tfbn
from networks import relative_difference
from paths import DATA, HELPERS
from sweeps import some
from tfbn import compat
from tfbn.compat.migrate.one_file import migrate

NAMES = runpy.run_path(str(DATA / "tf1_programs" / "main.py"))["PROGRAMS"]
# Of float32 over three steps of training, a few roundings amplified.
TOLERANCE = 1e-5
# Updates in place run at inference, too, and before or after the averages are read, as in the original.
RACES = "deepfm"
# Of tf.summary in a layer, where nothing is written.
SUMMARIES = "ignore:Cannot activate TF2 compatibility support for TF1 summary ops:UserWarning"
# Batch norms by hand, whose averages have names of their own: nobody measures them.
BY_HAND = ("ddpg", "pointnet")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The programs, what the originals made of them, what ours did, and checkpoints of ours."""
    folder = tmp_path_factory.mktemp("programs") / "old"
    shutil.copytree(DATA / "tf1_programs", folder)
    (folder / "ckpt").mkdir()
    original = [sys.executable, str(HELPERS / "tf1_original.py"), "main.py", "want.npz"]
    ours = [sys.executable, "-m", "tfbn.compat.run", "main.py", "got.npz", "ckpt"]
    environment = os.environ | {"TF_ENABLE_ONEDNN_OPTS": "0"}  # rounding alike in both
    for command in (original, ours):
        done = subprocess.run(
            command, cwd=folder, env=environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
    assert "tfbn.compat.run: TensorFlow 1's behaviour is on" in done.stderr
    return folder


@pytest.mark.parametrize("name", NAMES)
def test_programs_train_to_the_original_s_numbers(name, folder):
    got, want = np.load(folder / "got.npz"), np.load(folder / "want.npz")
    keys = [key for key in want.files if key.startswith(f"{name}/")]
    assert keys == [key for key in got.files if key.startswith(f"{name}/")]
    assert len(want[f"{name}/losses"]) == 3
    for key in keys:
        if key in (f"{RACES}/logits", *(k for k in keys if name == RACES and "/moving_" in k)):
            continue
        assert got[key].shape == want[key].shape
        assert relative_difference(got[key], want[key]) < TOLERANCE, key


@pytest.mark.sweep
def test_migrated_programs_compute_what_they_did(folder, tmp_path):
    new = tmp_path / "new"
    shutil.copytree(DATA / "tf1_programs", new)
    for path in new.glob("*.py"):
        migrate(path, writing=True)
        assert "import tensorflow" not in path.read_text()
    environment = os.environ | {"TF_ENABLE_ONEDNN_OPTS": "0"}
    command = [sys.executable, "main.py", "migrated.npz"]
    subprocess.run(command, cwd=new, env=environment, capture_output=True, check=True)
    got, want = np.load(new / "migrated.npz"), np.load(folder / "got.npz")
    assert sorted(got.files) == sorted(want.files)
    for key in want.files:
        if not (key.startswith(RACES) and ("logits" in key or "/moving_" in key)):
            assert relative_difference(got[key], want[key]) < TOLERANCE, key


def old(folder, name):
    """The old module imported into this process, where Keras 3 runs, as a layer's function."""
    sys.path.insert(0, str(folder))
    try:
        with compat.install_contrib(programs=folder):
            network = __import__(name).network
    finally:
        sys.path.remove(str(folder))
        for path in folder.glob("*.py"):
            sys.modules.pop(path.stem, None)

    def with_logits(x, is_training):
        return compat.tf1.layers.dense(network(x, tf.constant(is_training)), 10, name="logits")

    return with_logits


@pytest.mark.filterwarnings("ignore:.(layer.apply|tf.layers.*). is deprecated:UserWarning", SUMMARIES)
@pytest.mark.parametrize("name", some(NAMES, ["resnet", "ddpg", "estimator"]))
def test_programs_become_layers_are_restored_recalibrated_and_exported(name, folder, tmp_path):
    layer = compat.VariableScopeLayer(old(folder, name), v1_shapes=True)
    inputs = keras.Input((8, 8, 1), batch_size=16)
    model = keras.Model(inputs, layer(inputs))
    compat.load_checkpoint(folder / "ckpt" / name, layer)
    images = (load_digits().images[..., None] / 8 - 1).astype("float32")
    want = np.load(folder / "got.npz")[f"{name}/logits"]
    if name != RACES:
        assert relative_difference(model(images[:16]).numpy(), want) < TOLERANCE
    before = [each.moving_mean.numpy() for each in layer.batch_norms_inside.values()]
    assert len(before) == sum(key.endswith("/moving_mean") for key in stored(folder, name))
    if name in BY_HAND:
        with pytest.raises(ValueError, match=r"no batch norm .* with tf\.nn\.moments, is not known"):
            tfbn.recalibrate(model, images[:64], verbose=0)
    else:
        assert len(tfbn.recalibrate(model, images[:64], verbose=0)) == len(before) > 0
    for each, old_mean in zip(layer.batch_norms_inside.values(), before, strict=True):
        assert np.abs(each.moving_mean.numpy() - old_mean).max() > 1e-3
    report = tfbn.export(model, tmp_path / "out")
    served = tf.saved_model.load(str(tmp_path / "out")).signatures["serving_default"]
    (name,) = report.inputs
    (got,) = served(**{name: images[:16]}).values()
    assert relative_difference(got.numpy(), model(images[:16]).numpy()) < TOLERANCE


def stored(folder, name):
    """The variables that a program has in the end, by name."""
    start = f"{name}/variable/"
    found = np.load(folder / "got.npz")
    return {key.removeprefix(start): found[key] for key in found.files if key.startswith(start)}


@pytest.mark.filterwarnings("ignore:.layer.apply. is deprecated:UserWarning", SUMMARIES)
def test_batch_norms_by_hand_are_updated_in_training_calls_of_the_layer(folder):
    name = "ddpg"
    layer = compat.VariableScopeLayer(old(folder, name), v1_shapes=True)
    images = (load_digits().images[:16, ..., None] / 8 - 1).astype("float32")
    layer(images)
    compat.load_checkpoint(folder / "ckpt" / name, layer)
    layer(images, training=True)
    weights = stored(folder, name)
    x = images.reshape(16, 64).astype("float64") @ weights["fc1/weights"] + weights["fc1/biases"]
    for key, moment in (("bn1/pop_mean", x.mean(0)), ("bn1/pop_var", x.var(0))):
        want = 0.9 * weights[key] + 0.1 * moment
        assert relative_difference(layer.variables_by_name[key].numpy(), want) < TOLERANCE


def test_sizes_as_tensorflow_1_had_them_need_to_be_asked_for(folder):
    layer = compat.VariableScopeLayer(old(folder, "dcgan"))
    with pytest.raises(ValueError, match=r"reads sizes .* x\.shape\[1\]\.value\. Pass v1_shapes=True"):
        layer(np.zeros((16, 8, 8, 1), "float32"))
    assert isinstance(tf.zeros((2, 3)).shape[1], int)


def run(folder, *arguments):
    command = [sys.executable, "-m", "tfbn.compat.run", *arguments]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)


def test_run_is_as_python_runs_a_program(tmp_path):
    (tmp_path / "package").mkdir()
    (tmp_path / "package" / "__init__.py").write_text("from tensorflow.contrib import slim\n")
    (tmp_path / "program.py").write_text(
        "import sys, tensorflow as tf, package\n"
        "import tensorflow.compat.v1 as v1\n"
        "print(__name__, sys.argv, tf.placeholder(tf.float32, [None, 3]).shape[1].value)\n"
        "print(package.slim is tf.contrib.slim, v1 is tf, tf.compat.v1 is tf)\n"
        "from tfbn import compat\n"
        "try:\n"
        "    compat.VariableScopeLayer(print)\n"
        "except RuntimeError as error:\n"
        "    print(error)\n"
        "sys.exit(7)\n"
    )
    done = run(tmp_path, "program.py", "--flag", "x")
    assert done.returncode == 7, done.stderr
    *lines, error = done.stdout.splitlines()
    assert lines == ["__main__ ['program.py', '--flag', 'x'] 3", "True True True"]
    assert error.startswith("Keras 3 layers need eager execution, which is switched off here")


@pytest.mark.parametrize(
    ("arguments", "code", "text"),
    [
        ((), 1, "Usage: python -m tfbn.compat.run PROGRAM.py"),
        (("--help",), 0, "Usage: python -m tfbn.compat.run PROGRAM.py"),
        (("nothing.py",), 1, "There is no file nothing.py."),
    ],
)
def test_run_without_a_program(arguments, code, text, capsys):
    run_module = __import__("tfbn.compat.run", fromlist=["main"])
    assert run_module.main(list(arguments)) == code
    printed = capsys.readouterr()
    assert text in (printed.err if code else printed.out)
