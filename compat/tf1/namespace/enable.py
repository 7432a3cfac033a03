"""`tf1.enable`: TensorFlow behaves as its first version."""

from __future__ import annotations

import tensorflow as tf

SWITCHED = (
    "TensorFlow 1's behaviour is on (tf.compat.v1.disable_v2_behavior): graphs and sessions in place of "
    "eager execution, shapes of Dimension values (shape[0].value), its variables and control flow. "
    "Keras 3 layers do not run in this process any more."
)


def enable() -> str:
    """Switch what a program of TensorFlow 1 needs, for the whole process, before any tensor is made.

    Call it in programs that run sessions. Not where Keras 3 runs: code that builds a network there goes
    into a `compat.VariableScopeLayer`, as it is.

    Returns:
        What was switched, in words.

    Raises:
        ValueError: tensors or functions exist already, which TensorFlow cannot switch under.
    """
    tf.compat.v1.disable_v2_behavior()
    return SWITCHED
