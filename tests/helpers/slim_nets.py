"""tf_slim's networks and their tests as files of a project, as old ones spelled them, and run.

    cd PROJECT; python slim_nets.py "" OUT.json nets.vgg_test nets.resnet_v1_test:testEndPointsV1

With "slim" `compat.slim()` is called before. OUT.json: passed, and what failed, with its error's end.
"""

import json
import re
import sys
import unittest
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

# Of a package of its own, as a project has copies of networks.
OWN = [(r"\btf_slim\.nets\b", "nets")]
# As contrib's own files spelled it.
CONTRIB = [
    (r"^import tensorflow\.compat\.v1 as tf", "import tensorflow as tf"),
    (r"^from tf_slim\.layers import", "from tensorflow.contrib.layers.python.layers import"),
    (
        r"^from tf_slim\.ops(\.arg_scope)? import",
        r"from tensorflow.contrib.framework.python.ops\1 import",
    ),
    (r"^from tf_slim import", "from tensorflow.contrib import"),
]
# As programs with networks did.
ATTRIBUTES = [
    (r"^import tensorflow\.compat\.v1 as tf", "import tensorflow as tf\n\nslim = tf.contrib.slim"),
    (r"^from tf_slim import model_analyzer", "model_analyzer = slim.model_analyzer"),
    (r"^from tf_slim import layers", "layers = tf.contrib.layers"),
    (r"^from tf_slim\.layers import utils", "utils = slim.utils"),
    (r"^from tf_slim\.ops import variables as variables_lib", "variables_lib = tf.contrib.framework"),
    (r"^from tf_slim\.ops\.arg_scope import arg_scope", "arg_scope = slim.arg_scope"),
]


def copy(folder, old):
    """Write the networks and their tests into a package `nets`, with contrib's names or tf_slim's."""
    (folder / "nets").mkdir(parents=True)
    for path in sorted((Path(find_spec("tf_slim").origin).parent / "nets").glob("*.py")):
        text = path.read_text()
        spelling = ATTRIBUTES if path.stem.endswith("_test") else CONTRIB
        for pattern, spelled in OWN + (spelling if old else []):
            text = re.sub(pattern, spelled, text, flags=re.M)
        (folder / "nets" / path.name).write_text(text)


class Results(unittest.TextTestResult):
    """Remembers what passed, too."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.passed = []

    def addSuccess(self, test):  # noqa: N802 (unittest's name)
        super().addSuccess(test)
        self.passed.append(test.id())


def main(slim, out, *names):
    sys.path.insert(0, "")
    if slim:
        from tfbn import compat  # noqa: PLC0415

        compat.slim(last_release=True)
    passed, failed = [], {}
    for name in names:
        module, *methods = name.split(":")
        tests = unittest.TestLoader()
        if methods:
            tests.testNamePatterns = [f"*.{method}" for method in methods]
        suite = tests.loadTestsFromModule(import_module(module))
        done = unittest.TextTestRunner(resultclass=Results).run(suite)
        passed += done.passed
        failed |= {test.id(): error[-300:] for test, error in done.failures + done.errors}
    Path(out).write_text(json.dumps({"passed": passed, "failed": failed}))


if __name__ == "__main__":
    main(*sys.argv[1:])
