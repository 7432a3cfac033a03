"""What compat could put into a `.keras` file at 0.1.0, loaded after its modules moved.

The file is from before the move (Keras 3.15); keys that Keras 3.8 does not know were taken out.
"""

import re
import subprocess
import sys
import zipfile
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

import tfbn  # and not compat, which another process would need that loads the file

FILE = Path(__file__).parent.parent / "data" / "compat" / "0.1.0.keras"
CLASSES = {
    *("BatchNormalization", "VectorInitializer", "VariableScopeLayer", "InTraining", "StepwiseLayer"),
    *("legacy_hard_sigmoid", "ThresholdedReLU", "ParametricSoftplus", "SReLU", "Cosine"),
    *("CornerUpSampling2D", "TheanoPooling"),
    *(f"PaddedConv{rank}DTranspose" for rank in (1, 2, 3)),
    *("Add", "Subtract", "Multiply", "Average", "Maximum", "Minimum", "Concatenate"),
}


@keras.saving.register_keras_serializable(package="saved_before_the_move")
def tf1_block(x, is_training):
    """The code in the file's VariableScopeLayer, found by its registered name."""
    with tf.compat.v1.variable_scope("fc"):
        weights = tf.compat.v1.get_variable("weights", [x.shape[-1], 3])
    x = tfbn.compat.batch_norm(x @ weights, is_training=is_training, scale=True, scope="bn")
    return tfbn.compat.batch_normalization(x, training=is_training, name="bn2")


def test_the_file_holds_every_class():
    text = zipfile.ZipFile(FILE).read("config.json").decode()
    assert set(re.findall(r'"tfbn>(\w+)"', text)) == CLASSES | {"BatchNorm"}
    registered = keras.saving.get_custom_objects().items()
    ours = {name for name, kind in registered if kind.__module__.startswith("tfbn.compat.")}
    assert ours == {f"tfbn>{name}" for name in CLASSES}


def test_it_predicts_what_it_did():
    model = keras.models.load_model(FILE)
    with np.load(FILE.with_suffix(".npz")) as arrays:
        stored = {letter: [arrays[name] for name in arrays if name[0] == letter] for letter in "xy"}
    outputs = model(stored["x"], training=False)
    assert len(outputs) == len(stored["y"]) == 13
    for found, expected in zip(outputs, stored["y"], strict=True):
        # float32 in another order of sums; the values are of the size of 1.
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)


def test_it_loads_in_a_process_that_imports_tfbn_alone(tmp_path):
    path = f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r})"
    code = f"{path}; import {Path(__file__).stem} as test; test.test_it_predicts_what_it_did()"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=tmp_path)
