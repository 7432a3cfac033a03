"""Where the operations that are being built will run: compiled by XLA, or on a GPU."""

from __future__ import annotations

import os

import tensorflow as tf


def has_gpu() -> bool:
    return bool(tf.config.list_physical_devices("GPU"))


def inside_xla() -> bool:
    """Whether the graph being built is to be compiled by XLA, or may be by its auto-clustering.

    Private TensorFlow API, used here only: no public one tells. Where it no longer exists, the answer is
    yes, which is slower and correct, and `tests/test_runtime.py` fails by name.
    """
    try:
        from tensorflow.python.ops.control_flow_util import (  # noqa: PLC0415
            GraphOrParentsInXlaContext,
        )
    except ImportError:
        return True
    if tf.config.optimizer.get_jit() or "auto_jit" in os.environ.get("TF_XLA_FLAGS", ""):
        return True
    return GraphOrParentsInXlaContext(tf.compat.v1.get_default_graph())
