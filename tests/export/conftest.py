"""Fixtures shared by the tests of exports."""

import json
import subprocess
import sys

import keras
import numpy as np
import pytest

import tfbn
from networks import chain

L = keras.layers


@pytest.fixture(scope="module")
def model():
    keras.config.set_dtype_policy("float32")
    return chain((8, 8, 3), L.Conv2D(4, 3), tfbn.BatchNorm(name="bn"), L.ReLU(), L.Flatten(), L.Dense(2))


SERVE = """
import json, sys, numpy as np, tensorflow as tf
for line in sys.stdin:
    path, given, answer = json.loads(line)
    signature = tf.saved_model.load(path).signatures["serving_default"]
    with np.load(given) as inputs:
        outputs = signature(**{name: tf.constant(array) for name, array in inputs.items()})
    np.savez(answer, **{name: tensor.numpy() for name, tensor in outputs.items()})
    assert "tfbn" not in sys.modules
    print("served", flush=True)
"""


@pytest.fixture(scope="session")
def server(tmp_path_factory):
    """A process that does not import tfbn, one for all tests: TensorFlow's start takes longest."""
    pipes = {
        "stdin": subprocess.PIPE,
        "stdout": subprocess.PIPE,
        "cwd": tmp_path_factory.mktemp("server"),
    }
    with subprocess.Popen([sys.executable, "-c", SERVE], text=True, **pipes) as process:
        yield process


@pytest.fixture
def serve(server, tmp_path):
    """Make a function that gives what a SavedModel answers there."""

    def answer(path, **inputs):
        files = [str(path), str(tmp_path / "inputs.npz"), str(tmp_path / "outputs.npz")]
        np.savez(files[1], **inputs)
        server.stdin.write(json.dumps(files) + "\n")
        server.stdin.flush()
        assert server.stdout.readline() == "served\n"
        return np.load(files[2])

    return answer
