"""tf_slim 1.1.0's own tests of its batch norm, with ours in its place."""

import subprocess
import sys

import pytest

RUN = """
import importlib, sys, unittest
import tensorflow as tf
if {v1}:
    tf.compat.v1.disable_v2_behavior()
from tfbn import compat
compat.slim()
tests = importlib.import_module("tf_slim.layers.layers_test").BatchNormTest
assert importlib.import_module("tf_slim.layers.layers").batch_norm is compat.batch_norm
done = unittest.TextTestRunner().run(unittest.defaultTestLoader.loadTestsFromTestCase(tests))
print("ran", done.testsRun, "failed", len(done.failures) + len(done.errors))
"""


@pytest.mark.once
@pytest.mark.parametrize("v1", [True, False])
def test_its_own_tests_pass(v1, tmp_path):
    code = RUN.format(v1=v1)
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert "ran 67 failed 0" in done.stdout, done.stderr
