"""What the command says of a file, each with a program of which it does not say so."""

import ast

import pytest

from tfbn.compat.migrate import advice
from tfbn.compat.migrate.one_file import migrate, rewritten
from tfbn.compat.migrate.sources import decoded

HEAD = "import tensorflow as tf; slim = tf.contrib.slim\n"
NORM = "tf.contrib.layers.batch_norm"
TRAIN = "tf.train.AdamOptimizer().minimize(loss)\n"


def said(program, head=HEAD):
    """The lines of which something is said, and what, without where contrib's batch norm differs."""
    source = decoded((head + program).encode())
    _, findings = rewritten(source, ast.parse(source.text))
    return [(found.line, found.text) for found in findings if "unbiased" not in found.text]


def lines(program, beginning, head=HEAD):
    return [line for line, text in said(program, head) if text.startswith(beginning)]


@pytest.mark.parametrize(
    ("program", "where"),
    [
        (f"{NORM}(x)\n{TRAIN}", [2]),
        (f"a = 1\nslim.batch_norm(x, is_training=t)\n{TRAIN}", [3]),
        (f"tf.layers.batch_normalization(x, training=t)\n{TRAIN}", [2]),
        (f"slim.conv2d(x, 3, 3, normalizer_fn=slim.batch_norm)\n{TRAIN}", [2]),
        (f"from tensorflow.contrib.layers import batch_norm as bn\nbn(x)\n{TRAIN}", [3]),
        (f"bn = {NORM}\nbn(x)\n{TRAIN}", [2]),
        # trained elsewhere, or not at all
        (f"{NORM}(x)\n", []),
        (f"{NORM}(x, is_training=False)\n{TRAIN}", []),
        (f"tf.layers.batch_normalization(x)\n{TRAIN}", []),
        (f"from tensorflow.contrib.layers import batch_norm\n{TRAIN}", []),
        # fetched
        (f"{NORM}(x)\n{TRAIN}tf.get_collection(tf.GraphKeys.UPDATE_OPS)\n", []),
        (f"{NORM}(x)\n{TRAIN}tf.get_collection('update_ops')\n", []),
        (f"{NORM}(x, updates_collections=None)\n{TRAIN}", []),
        (f"p = {{'updates_collections': None}}\n{NORM}(x, **p)\n{TRAIN}", []),
        (f"{NORM}(x)\nslim.learning.create_train_op(loss, o)\no.minimize\n", []),
        (f"{NORM}(x)\ntf.contrib.layers.optimize_loss(loss)\no.minimize\n", []),
    ],
)
def test_updates_that_are_never_fetched(program, where):
    assert lines(program, "the moving statistics of batch norms are never") == where


def test_the_remedy_is_one_that_the_function_has():
    ((_, contrib),) = said(f"{NORM}(x)\n{TRAIN}")
    ((_, layers),) = said(f"tf.layers.batch_normalization(x, training=t)\n{TRAIN}")
    assert ("updates_collections=None" in contrib, "updates_collections=None" in layers) == (True, False)


@pytest.mark.parametrize(
    ("program", "where"),
    [
        (f"{NORM}(x,\n  updates_collections='mine')", [3]),
        (f"{NORM}(x, updates_collections=['mine'])", [2]),
        ("p = {'updates_collections': 'mine'}", [2]),
        (f"{NORM}(x, updates_collections='update_ops')", []),
        (f"{NORM}(x, updates_collections=tf.GraphKeys.UPDATE_OPS)", []),
        (f"{NORM}(x, updates_collections=['mine', 'update_ops'])", []),
        (f"{NORM}(x, updates_collections=None)", []),
    ],
)
def test_collections_of_ones_own(program, where):
    assert lines(program, "updates_collections='mine': the updates go into a") == where


@pytest.mark.parametrize(
    ("program", "where"),
    [
        ("def net(x):\n  w = tf.Variable(1.)\n  return slim.conv2d(x * w, 3, 3)", [3]),
        ("def net(x):\n  w = tf.Variable(1.)\n  return tf.layers.dense(x * w, 3)", [3]),
        ("def net(x):\n  w = tf.Variable(1.)\n  v = tf.get_variable('v', [3])", [3]),
        ("def weight(x):\n  return tf.Variable(x)\ndef net(x):\n  return tf.layers.dense(x, 3)", []),
        ("step = tf.Variable(0)\ndef net(x):\n  return tf.layers.dense(x, 3)", []),
        ("def net(x):\n  w = other.Variable(1.)\n  return tf.layers.dense(x * w, 3)", []),
    ],
)
def test_variables_that_no_scope_knows(program, where):
    assert lines(program, "tf.Variable in a function that builds layers") == where


@pytest.mark.parametrize(
    ("program", "where"),
    [
        (f"{NORM}(x, 0.9, True, True, 0.1, None, None)", [2]),
        ("slim.batch_norm(x, 0.9, True, True, 0.1, None, None, True)", [2]),
        (f"{NORM}(x, 0.9, True, True, 0.1, None, is_training=t)", []),
        ("tf.layers.batch_normalization(x, 3, 0.9, 0.1, True, True, None, None)", []),
    ],
)
def test_positional_arguments_in_two_orders(program, where):
    assert lines(program, "more than six positional arguments") == where


@pytest.mark.parametrize(
    ("program", "where"),
    [
        (f"{NORM}(x, is_training=True)", [2]),
        ("tf.layers.batch_normalization(x,\n training=True)", [3]),
        ("with slim.arg_scope([slim.conv2d, slim.batch_norm], is_training=True): pass", [2]),
        ("with slim.arg_scope([slim.dropout], is_training=True): pass", []),
        (f"{NORM}(x, is_training=is_training)", []),
        (f"{NORM}(x, is_training=False)", []),
        ("slim.dropout(x, is_training=True)", []),
    ],
)
def test_training_for_ever(program, where):
    found = [line for line, text in said(program) if "training=True: the batch norm always uses" in text]
    assert found == where


@pytest.mark.parametrize(
    ("program", "where"),
    [
        ("from tensorflow.python.framework import ops\nops.Tensor", [2]),
        ("import tensorflow.python.ops.math_ops as m", [2]),
        ("tf.python.ops.math_ops", [2]),
        ("from tensorflow.contrib.layers.python.layers import utils", []),
        ("from python.framework import ops", []),
    ],
)
def test_private_modules(program, where):
    assert lines(program, "tensorflow.python is private") == where
    # of programs of TensorFlow 2, too
    tf2 = "import tensorflow as tf; tf.nn.relu(x)\n"
    assert lines(program.replace("contrib.layers.python", "io"), "tensorflow.python is", tf2) == where


@pytest.mark.parametrize(
    ("program", "beginning", "where"),
    [
        ("tf.contrib.rnn.BasicLSTMCell(3)", "tf.contrib.rnn.BasicLSTMCell: Use keras.layers.LSTM", [2]),
        ("from tensorflow.contrib import rnn", "tf.contrib.rnn: Use keras.layers.LSTM", [2]),
        ("h = tf.contrib.training.HParams()", "tf.contrib.training.HParams: Use a dataclass", [2]),
        ("tf.estimator.Estimator(f)", "tf.estimator.Estimator: Estimators ended", [2]),
        (
            "from tensorflow.examples.tutorials.mnist import input_data",
            "tf.examples.tutorials.mnist.input_data: Use keras.datasets.mnist",
            [2],
        ),
        ("tf.contrib.nothing.name()", "tf.contrib.nothing of TensorFlow 1 is not in tfbn", [2]),
        ("from tensorflow.contrib.slim.nothing import x", "tf.contrib.slim.nothing.x of Tens", [2]),
        ("tf.contrib.layers.xavier_initializer().dtype", "tf.contrib", []),
        ("tf.contrib.layers.conv2d.__name__.upper", "tf.contrib", []),
        ("from tensorflow.contrib.layers import *", "tf.contrib", []),
        ("from tensorflow.flags import FLAGS", "tf.flags.FLAGS of TensorFlow 1 is not in", [2]),
        ("from tensorflow.train import Saver", "tf.train", []),
        ("from tensorflow import flags", "tf.flags", []),
        ("other.contrib.rnn", "tf.contrib", []),
        ("tf.keras.layers.Dense(3)", "Keras 3 does not run in graph mode", [2]),
        ("from keras import layers", "Keras 3 does not run in graph mode", [2]),
        ("tf.layers.dense(x, 3)", "Keras 3 does not run in graph mode", []),
    ],
)
def test_what_is_gone(program, beginning, where):
    assert lines(program, beginning) == where


def test_where_batch_norm_differs_is_said_once():
    text = f"{HEAD}{NORM}(x)\nslim.batch_norm(x)\n"
    findings = rewritten(decoded(text.encode()), ast.parse(text))[1]
    assert [found.line for found in findings if "stores the unbiased variance" in found.text] == [2]


def test_layers_that_tensorflow_2_has_no_longer():
    head = "import tensorflow as tf\n"
    assert lines("tf.compat.v1.layers.dense(x, 3)", advice.V1_LAYERS, head) == [2]
    assert lines("tf.compat.v1.nn.relu(x)", advice.V1_LAYERS, head) == []
    assert lines("tf.compat.v1.layers.dense(x, 3)\ntf.Session()", advice.V1_LAYERS, head) == []
    assert lines("import tf_slim as slim\nslim.layers.conv2d(x, 3, 3)", advice.V1_LAYERS, head) == []


@pytest.mark.parametrize(
    ("program", "where"),
    [
        ("import tf_slim as slim\n\nslim.batch_norm(x)\nslim.batch_norm(x)", [3]),
        ("import tf_slim\ntf_slim.conv2d(x, 3, 3, normalizer_fn=tf_slim.layers.batch_norm)", [2]),
        ("from tf_slim.layers import layers as lib\nwith arg_scope([lib.batch_norm]): pass", [2]),
        ("from tf_slim import batch_norm\nbatch_norm(x)", [2]),
        ("from tf_slim.nets import resnet_v1\nresnet_v1.resnet_v1_50(x)", [2]),
        ("from tf_slim.nets import vgg\nvgg.vgg_16(x)", []),
        ("import tf_slim as slim\nslim.conv2d(x, 3, 3)", []),
        ("import tf_slim as slim\nfrom tfbn import compat\ncompat.slim()\nslim.batch_norm(x)", []),
        ("from tensorflow.contrib import slim\nslim.batch_norm(x)", []),
    ],
)
@pytest.mark.parametrize("head", ["", "import tensorflow.compat.v1 as tf; tf.Session()\n"])
def test_batch_norms_of_tf_slim_need_one_call(program, where, head):
    found = lines(program, advice.SLIM_BATCH_NORM, head)
    assert found == [line + bool(head) for line in where]
    again = rewritten(decoded((head + program).encode()), ast.parse(head + program))[0]
    assert len(lines(again, advice.SLIM_BATCH_NORM, "")) == len(where)


@pytest.mark.parametrize(
    ("program", "where"),
    [
        ("def net():\n  return tf.placeholder(tf.float32)", [3]),
        ("def f():\n  return 1\ntf.Session()", []),  # switched
        ("def net():\n  tf.disable_v2_behavior()\n  return tf.placeholder(tf.float32)", []),
        ("def net(x):\n  return tf.layers.dense(x, 3)", []),
    ],
)
def test_graphs_that_are_run_elsewhere(program, where):
    assert lines(program, "sessions and placeholders need TensorFlow 1's behaviour") == where


@pytest.mark.parametrize(
    ("program", "said"),
    [
        ("import tensorflow as tf", "left as it is: a program of TensorFlow 2"),
        ("from tensorflow import keras", "left as it is: a program of TensorFlow 2"),
        (
            "import tensorflow as tf\n\ntf.compat.v1.Session()",
            "left as it is: what it has of TensorFlow 1 it reaches by tf.compat.v1 (line 3)",
        ),
        ("from tensorflow.python.framework import ops", "tensorflow.python is private"),
        ("import tf_slim", ""),
    ],
)
def test_why_a_file_is_left(program, said):
    findings = rewritten(decoded(program.encode()), ast.parse(program))[1]
    assert [found.text[: len(said)] for found in findings] == [said] * bool(said)


def test_migrated_programs_are_told_the_same():
    program = f"{NORM}(x, is_training=True)\ntf.contrib.rnn.LSTMCell(3)\n{TRAIN}"
    head = HEAD.replace("import tensorflow as tf", "from tfbn.compat import tf1 as tf")
    assert said(program, head) == said(program)


PYTHON_2 = [
    "print x",
    "exec code",
    "raise E, 'm'",
    "a = 0777",
    "a = 10L",
    "if a <> b: pass",
]
PYTHON_2 += ["try:\n  pass\nexcept E, e:\n  pass", "def f(a, (b, c)): pass", "a = ur'x'", "a = `b`"]
PYTHON_2 += ["if a:\n        b\n\tc"]


@pytest.mark.parametrize(
    ("line", "old"), [*((line, True) for line in PYTHON_2), ("print(x", False), ("def f(:", False)]
)
def test_python_2_is_named(line, old, tmp_path):
    path = tmp_path / "p.py"
    path.write_text(f"import tensorflow as tf\n{line}\n")
    result = migrate(path, writing=True)
    assert result.skipped.startswith("skipped: it is Python 2" if old else "skipped: it is not valid")
    assert result.line >= 2
    assert not result.diff
