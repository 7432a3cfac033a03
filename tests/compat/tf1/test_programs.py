"""Programs in the style of old projects, unchanged: run, restored, as Keras layers, exported.

They are in tests/data/tf1_programs; the oracle is the same files with tf_slim's and tf_keras' originals.
"""

import os
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
from tfbn import compat

pytestmark = pytest.mark.once  # three processes; the kernels are tested elsewhere
NAMES = ("dcgan", "deepfm", "facenet", "pointnet", "east", "yolo", "densenet", "estimator")
# Of float32 over three steps of training, a few roundings amplified.
TOLERANCE = 1e-5
# Updates in place run at inference, too, and before or after the averages are read, as in the original.
RACES = "deepfm"


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


def old(folder, name):
    """The old module imported into this process, where Keras 3 runs, as a layer's function."""
    sys.path.insert(0, str(folder))
    try:
        with compat.install_contrib(programs=folder):
            network = __import__(name).network
    finally:
        sys.path.remove(str(folder))
        sys.modules.pop(name)

    def with_logits(x, is_training):
        return compat.tf1.layers.dense(network(x, tf.constant(is_training)), 10, name="logits")

    return with_logits


@pytest.mark.filterwarnings("ignore:.(layer.apply|tf.layers.*). is deprecated:UserWarning")
@pytest.mark.parametrize("name", [name for name in NAMES if name != "pointnet"])
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
    measured = tfbn.recalibrate(model, images[:64], verbose=0)
    assert len(measured) == len(before) > 0
    for each, old_mean in zip(layer.batch_norms_inside.values(), before, strict=True):
        assert np.abs(each.moving_mean.numpy() - old_mean).max() > 1e-3
    report = tfbn.export(model, tmp_path / "out")
    served = tf.saved_model.load(str(tmp_path / "out")).signatures["serving_default"]
    (name,) = report.inputs
    (got,) = served(**{name: images[:16]}).values()
    assert relative_difference(got.numpy(), model(images[:16]).numpy()) < TOLERANCE


def test_averages_that_tensorflow_makes_by_itself_are_refused_in_a_layer(folder):
    with pytest.raises(TypeError, match="ExponentialMovingAverage does not support"):
        compat.VariableScopeLayer(old(folder, "pointnet"), v1_shapes=True)(np.zeros((16, 8, 8, 1), "f"))


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
