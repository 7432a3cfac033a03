"""tf_slim 1.1.0's own tests of its batch norm, with ours in its place, and of what TensorFlow moved."""

import subprocess
import sys

import pytest

from sweeps import some

RUN = """
import importlib, sys, unittest
import tensorflow as tf
if {v1}:
    tf.compat.v1.disable_v2_behavior()
from tfbn import compat
compat.slim()
tests = getattr(importlib.import_module("tf_slim.layers.{module}"), "{tests}")
assert importlib.import_module("tf_slim.layers.layers").batch_norm is compat.batch_norm
done = unittest.TextTestRunner().run(unittest.defaultTestLoader.loadTestsFromTestCase(tests))
print("ran", done.testsRun, "failed", len(done.failures) + len(done.errors))
"""


TESTS = [
    (True, "layers_test", "BatchNormTest", "ran 67 failed 0"),
    (False, "layers_test", "BatchNormTest", "ran 67 failed 0"),
    (True, "layers_test", "LegacyFullyConnectedTest", "ran 21 failed 0"),
    (True, "rev_block_lib_test", "RecomputeTest", "ran 7 failed 1"),  # calls tf.layers itself
]


@pytest.mark.parametrize("tests_of", some(TESTS, TESTS[:1]))
def test_its_own_tests_pass(tests_of, tmp_path):
    v1, module, tests, result = tests_of
    code = RUN.format(v1=v1, module=module, tests=tests)
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert result in done.stdout, done.stderr
