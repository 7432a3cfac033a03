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
from .servable import Servable

Call = Callable[[Any], Any]

# Weights of up to so many bytes become constants unless told otherwise. To serve ResNet50, TensorFlow
# 2.21 takes 16 times the size of its weights at first, 9 times from then on, and 2 seconds to start;
# with variables it takes 3 times their size and half a second.
FREEZE_UP_TO_BYTES = 40_000_000

# A protocol buffer ends at 2 GiB, and the rest of the graph is in it too.
GRAPHDEF_LIMIT_BYTES = 2_000_000_000


def archive(
    servable: Servable, call: Call, freeze: bool | None
) -> tuple[keras.export.ExportArchive, str]:
    """What Keras writes as a SavedModel: `call`, traced, with what it needs.

    Args:
        call: the servable's, or one around it.
        freeze: as `tfbn.export` takes it.

    Returns:
        The archive, and why the weights are variables in it; `""` where they are constants.

    Raises:
        ValueError: `freeze` is true, and they cannot be constants.
    """
    owner = servable.owner
    with_variables, function = _traced(servable, call)
    for name in ("variables", "trainable_variables", "non_trainable_variables"):
        variables = [variable.value for variable in getattr(owner, name)]
        with_variables.add_variable_collection(name, variables)
    reason = unfrozen_because(owner, freeze)
    if reason:
        return with_variables, reason
    try:
        called = _called(function.graph)
        # A tf.function that lives on caches its trace, which after the export would still hold our
        # constants. A second trace of the model finds it in the cache, under the same name. Those that
        # are made by each call, as Keras makes one for a grouped convolution, die with it.
        if called and called & _called(_traced(servable, call)[1].graph):
            raise ValueError("a layer calls a tf.function")
        return _with_constants(servable, call), ""
    except Exception as error:  # Layers that need variables may raise anything.
        reason = f"they cannot be constants: {one_line(error).rstrip('.')}"
        if freeze:
            raise ValueError(
                f"With the weights of {servable.name!r}, {reason}. Leave freeze= out."
            ) from error
        return with_variables, reason


def size_of(owner: Any) -> int:
    """Bytes of the weights."""
    return sum(math.prod(weight.shape) * tf.as_dtype(weight.dtype).size for weight in owner.variables)


def unfrozen_because(owner: Any, freeze: bool | None) -> str:
    """Why the size of the weights, or the caller, wants variables; `""` if neither does.

    Args:
        owner: what holds the weights, with a name.

    Raises:
        ValueError: `freeze` is true, and they are too large for that.
    """
    return reason_for(size_of(owner), freeze, repr(owner.name))


def reason_for(size: int, freeze: bool | None, what: str) -> str:
    """See `unfrozen_because`; `size` is that of the weights of `what`, in bytes."""
    if freeze and size > GRAPHDEF_LIMIT_BYTES:
        raise ValueError(
            f"The weights of {what} are {size / 1e9:.1f} GB, and a SavedModel's graph holds at "
            f"most {GRAPHDEF_LIMIT_BYTES / 1e9:.1f} GB of constants. Leave freeze= out."
        )
    if freeze is False:
        return "freeze=False"
    if freeze is None and size > FREEZE_UP_TO_BYTES:
        told = "" if size > GRAPHDEF_LIMIT_BYTES else "; freeze=True makes them constants all the same"
        return f"they are {size / 1e6:.0f} MB, above {FREEZE_UP_TO_BYTES / 1e6:.0f} MB{told}"
    return ""


class _Constants(keras.StatelessScope):
    """Values for variables, and the paths of those, these or others, that are written to."""

    def __init__(self, values: Any) -> None:
        super().__init__(values, collect_losses=True)  # else `add_loss` would be lost
        self.written: list[str] = []

    def add_update(self, update: Any) -> None:
        self.written.append(update[0].path)
        super().add_update(update)


def _with_constants(servable: Servable, call: Call) -> keras.export.ExportArchive:
    values = [(variable, variable.numpy()) for variable in servable.owner.variables]
    written: list[str] = []

    def call_with_constants(inputs: Any) -> Any:
        with _Constants(values) as scope:
            outputs = call(inputs)
        written.extend(scope.written)
        return outputs

    archive, function = _traced(servable, call_with_constants)
    if written:
        raise ValueError(f"a call writes to {join_some(written)}")
    if function.variables:
        names = [variable.name for variable in function.variables]
        raise ValueError(f"a layer reads variables that are not Keras' own: {join_some(names)}")
    return archive


def _traced(servable: Servable, call: Call) -> tuple[keras.export.ExportArchive, Any]:
    """An archive of the call, and the call as a concrete function."""
    archive = keras.export.ExportArchive()
    # For its tables. Of a model as such, Keras would write each variable twice.
    tables = tf.Module()
    tables.model = servable.owner
    archive.track(tables)
    function = archive.add_endpoint("serve", call, input_signature=[servable.specs])
    return archive, function.get_concrete_function()


def _called(graph: tf.Graph) -> set[str]:
    """The names of the traced functions that a graph calls, in branches and loops too."""
    definition = graph.as_graph_def()
    inside = (node for function in definition.library.function for node in function.node_def)
    nodes = (*definition.node, *inside)
    return {node.attr["f"].func.name for node in nodes if "PartitionedCall" in node.op}
