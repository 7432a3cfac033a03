"""Variables of TensorFlow 1 as it made them, `VariableV2`, which TensorFlow 2 runs and cannot freeze."""

from __future__ import annotations

from typing import Any

import numpy as np
import tensorflow as tf

from ...messages import one_line
from .signatures import inputs_of, of_named

VARIABLES = ("VariableV2", "Variable")
# Operations that pass a variable on, of which each has a twin for tensors.
PASSED_ON = {f"Ref{kind}": kind for kind in ("Identity", "Switch", "Merge", "Enter", "Exit")}
PASSED_ON |= {f"Ref{kind}": kind for kind in ("NextIteration", "Select")}


def without_reference_variables(function: Any, loaded: Any) -> Any:
    """A signature's function with such variables as constants, if it has some.

    Args:
        function: of a SavedModel of TensorFlow 1.
        loaded: what `tf.saved_model.load` gave, which has the values.

    Raises:
        ValueError: variables without a value.
    """
    names = [each.name for each in function.graph.get_operations() if each.type in VARIABLES]
    if not names or any(each.type.startswith("Assign") for each in function.graph.get_operations()):
        return function  # that they are written to is said where all kinds of variables are
    values = dict(zip(names, _values(loaded, names), strict=True))
    definition = function.graph.as_graph_def()
    for node in definition.node:
        node.op = PASSED_ON.get(node.op, node.op)
        if node.name in values:
            node.CopyFrom(_constant(node.name, values[node.name]))
    return _function(function, definition)


def _values(loaded: Any, names: list[str]) -> list[np.ndarray]:
    with loaded.graph.as_default():  # a function gives no references
        read = [tf.identity(loaded.graph.get_tensor_by_name(f"{name}:0")) for name in names]
    try:
        found = loaded.prune([], read)()
    except tf.errors.OpError as error:
        raise ValueError(
            "The variables of the SavedModel have no values: was it saved without its variables folder? "
            f"TensorFlow says: {one_line(error)}"
        ) from error
    return [value.numpy() for value in found]


def _constant(name: str, value: np.ndarray) -> Any:
    node = tf.compat.v1.NodeDef(name=name, op="Const")
    node.attr["dtype"].type = tf.as_dtype(value.dtype).as_datatype_enum
    node.attr["value"].tensor.CopyFrom(tf.make_tensor_proto(value))
    return node


def _function(function: Any, definition: Any) -> Any:
    """A function of the same signature with another graph."""
    specs = inputs_of(function)
    fed = [tensor.name for tensor in function.inputs]
    outputs = {name: tensor.name for name, tensor in function.structured_outputs.items()}

    def serve(**named: tf.Tensor) -> dict[str, tf.Tensor]:
        # TensorFlow feeds the inputs in the order of their names, and then what is captured.
        captured = [tf.raw_ops.Identity(input=tensor) for tensor in function.captured_inputs]
        given = dict(zip(fed, [*(named[name] for name in sorted(specs)), *captured], strict=True))
        found = tf.graph_util.import_graph_def(definition, given, list(outputs.values()), name="")
        return dict(zip(outputs, found, strict=True))

    return of_named(serve, specs)
