"""TensorFlow 1's names: the table holds, `tf.contrib` in every spelling, and nothing else is touched."""

import builtins
import importlib
import sys

import pytest
import tensorflow as tf
import tf_slim

from tfbn import compat
from tfbn.compat import tf1
from tfbn.compat.tf1 import symbols

HERE = "tfbn.compat.tf1"


@pytest.mark.parametrize("path", symbols.MODULES)
def test_every_module_of_the_table_is_there_with_all_its_names(path):
    module = importlib.import_module(f"{HERE}.{path}")
    known = symbols.MODULES[path]
    names = {*known.names, *known.differs}
    for source in known.sources:
        names |= set(getattr(importlib.import_module(source), "__all__", ()))
    names = {name for name in names if f"{path}.{name}" not in symbols.GONE}
    for name in names:
        assert hasattr(module, name)
    assert names <= set(module.__all__) <= set(dir(module))
    everything = {}
    exec(f"from {HERE}.{path} import *", everything)
    assert names <= everything.keys()
    if path != "contrib.slim.python":
        inside = path.split(".")
        found = tf1
        for part in inside:
            found = getattr(found, part)
        assert found is module


def test_batch_norm_is_that_of_the_last_releases_everywhere():
    ours = tf1.contrib.layers.batch_norm
    assert tf1.contrib.slim.batch_norm is ours
    assert importlib.import_module(f"{HERE}.contrib.layers.python.layers").batch_norm is ours
    with tf.Graph().as_default():
        x = tf1.placeholder("float32", (4, 3))
        for fused, want in ((None, 1 / 3), (True, 1 / 3), (False, 1 / 4)):
            with tf1.variable_scope(f"fused_{fused}"), tf1.Session() as session:
                ours(x, 0.0, True, False, 0.001, None, {}, None, None, True, fused=fused)
                y = ours(x, decay=0.0, updates_collections=None, fused=fused, scope="again")
                session.run(tf1.global_variables_initializer())
                session.run(y, {x: [[1, 1, 1], [0, 0, 0], [0, 0, 0], [0, 0, 0]]})
                variance = session.run(tf1.global_variables()[-1])
                assert variance == pytest.approx([want * 3 / 4] * 3)


def test_compat_batch_norm_refuses_the_order_of_the_last_releases():
    with tf.Graph().as_default():
        x = tf1.placeholder("float32", (4, 3))
        for seventh in (None, {"beta": tf1.zeros_initializer()}):
            with pytest.raises(
                ValueError, match="The seventh argument .* is updates_collections, received"
            ):
                compat.batch_norm(x, 0.9, True, False, 0.001, None, seventh)
        compat.batch_norm(x, 0.9, True, False, 0.001, None, "mine")
        assert len(tf1.get_collection("mine")) == 2


def test_it_has_all_of_tensorflow_1_that_tensorflow_2_has():
    for name in (
        "placeholder",
        "Session",
        "get_variable",
        "app",
        "train",
        "nn",
        "float32",
        "AUTO_REUSE",
    ):
        assert getattr(tf1, name) is getattr(tf.compat.v1, name)
    assert tf1.__version__ == tf.__version__
    assert {"contrib", "layers", "enable", "Session"} <= set(dir(tf1))
    assert tf1.compat.v1 is tf1
    assert tf1.compat.as_bytes("x") == b"x"
    with pytest.raises(AttributeError):
        _ = tf1.no_such_name


@pytest.mark.parametrize(
    ("path", "advice"),
    [
        ("contrib.rnn", "Use keras.layers.LSTM, GRU or RNN"),
        ("contrib.training.HParams", "Use a dataclass, or types.SimpleNamespace"),
        ("contrib.nothing", "docs/migrating.md"),
        ("contrib.layers.nothing", "docs/migrating.md"),
        ("estimator", "call the model function yourself"),
    ],
)
def test_what_is_not_there_is_said_where_it_is_used(path, advice):
    *parts, last = path.split(".")
    module = tf1
    for part in parts:
        module = getattr(module, part)
    with pytest.raises(AttributeError, match=rf"^tf\.{path} of TensorFlow 1 is not in .*{advice}"):
        getattr(module, last)
    assert not hasattr(module, last)
    if path.startswith("contrib"):
        with pytest.raises(ImportError):
            importlib.import_module(f"{HERE}.{path}")


SPELLINGS = """
import tensorflow.contrib
import tensorflow.contrib as contrib
import tensorflow.contrib.slim as slim
import tensorflow.contrib.layers
from tensorflow.contrib import layers, slim as other_slim, framework
from tensorflow.contrib.layers import batch_norm as bn, fully_connected
from tensorflow.contrib.layers.python.layers import batch_norm, initializers, utils
from tensorflow.contrib.framework.python.ops import add_arg_scope, arg_scope
from tensorflow.contrib.framework import nest
from tensorflow.contrib.slim.nets import resnet_v1, inception
from tensorflow.contrib.slim.python.slim.nets import vgg
from tensorflow.contrib.losses.python.losses import loss_ops
from tensorflow.contrib.metrics.python.ops import metric_ops
from tensorflow.contrib.training.python.training import training
from tensorflow.contrib.layers import *
"""


def test_contrib_in_every_spelling_and_undone():
    tensorflow, finders = sys.modules["tensorflow"], list(sys.meta_path)
    names = {}
    with compat.install_contrib():
        exec(SPELLINGS, names)
        assert tf.contrib is names["contrib"]
        assert tf.contrib.slim is names["slim"] is names["other_slim"]
        assert names["tensorflow"] is tensorflow is sys.modules["tensorflow"]
    assert (
        names["bn"] is names["batch_norm"] is names["layers"].batch_norm is tf1.contrib.layers.batch_norm
    )
    assert names["xavier_initializer"] is tf_slim.xavier_initializer
    assert names["arg_scope"] is compat.arg_scope
    assert names["nest"] is tf.compat.v1.nest
    assert (
        names["resnet_v1"].resnet_v1_50 is importlib.import_module("tf_slim.nets.resnet_v1").resnet_v1_50
    )
    # What was imported goes on working, and nothing else is left.
    assert names["slim"].conv2d is tf_slim.conv2d
    assert not hasattr(tf, "contrib")
    assert not [name for name in sys.modules if name.startswith("tensorflow.contrib")]
    assert sys.meta_path == finders
    with pytest.raises(ModuleNotFoundError):
        exec("import tensorflow.contrib", {})


def test_what_contrib_had_and_this_has_not_is_said_at_the_import():
    with (
        compat.install_contrib(),
        pytest.raises(ModuleNotFoundError, match="Use keras.layers.LSTM, GRU or RNN"),
    ):
        exec("from tensorflow.contrib import layers; from tensorflow.contrib.rnn import LSTMCell", {})


def test_installed_twice_it_is_undone_once_both_are_left():
    with compat.install_contrib() as outer, compat.install_contrib(), outer:
        assert tf.contrib.layers
    assert not hasattr(tf, "contrib")


OLD = """
import tensorflow as tf
import tensorflow
from tensorflow import contrib, layers
import tensorflow.contrib.layers as contrib_layers
from tensorflow.python.framework import ops
import tensorflow.nn as nn, tensorflow.losses as losses
import tensorflow.layers as layers_by_name
from tensorflow.layers import batch_normalization
from tensorflow.train import AdamOptimizer
from tensorflow.compat.v1.layers import conv2d
import tensorflow.keras.layers as keras_layers
placeholder, dense = tf.placeholder, tf.layers.dense
"""


def test_programs_get_tensorflow_1_and_others_do_not(tmp_path, monkeypatch):
    for folder in ("old", "new", "old/site-packages"):
        (tmp_path / folder).mkdir()
    (tmp_path / "old" / "old_program.py").write_text(OLD)
    (tmp_path / "new" / "new_program.py").write_text("import tensorflow as tf\n")
    (tmp_path / "old" / "site-packages" / "an_installed_one.py").write_text("import tensorflow as tf\n")
    for folder in ("old", "new", "old/site-packages"):
        monkeypatch.syspath_prepend(tmp_path / folder)
    before = builtins.__import__
    with compat.install_contrib(programs=tmp_path / "old"):
        old = importlib.import_module("old_program")
        for name in ("new_program", "an_installed_one"):
            assert importlib.import_module(name).tf is tf
    assert builtins.__import__ is before
    assert old.tf is old.tensorflow is tf1
    assert old.contrib is tf1.contrib
    assert old.layers.dense is old.dense is tf1.layers.dense
    assert old.contrib_layers is tf1.contrib.layers
    # Names that TensorFlow 2 has, too, with other arguments: dropout(x, keep_prob), say.
    assert old.nn is tf.compat.v1.nn
    assert old.losses.softmax_cross_entropy is tf.compat.v1.losses.softmax_cross_entropy
    assert old.AdamOptimizer is tf.compat.v1.train.AdamOptimizer
    assert old.layers_by_name is tf1.layers
    assert old.batch_normalization is tf1.layers.batch_normalization
    assert old.conv2d is tf1.layers.conv2d
    assert old.keras_layers.Dense is tf.keras.layers.Dense
    assert old.ops is sys.modules["tensorflow.python.framework.ops"]


def test_a_program_is_told_what_is_gone(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "mnist_program.py").write_text(
        "from tensorflow.examples.tutorials.mnist import input_data\n"
    )
    with (
        compat.install_contrib(programs=tmp_path),
        pytest.raises(ModuleNotFoundError, match=r"Use keras\.datasets\.mnist\.load_data\(\)"),
    ):
        importlib.import_module("mnist_program")


def test_programs_must_be_a_folder(tmp_path):
    with pytest.raises(NotADirectoryError, match="programs must be the folder of the old program"):
        compat.install_contrib(programs=tmp_path / "nothing")
    assert not hasattr(tf, "contrib")


def test_without_tf_slim_the_error_names_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "tf_slim", None)
    lookup = importlib.import_module(f"{HERE}.namespace.lookup")
    lookup._with_our_batch_norm.cache_clear()
    module = importlib.import_module(f"{HERE}.contrib.layers")
    with pytest.raises(ImportError, match=r"pip install tf-slim==1\.1\.0"):
        _ = module.fully_connected
    assert importlib.import_module(f"{HERE}.contrib.framework").arg_scope is compat.arg_scope
