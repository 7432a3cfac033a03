"""Import lines of old programs, before and after."""

import ast

import pytest

from tfbn.compat.migrate.one_file import rewritten
from tfbn.compat.migrate.sources import decoded

# Programs of TensorFlow 1 by this line, which stays; no session, so nothing is switched.
SIGN = "\nweights = tf.get_variable('w', [3])\n"


def migrated(text):
    """A file's text after the command, and what it says of it."""
    source = decoded(text.encode())
    return rewritten(source, ast.parse(source.text))


def after(text):
    return migrated(text)[0]


@pytest.mark.parametrize(
    ("before", "expected"),
    [
        ("import tensorflow as tf", "from tfbn.compat import tf1 as tf"),
        ("import tensorflow", "from tfbn.compat import tf1 as tensorflow"),
        ("import tensorflow as tf1", "from tfbn.compat import tf1"),
        ("import tensorflow.compat.v1 as tf", "from tfbn.compat import tf1 as tf"),
        ("import tensorflow.compat.v1", "from tfbn.compat import tf1 as tensorflow"),
        ("from tensorflow.compat import v1 as tf", "from tfbn.compat import tf1 as tf"),
        ("from tensorflow.compat import v1", "from tfbn.compat import tf1 as v1"),
        ("import tensorflow.contrib.slim as slim", "from tfbn.compat.tf1.contrib import slim"),
        ("import tensorflow.contrib.slim as s", "from tfbn.compat.tf1.contrib import slim as s"),
        ("import tensorflow.contrib as tc", "from tfbn.compat.tf1 import contrib as tc"),
        ("import tensorflow.contrib.slim", "from tfbn.compat import tf1 as tensorflow"),
        ("from tensorflow import contrib", "from tfbn.compat.tf1 import contrib"),
        ("from tensorflow import Session, float32", "from tfbn.compat.tf1 import Session, float32"),
        ("from tensorflow.layers import dense as d", "from tfbn.compat.tf1.tf_layers import dense as d"),
        ("from tensorflow import layers", "from tfbn.compat.tf1 import layers"),
        ("from tensorflow import *", "from tfbn.compat.tf1 import *"),
        ("from tensorflow.layers import *", "from tfbn.compat.tf1.tf_layers import *"),
        ("from tensorflow.contrib.slim import *", "from tfbn.compat.tf1.contrib.slim import *"),
        ("from tensorflow.nn import relu", "from tensorflow.compat.v1.nn import relu"),
        ("import tensorflow.compat.v1.nn as nn", "from tfbn.compat.tf1 import nn"),
        (
            "from tensorflow.contrib.layers import batch_norm as bn",
            "from tfbn.compat.tf1.contrib.layers import batch_norm as bn",
        ),
        (
            "from tensorflow.contrib import slim, layers",
            "from tfbn.compat.tf1.contrib import slim, layers",
        ),
        (
            "from tensorflow.contrib.layers.python.layers import layers as layers_lib",
            "from tfbn.compat.tf1.contrib.layers.python.layers import layers as layers_lib",
        ),
        (
            "import tensorflow.contrib.slim.python.slim.nets.vgg as vgg",
            "from tfbn.compat.tf1.contrib.slim.python.slim.nets import vgg",
        ),
        # several names in a line
        (
            "import os, tensorflow as tf, sys  # all",
            "import os\nfrom tfbn.compat import tf1 as tf\nimport sys  # all",
        ),
        (
            "import os, sys as s, tensorflow.contrib.slim as slim",
            "import os, sys as s\nfrom tfbn.compat.tf1.contrib import slim",
        ),
        (
            "import os; import tensorflow as tf; a = 1",
            "import os; from tfbn.compat import tf1 as tf; a = 1",
        ),
        (
            "if True: import os, tensorflow as tf",
            "if True: import os; from tfbn.compat import tf1 as tf",
        ),
        (
            "from tensorflow.contrib import rnn, slim",
            "from tensorflow.contrib import rnn\nfrom tfbn.compat.tf1.contrib import slim",
        ),
        (
            "from tensorflow import keras, placeholder as p",
            "from tensorflow import keras\nfrom tfbn.compat.tf1 import placeholder as p",
        ),
        # wherever it is
        (
            "try:\n\timport tensorflow.compat.v1 as t\nexcept E:\n\timport tensorflow as t",
            "try:\n\tfrom tfbn.compat import tf1 as t\nexcept E:\n\tfrom tfbn.compat import tf1 as t",
        ),
        (
            "def f():\n    import os, tensorflow.contrib as tc\n    return tc",
            "def f():\n    import os\n    from tfbn.compat.tf1 import contrib as tc\n    return tc",
        ),
        (
            "from tensorflow.contrib import (  # here\n    slim,  # there\n    layers as L,\n)",
            "from tfbn.compat.tf1.contrib import (  # here\n    slim,  # there\n    layers as L,\n)",
        ),
        (
            "from tensorflow.contrib import \\\n    slim as s",
            "from tfbn.compat.tf1.contrib import \\\n    slim as s",
        ),
        ("é = 1; import tensorflow as tf", "é = 1; from tfbn.compat import tf1 as tf"),
    ],
)
def test_lines_of_programs_of_tensorflow_1(before, expected):
    assert after(f"import tensorflow as tf\n{before}{SIGN}") == (
        f"from tfbn.compat import tf1 as tf\n{expected}{SIGN}"
    )
    assert after(after(before + SIGN)) == after(before + SIGN)


@pytest.mark.parametrize(
    "line",
    [
        "import tensorflow.keras.layers as L",
        "from tensorflow.keras import layers",
        "from tensorflow.python.framework import ops",
        "import tensorflow.python.ops.nn as nn",
        "from tensorflow.examples.tutorials.mnist import input_data",
        "import tensorflow.contrib.rnn as rnn",
        "from tensorflow.contrib.nothing import name",
        "from tensorflow.contrib import nothing",
        "from tensorflow.contrib.training import HParams",
        "from tensorflow import estimator",
        "import tensorflow.compat.v1.train.experimental as e",
        "from tensorflow.contrib.slim.nothing import name",
        "from tensorflow.compat.v1.nn import relu",
        "from .tensorflow import contrib",
        "from tensorflow_hub import contrib",
        "import tensorflow_probability as tfp",
        "from tensorflow.contrib import (rnn,  # of a name\n  slim)",
        "text = 'import tensorflow as tf'",
        "tf.compat.v1.disable_v2_behavior()",
        "slim = tf.contrib.slim",
        "# import tensorflow as tf",
    ],
)
def test_lines_that_stay(line):
    assert after(f"import tensorflow as tf\n{line}{SIGN}") == (
        f"from tfbn.compat import tf1 as tf\n{line}{SIGN}"
    )


@pytest.mark.parametrize(
    ("program", "changed"),
    [
        ("import tensorflow as tf\ntf.get_variable('w')", True),
        ("import tensorflow as tf\ntf.layers.dense(x, 3)", True),
        ("import tensorflow as tf\ntf.contrib.layers.fully_connected(x, 3)", True),
        ("import tensorflow as tf\ntf.train.AdamOptimizer(0.1)", True),
        ("import tensorflow as tf\nwith tf.Session(): pass", True),
        ("import tensorflow as tf\nfrom tensorflow.contrib import slim\ntf.nn.relu(x)", True),
        ("import tensorflow.compat.v1 as tf\ntf.placeholder(tf.float32)", True),
        ("import tensorflow as tf\n@tf.function\ndef f(x): return tf.nn.relu(x)", False),
        ("import tensorflow as tf\ntf.keras.layers.Dense(3)", False),
        ("import tensorflow as tf\ntf.compat.v1.Session()", False),
        ("import tensorflow as tf\ntf.train.Checkpoint()", False),
        ("import tensorflow as tf\nother.placeholder('w')", False),
        ("import tensorflow as tf\nfrom .tensorflow import placeholder", False),
        ("import tensorflow as tf\nimport tf_slim as slim\nslim.conv2d(x, 3, 3)", False),
        ("import tensorflow.compat.v1 as tf\ntf.nn.relu(x)", False),
    ],
)
def test_programs_of_tensorflow_1_alone_are_changed(program, changed):
    text, findings = migrated(program)
    assert (text != program) is changed
    left = [finding for finding in findings if finding.text.startswith("left as it is")]
    assert bool(left) is not changed
    assert all(finding.line == 1 for finding in left)


def test_a_file_with_both_has_both():
    program = (
        "import tensorflow as tf2\nimport tensorflow.compat.v1 as tf\ntf.Session()\ntf2.nn.relu(x)\n"
    )
    expected = program.replace("import tensorflow.compat.v1 as tf", "from tfbn.compat import tf1 as tf")
    text, findings = migrated(program)
    assert text == expected.replace("tf1 as tf\n", "tf1 as tf\ntf.enable()\n")
    assert "left as it is: tf2 is TensorFlow 2 in this file." in [finding.text for finding in findings]
    assert after(text) == text


HEAD, NEW = "import tensorflow as tf  # TF\n", "from tfbn.compat import tf1 as tf  # TF\n"


@pytest.mark.parametrize(
    ("rest", "switched"),
    [
        ("x = tf.placeholder(tf.float32)\n", True),
        ("with tf.Session() as s:\n    pass\n", True),
        ("class Net:\n    x = tf.placeholder(tf.float32)\n", True),
        ("def main(_):\n    tf.Session()\ntf.app.run()\n", True),
        ("def main():\n    tf.Session()\nif __name__ == '__main__':\n    main()\n", True),
        ("def f():\n    return tf.placeholder(tf.float32)\n", False),  # for others to import
        ("def f(x):\n    return tf.layers.dense(x, 3)\n", False),
        ("tf.disable_v2_behavior()\ntf.Session()\n", False),
        ("tf.compat.v1.disable_eager_execution()\ntf.Session()\n", False),
        ("tf.enable_eager_execution()\nx = tf.placeholder\n", False),
        ("import keras\ntf.Session()\n", False),  # Keras 3 would not run then
        ("tf.keras.layers.Dense(3)\ntf.Session()\n", False),
    ],
)
def test_programs_that_run_a_graph_switch_tensorflow(rest, switched):
    assert after(HEAD + rest) == NEW + "tf.enable()\n" * switched + rest
    assert after(after(HEAD + rest)) == after(HEAD + rest)


@pytest.mark.parametrize(
    ("before", "expected"),
    [
        (
            "import os, tensorflow as tf\ntf.Session()",
            "import os\nfrom tfbn.compat import tf1 as tf\ntf.enable()\ntf.Session()",
        ),
        (
            "import tensorflow as tf; import os\ntf.Session()",
            "from tfbn.compat import tf1 as tf; tf.enable(); import os\ntf.Session()",
        ),
        (
            "def f():\n  import tensorflow as tf\nimport tensorflow as tf\ntf.Session()",
            "def f():\n  from tfbn.compat import tf1 as tf\n"
            "from tfbn.compat import tf1 as tf\ntf.enable()\ntf.Session()",
        ),
        (
            "try:\n  import tensorflow.compat.v1 as tf\nexcept E:\n  import tensorflow as tf\n"
            "tf.Session()",
            "try:\n  from tfbn.compat import tf1 as tf\n  tf.enable()\nexcept E:\n"
            "  from tfbn.compat import tf1 as tf\ntf.Session()",
        ),
    ],
)
def test_where_tensorflow_is_switched(before, expected):
    assert after(before) == expected
