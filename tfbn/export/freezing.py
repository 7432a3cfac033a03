"""Weights as constants of the SavedModel's graph.

TensorFlow's optimizer then prepares them once, before the first answer, and fuses what it cannot fuse
with variables. Answers come sooner from then on, and the SavedModel takes more memory.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import keras
import tensorflow as tf

from ..messages import join_some, one_line

Call = Callable[[Any], Any]

# Weights of up to so many bytes become constants unless told otherwise. To serve ResNet50, TensorFlow
# 2.21 takes 16 times the size of its weights at first, 9 times from then on, and 2 seconds to start;
# with variables it takes 3 times their size and half a second.
AUTOMATIC_BYTES = 40_000_000

# A protocol buffer ends at 2 GiB, and the rest of the graph is in it too.
POSSIBLE_BYTES = 2_000_000_000


def archive(
    model: keras.Model, call: Call, specification: Any, freeze: bool | None
) -> tuple[keras.export.ExportArchive, str]:
    """What Keras writes as a SavedModel: `call`, traced, with what it needs.

    Args:
        model: what `call` calls.
        specification: of the argument of `call`.
        freeze: as `tfbn.export` takes it.

    Returns:
        The archive, and why the weights are variables in it; `""` where they are constants.

    Raises:
        ValueError: `freeze` is true, and they cannot be constants.
    """
    with_variables, function = _traced(model, call, specification)
    for name in ("variables", "trainable_variables", "non_trainable_variables"):
        with_variables.add_variable_collection(name, [one.value for one in getattr(model, name)])
    reason = reason_for_variables(model, freeze)
    if reason:
        return with_variables, reason
    try:
        # An inner tf.function caches its trace; after the export it would still hold our constants.
        if any("PartitionedCall" in one for one in _operations(function.graph)):
            raise ValueError("a layer calls a tf.function")
        return _with_constants(model, call, specification), ""
    except Exception as error:  # Layers that need variables may raise anything.
        reason = f"they cannot be constants: {one_line(error).rstrip('.')}"
        if freeze:
            raise ValueError(
                f"With the weights of {model.name!r}, {reason}. Leave freeze= out."
            ) from error
        return with_variables, reason


def reason_for_variables(model: keras.Model, freeze: bool | None) -> str:
    """Why the size of the weights, or the caller, wants variables; `""` if neither does.

    Raises:
        ValueError: `freeze` is true, and they are too large for that.
    """
    size = sum(math.prod(one.shape) * tf.as_dtype(one.dtype).size for one in model.variables)
    if freeze and size > POSSIBLE_BYTES:
        raise ValueError(
            f"The weights of {model.name!r} are {size / 1e9:.1f} GB, and a SavedModel's graph holds at "
            f"most {POSSIBLE_BYTES / 1e9:.1f} GB of constants. Leave freeze= out."
        )
    if freeze is False:
        return "freeze=False"
    if freeze is None and size > AUTOMATIC_BYTES:
        told = "" if size > POSSIBLE_BYTES else "; freeze=True makes them constants all the same"
        return f"they are {size / 1e6:.0f} MB, above {AUTOMATIC_BYTES / 1e6:.0f} MB{told}"
    return ""


class _Constants(keras.StatelessScope):
    """Values for variables, and the paths of those, these or others, that are written to."""

    def __init__(self, values: Any) -> None:
        super().__init__(values, collect_losses=True)  # else `add_loss` would be lost
        self.written: list[str] = []

    def add_update(self, update: Any) -> None:
        self.written.append(update[0].path)
        super().add_update(update)


def _with_constants(model: keras.Model, call: Call, specification: Any) -> keras.export.ExportArchive:
    values = [(one, one.numpy()) for one in model.variables]
    written: list[str] = []

    def call_with_constants(inputs: Any) -> Any:
        with _Constants(values) as scope:
            outputs = call(inputs)
        written.extend(scope.written)
        return outputs

    archive, function = _traced(model, call_with_constants, specification)
    if written:
        raise ValueError(f"a call writes to {join_some(written)}")
    if function.variables:
        names = [one.name for one in function.variables]
        raise ValueError(f"a layer reads variables that are not Keras' own: {join_some(names)}")
    return archive


def _traced(
    model: keras.Model, call: Call, specification: Any
) -> tuple[keras.export.ExportArchive, Any]:
    """An archive of the call, and the call as a concrete function."""
    archive = keras.export.ExportArchive()
    # For its tables. Of a model as such, Keras would write each variable twice.
    tables = tf.Module()
    tables.model = model
    archive.track(tables)
    function = archive.add_endpoint("serve", call, input_signature=[specification])
    return archive, function.get_concrete_function()


def _operations(graph: tf.Graph) -> set[str]:
    """The types of all operations, those in branches and loops too."""
    definition = graph.as_graph_def()
    inside = (node for function in definition.library.function for node in function.node_def)
    return {node.op for node in (*definition.node, *inside)}
