"""Whether XLA compiles is seen while the graph is built; weights made constants."""

import pytest
import tensorflow as tf
from tensorflow.python.eager import forwardprop_util
from tensorflow.python.framework import convert_to_constants
from tensorflow.python.ops import control_flow_util

from tfbn import runtime

pytestmark = pytest.mark.both


def test_xla_is_seen():
    assert hasattr(control_flow_util, "GraphOrParentsInXlaContext"), (
        "control_flow_util.GraphOrParentsInXlaContext has moved: find its successor for "
        "runtime.surely_inside_xla; runtime.inside_xla answers yes meanwhile, in every graph, and the "
        "fused kernel is not used"
    )
    seen = []

    def look(x):
        seen.append(runtime.inside_xla())
        return x

    look(tf.ones(1))
    tf.function(look)(tf.ones(1))
    tf.function(tf.function(look), jit_compile=True)(tf.ones(1))
    tf.function(lambda x: tf.while_loop(lambda x: x < 2, lambda x: look(x) + 1, [x]), jit_compile=True)(
        1.0
    )
    assert seen == [False, False, True, True]


def test_the_outermost_graph_is_found():
    found = []

    def look(x):
        found.append(runtime.outermost_graph())
        return x

    @tf.function(autograph=False)
    def outer(x):
        found.append(tf.compat.v1.get_default_graph())
        return tf.cond(x > 0, lambda: tf.function(look)(x), lambda: x)

    outer(tf.ones([]))
    assert found[1] is found[0], (
        "FuncGraph.outer_graph has moved: find its successor for runtime.outermost_graph; meanwhile "
        "each inner function has room of its own for compiled shapes"
    )
    tf.function(look)(tf.ones([]))
    assert found[2] is not found[0]


def test_graphs_that_are_copied_are_seen():
    """By the name of wrap_function's graph: if it has another one, look for it there."""
    seen = []

    def look(x):
        seen.append(runtime.inside_wrap_function())
        return x

    def inside(x):
        return tf.cond(x > 0, lambda: tf.function(look)(x), lambda: look(x))

    tf.function(inside)(tf.ones([]))
    assert not any(seen)
    seen.clear()
    tf.compat.v1.wrap_function(inside, [tf.TensorSpec([])])
    assert all(seen)
    assert seen


def test_tangents_are_seen():
    assert hasattr(forwardprop_util, "pack_tangents"), (
        "forwardprop_util.pack_tangents has moved: find its successor for runtime.has_tangents; "
        "meanwhile forward accumulation in a tf.function gives zeros where the fused kernel computes"
    )
    x, other = tf.ones(2), tf.ones(2)
    with tf.autodiff.ForwardAccumulator(x, x):
        y = x + other
        assert runtime.has_tangents(other, y)
        assert not runtime.has_tangents(other)
    assert not runtime.has_tangents(y)


def test_auto_clustering_is_xla_too_but_not_surely(monkeypatch):
    """It clusters what is in graphs, and on a CPU often nothing."""
    monkeypatch.setenv("TF_XLA_FLAGS", "--tf_xla_auto_jit=2")
    assert not runtime.inside_xla()
    with tf.Graph().as_default():
        assert runtime.inside_xla()
        assert not runtime.surely_inside_xla()
        monkeypatch.undo()
        assert not runtime.inside_xla()


def test_a_gpu_is_seen(monkeypatch):
    monkeypatch.setattr(tf.config, "get_visible_devices", lambda kind: [kind])
    assert runtime.has_gpu()


def test_a_gpu_that_the_program_hides_is_none(monkeypatch):
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind=None: [kind])
    assert not runtime.has_gpu()


def test_weights_are_made_constants():
    assert hasattr(convert_to_constants, "convert_variables_to_constants_v2"), (
        "convert_to_constants.convert_variables_to_constants_v2 has moved: find its successor for "
        "runtime.freeze, without which nothing but Keras models is exported"
    )
    variable = tf.Variable([1.0, 2.0])
    inner = tf.function(lambda x: x * variable)
    function = tf.function(lambda x: inner(x) + variable)
    frozen = runtime.freeze(function.get_concrete_function(tf.TensorSpec((None, 2))))
    kinds = {node.op for node in frozen.graph.as_graph_def().node}
    assert not [kind for kind in kinds if "Variable" in kind or "Call" in kind]
    x = tf.constant([[3.0, 4.0]])
    (found,) = frozen(x)
    assert found.numpy().tolist() == function(x).numpy().tolist() == [[4.0, 10.0]]


def test_freezing_does_not_change_what_tensorflow_logs():
    level = tf.get_logger().level
    runtime.freeze(tf.function(lambda: tf.constant(1.0)).get_concrete_function())
    assert tf.get_logger().level == level
