"""Programs after the command: their imports lead somewhere, and they run."""

import ast
import importlib
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import tensorflow as tf
import tf_slim

from tfbn.compat import tf1
from tfbn.compat.migrate import signs
from tfbn.compat.migrate.one_file import migrate
from tfbn.compat.migrate.targets import V1_MODULES


@pytest.mark.parametrize("module", ["", *signs.INSIDE])
def test_the_names_by_which_tensorflow_1_is_known(module):
    """They are under compat.v1, or ours, and not where TensorFlow 2 has its own."""
    old, new = (getattr(of, module, None) if module else of for of in (tf.compat.v1, tf))
    for name in signs.INSIDE[module] if module else signs.TOP:
        assert not hasattr(new, name), name
        assert name in dir(old) or (not module and hasattr(tf1, name)), name


@pytest.mark.parametrize("module", sorted(V1_MODULES))
def test_modules_that_names_are_imported_from(module):
    assert importlib.import_module(f"tensorflow.compat.v1.{module}")


# What tf_slim's files import, as slim's did in TensorFlow 1.
SPELLED = [
    (r"^import tensorflow\.compat\.v1 as tf", "import tensorflow as tf"),
    (r"^from tf_slim\.layers import", "from tensorflow.contrib.layers.python.layers import"),
    (r"^from tf_slim\.nets", "from tensorflow.contrib.slim.python.slim.nets"),
    (
        r"^from tf_slim\.ops(\.arg_scope)? import",
        r"from tensorflow.contrib.framework.python.ops\1 import",
    ),
    (r"^from tf_slim import", "from tensorflow.contrib import"),
]
NETWORKS = [
    path
    for path in sorted(Path(tf_slim.__file__).with_name("nets").glob("*.py"))
    if not path.stem.endswith("_test") and path.stem != "__init__"
]


def imported(path):
    """What a file imports, as modules with a name in them."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module != "__future__":
            yield from ((node.module, alias.name) for alias in node.names)
        elif isinstance(node, ast.Import):
            yield from ((alias.name, "__name__") for alias in node.names)


@pytest.mark.parametrize("network", NETWORKS, ids=lambda path: path.stem)
def test_the_networks_of_slim_find_what_they_import(network, tmp_path):
    path = tmp_path / network.name
    text = network.read_text()
    for pattern, old in SPELLED:
        text = re.sub(pattern, old, text, flags=re.M)
    path.write_text(text)
    old_imports = {module for module, _ in imported(path)}
    assert any(module.startswith("tensorflow.contrib") for module in old_imports)
    assert migrate(path, writing=True).diff
    compile(path.read_bytes(), str(path), "exec")
    found = list(imported(path))
    assert not any(module.startswith("tensorflow.contrib") for module, _ in found)
    for module, name in found:
        assert hasattr(importlib.import_module(module), name), f"{module}.{name}"


def test_names_come_by_a_star(tmp_path):
    path = tmp_path / "p.py"
    path.write_text(
        "from tensorflow import *\nfrom tensorflow.contrib.layers import *\nx = get_variable\n"
    )
    program = "import tensorflow.contrib as c\n" + path.read_text()
    path.write_text(program)
    migrate(path, writing=True)
    names = {}
    exec(compile(path.read_text(), str(path), "exec"), names)
    assert names["placeholder"] is tf.compat.v1.placeholder
    assert names["contrib"] is names["c"] is tf1.contrib
    assert names["batch_norm"] is tf1.contrib.layers.batch_norm


PROGRAM = """\
from __future__ import print_function
import sys, numpy as np, tensorflow as tf
from tensorflow.contrib.layers import batch_norm
slim = tf.contrib.slim

def network(x, is_training):
    with slim.arg_scope([slim.fully_connected], weights_initializer=tf.constant_initializer(0.25)):
        x = slim.fully_connected(x, x.shape[1].value, activation_fn=tf.nn.tanh)
    x = batch_norm(x, decay=0.5, scale=True, is_training=is_training)
    return tf.layers.dense(x, 1, kernel_initializer=tf.ones_initializer())

x = tf.placeholder(tf.float32, [None, 4])
training = tf.placeholder(tf.bool, [])
y = network(x, training)
loss = tf.reduce_mean(tf.square(y - 1.0))
with tf.control_dependencies(tf.get_collection(tf.GraphKeys.UPDATE_OPS)):
    step = tf.train.GradientDescentOptimizer(0.1).minimize(loss)
data = np.arange(32.0).reshape(8, 4) ** 0.5
with tf.Session() as session:
    session.run(tf.global_variables_initializer())
    for _ in range(3):
        print(session.run([loss, step], {x: data, training: True})[0])
    print(session.run(y, {x: data, training: False}).ravel().tolist())
    for variable in tf.global_variables():
        print(variable.name, session.run(variable).tolist())
print(sys.argv[1:])
"""


def test_a_migrated_program_computes_what_it_did(tmp_path):
    old, new = tmp_path / "old.py", tmp_path / "new.py"
    for path in (old, new):
        path.write_text(PROGRAM)
    result = migrate(new, writing=True)
    changed = [line for line in result.diff.decode().splitlines() if re.match(r"[+][^+]", line)]
    assert changed == [
        "+import sys, numpy as np",
        "+from tfbn.compat import tf1 as tf",
        "+tf.enable()",
        "+from tfbn.compat.tf1.contrib.layers import batch_norm",
    ]
    outputs = []
    for command in (["-m", "tfbn.compat.run", str(old)], [str(new)]):
        done = subprocess.run(
            [sys.executable, *command, "an argument"],
            capture_output=True,
            text=True,
            check=False,
            cwd=tmp_path,
            env=os.environ | {"TF_CPP_MIN_LOG_LEVEL": "3"},
        )
        assert done.returncode == 0, done.stderr
        outputs.append(done.stdout)
    assert outputs[0] == outputs[1]
    losses = [float(line) for line in outputs[1].splitlines()[:3]]
    assert losses[0] > losses[1] > losses[2]
    assert "BatchNorm/moving_variance:0 [" in outputs[1]
