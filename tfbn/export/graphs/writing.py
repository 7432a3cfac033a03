"""Frozen functions written as a SavedModel, with their weights as constants or as variables."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import tensorflow as tf
from tensorflow.core.protobuf import saved_model_pb2

from ...messages import one_line
from .graph import Frozen
from .signatures import PREDICT, Signatures

SMALL = 1024  # bytes; what is no larger stays a constant


def write(signatures: Signatures, functions: Mapping[str, Frozen], variables: bool, path: Path) -> None:
    """Write a SavedModel.

    Args:
        signatures: which have the tables and method names.
        functions: by the names of the signatures.
        variables: whether weights become variables, of which functions share those that are equal.

    Raises:
        OSError: the system refuses it.
    """
    module = tf.Module()
    module.resources = _resources(signatures.holder, functions.values())
    weights: dict[str, tf.Variable] = {}
    made = {
        name: _with_variables(function, weights)
        if variables
        else function.concrete(function.definition, {})
        for name, function in functions.items()
    }
    module.weights = list(weights.values())
    # Of graphs of TensorFlow 1, its gradients could not be written.
    options = tf.saved_model.SaveOptions(experimental_custom_gradients=False)
    try:
        tf.saved_model.save(module, str(path), signatures=made, options=options)
    except AssertionError as error:  # of a resource that nothing tracks
        raise ValueError(
            f"{signatures.name} uses tables that no object holds, so they cannot be saved. Put them and "
            f"the function into a tf.Module, and export that. TensorFlow says: {one_line(error)}"
        ) from error
    except tf.errors.OpError as error:  # on a full disk, for instance
        raise OSError(
            "The SavedModel cannot be written. Make room, or choose another path. TensorFlow says: "
            f"{one_line(error)}"
        ) from error
    _name_methods(path / "saved_model.pb", signatures)


def _with_variables(function: Frozen, weights: dict[str, tf.Variable]) -> Any:
    """The function with its larger constants as variables, by what they hold."""
    definition = tf.compat.v1.GraphDef()
    definition.CopyFrom(function.definition)
    fed = {}
    for node in definition.node:
        content = node.attr["value"].tensor if node.op == "Const" else None
        if content is None or len(content.tensor_content) <= SMALL:
            continue
        key = hashlib.sha256(content.SerializeToString()).hexdigest()
        if key not in weights:
            weights[key] = tf.Variable(tf.make_ndarray(content), trainable=False, name=node.name)
        dtype, shape = content.dtype, content.tensor_shape
        node.op = "Placeholder"
        del node.attr["value"]
        node.attr["dtype"].type = dtype
        node.attr["shape"].shape.CopyFrom(shape)
        fed[f"{node.name}:0"] = weights[key].read_value
    return function.concrete(definition, fed)


def _resources(holder: Any, functions: Iterable[Frozen]) -> list[Any]:
    """The tables, and the files that they are made of."""
    if holder is None:
        return []
    parts = tf.train.TrackableView(holder).descendants()
    kinds = (tf.saved_model.experimental.TrackableResource, tf.saved_model.Asset)
    found = [part for part in parts if isinstance(part, kinds)]
    initializer = getattr(holder, "initializer", None)
    tables = (node for function in functions for node in function.definition.node)
    if initializer is not None and any("HashTable" in node.op for node in tables):
        # Of TensorFlow 1: its tables are in the graph, and what fills them captures all variables.
        found += [initializer, *(part for part in parts if isinstance(part, tf.Variable))]
    return found


def _name_methods(path: Path, signatures: Signatures) -> None:
    """Give the signatures the method names that they had; TensorFlow writes one for all."""
    names = {name: signatures.method(name) for name in signatures.functions}
    if set(names.values()) == {PREDICT}:
        return
    written = saved_model_pb2.SavedModel()
    written.ParseFromString(path.read_bytes())
    for name, method in names.items():
        written.meta_graphs[0].signature_def[name].method_name = method
    path.write_bytes(written.SerializeToString())
