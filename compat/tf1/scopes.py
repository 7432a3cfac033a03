"""Where TF1-style code puts things: variables in scopes, tensors and operations in collections."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import tensorflow as tf

from ... import runtime

Collections = str | Sequence[str] | None
KEYS = tf.compat.v1.GraphKeys


def check_owner(function: str) -> None:
    """Raise unless a variable that is made here will belong to a graph or a layer.

    Raises:
        ValueError: eager execution, or a tf.function outside any `VariableScopeLayer`.
    """
    with tf.init_scope():
        in_a_graph = not tf.executing_eagerly()
    if in_a_graph or tf.compat.v1.get_variable_scope().custom_getter:
        return
    if runtime.inside_wrap_function():  # which keeps its graph's variables
        return
    raise ValueError(
        f"compat.{function} was called {'eagerly' if tf.executing_eagerly() else 'in a tf.function'}"
        ", outside any layer: it would make variables that nobody keeps or trains. Wrap the code in "
        f"compat.VariableScopeLayer(function), which keeps them, or build a functional model: call "
        f"compat.{function} on a keras.Input."
    )


def create_variable(
    name: str,
    *,
    collections: Collections | Mapping[str, Collections] = None,
    model: bool = True,
    statistic: bool = False,
    **arguments: Any,
) -> Any:
    """`tf.compat.v1.get_variable` in the current scope, as contrib's layers used it.

    Args:
        name: within the scope.
        collections: those it joins besides GLOBAL_VARIABLES, or a mapping from names of variables to
            such collections.
        model: whether it is one of MODEL_VARIABLES.
        statistic: whether it is a moving statistic. These are never partitioned, because an update
            assigns the whole variable.
        **arguments: of `get_variable`.
    """
    more = of_variable(collections, name)
    keys = [KEYS.GLOBAL_VARIABLES, *([KEYS.MODEL_VARIABLES, *more] if model else [])]
    scope = tf.compat.v1.get_variable_scope()
    partitioner = scope.partitioner
    if statistic:
        scope.set_partitioner(None)
    try:
        return tf.compat.v1.get_variable(name, collections=keys, **arguments)
    finally:
        scope.set_partitioner(partitioner)


def collect(collections: Collections, value: Any) -> None:
    """Add to each collection."""
    for name in names_of(collections):
        tf.compat.v1.add_to_collection(name, value)


def collect_output(collections: Collections, name: str, outputs: tf.Tensor) -> tf.Tensor:
    """The output, added to each collection under the name of its scope, as contrib did."""
    if collections:
        outputs.aliases = [*getattr(outputs, "aliases", []), name]
        collect(collections, outputs)
    return outputs


def of_variable(collections: Collections | Mapping[str, Collections], name: str) -> list[str]:
    """The names of a variable's collections, of one argument for all variables."""
    return names_of(collections.get(name) if isinstance(collections, Mapping) else collections)


def names_of(collections: Collections) -> list[str]:
    """The names of collections, of which there may be one, several or none."""
    return [collections] if isinstance(collections, str) else list(collections or ())
