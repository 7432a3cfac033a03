"""Where the operations that are being built will run: compiled by XLA, or on a GPU."""

from __future__ import annotations

import os
from typing import Any

import tensorflow as tf


def has_gpu() -> bool:
    """Whether there is a GPU that TensorFlow uses: programs hide those that they leave to others."""
    return bool(tf.config.get_visible_devices("GPU"))


def has_onednn() -> bool:
    """Whether oneDNN computes what it can.

    Private TensorFlow API, used here only: whether it does depends on the processor, the build and the
    environment, and no public function tells. Where it no longer exists, the answer is no, which only
    costs time, and `tests/test_runtime.py` fails by name.
    """
    try:
        from tensorflow.python.util import _pywrap_util_port  # noqa: PLC0415
    except ImportError:
        return False
    return bool(_pywrap_util_port.IsMklEnabled())


def freeze(function: Any) -> Any:
    """A concrete function with its variables made constants, and the functions that it calls inlined.

    Private TensorFlow API, used here only: the public one is for sessions. Where it no longer exists,
    `tests/test_runtime.py` fails by name.

    Raises:
        ImportError: this TensorFlow does not have it.
    """
    from tensorflow.python.framework.convert_to_constants import (  # noqa: PLC0415
        convert_variables_to_constants_v2,
    )

    logger = tf.get_logger()
    level = logger.level
    logger.setLevel("ERROR")  # it warns of collections of the graph, which nobody asked for
    try:
        return convert_variables_to_constants_v2(
            function, lower_control_flow=False, aggressive_inlining=True
        )
    finally:
        logger.setLevel(level)


def in_function() -> bool:
    """Whether the graph of a `tf.function` is being built."""
    graph = tf.compat.v1.get_default_graph()
    return not tf.executing_eagerly() and graph.building_function


def outermost_graph() -> tf.Graph:
    """The graph that is being built, or the one around it that no other function's is around.

    Private TensorFlow API, used here only: graphs do not tell what is around them. Where it no longer
    exists, the answer is the graph itself, and `tests/test_runtime.py` fails by name.
    """
    graph = tf.compat.v1.get_default_graph()
    outer = getattr(graph, "outer_graph", None)
    while outer is not None and outer.building_function:
        graph, outer = outer, getattr(outer, "outer_graph", None)
    return graph


def inside_wrap_function() -> bool:
    """Whether `tf.compat.v1.wrap_function` builds the graph or one around it: its `prune` copies it.

    The graph's name is the only sign. Where it has another one, `tests/test_runtime.py` fails by name.
    """
    graph = tf.compat.v1.get_default_graph()
    while graph is not None and not getattr(graph, "name", "").startswith("wrapped_function"):
        graph = getattr(graph, "outer_graph", None)
    return graph is not None


def has_tangents(*tensors: tf.Tensor | None) -> bool:
    """Whether a `tf.autodiff.ForwardAccumulator` that is active has tangents of any of the tensors.

    Private TensorFlow API, used here only: an accumulator tells of its own only. Where it no longer
    exists, the answer is no, and `tests/test_runtime.py` fails by name.
    """
    try:
        from tensorflow.python.eager.forwardprop_util import pack_tangents  # noqa: PLC0415
    except ImportError:
        return False
    return bool(pack_tangents([tensor for tensor in tensors if tensor is not None]).tangents)


def inside_xla() -> bool:
    """Whether the graph being built is to be compiled by XLA, or may be by its auto-clustering.

    Where `surely_inside_xla` cannot know, the answer is yes, which is slower and correct.
    """
    if tf.executing_eagerly():
        return False
    if tf.config.optimizer.get_jit() or "auto_jit" in os.environ.get("TF_XLA_FLAGS", ""):
        return True
    return surely_inside_xla(unknown=True)


def surely_inside_xla(unknown: bool = False) -> bool:
    """Whether the graph being built is to be compiled by XLA. On a CPU, auto-clustering often is none.

    Private TensorFlow API, used here only: no public one tells. Where it no longer exists, the answer is
    `unknown`, and `tests/test_runtime.py` fails by name.
    """
    try:
        from tensorflow.python.ops.control_flow_util import (  # noqa: PLC0415
            GraphOrParentsInXlaContext,
        )
    except ImportError:
        return unknown
    return GraphOrParentsInXlaContext(tf.compat.v1.get_default_graph())
