"""Each kind of source opened as `Signatures`."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import tensorflow as tf
from google.protobuf.message import DecodeError
from tensorflow.core.protobuf import saved_model_pb2

from ...messages import SAVED_MODELS, is_graph, join_some, one_line
from .. import signature
from .signatures import Signatures, of_named

SIGNATURE = "serving_default"
FUNCTIONS = (tf.types.experimental.GenericFunction, tf.types.experimental.ConcreteFunction)
# What needs nothing and what nobody reads, and is no output.
NO_OUTPUTS = {"Const", "Placeholder", "PlaceholderWithDefault", "NoOp", "Assert", "SaveV2"}


def is_source(given: object) -> bool:
    """Whether something is for this module: a SavedModel's or a graph's path, or TensorFlow's own."""
    if isinstance(given, (str, os.PathLike)):
        return is_graph(given)
    of_keras = any(base.__module__.startswith(("keras.", "tf_keras.")) for base in type(given).__mro__)
    return isinstance(given, (tf.Module, *FUNCTIONS)) and not of_keras


def open_source(
    source: Any, inputs: Sequence[str] | None = None, outputs: Sequence[str] | None = None
) -> Signatures:
    """Read what is to be exported.

    Args:
        source: a SavedModel's directory, a frozen graph's file, a `tf.Module` or a function.
        inputs, outputs: names of a frozen graph's tensors.

    Raises:
        ValueError: it cannot be read, or does not say what it takes and gives.
    """
    is_path = isinstance(source, (str, os.PathLike))
    path = Path(os.fsdecode(source)) if is_path else None
    if path is not None and path.is_file():
        return _frozen(path, inputs, outputs)
    if inputs is not None or outputs is not None:
        raise ValueError(
            "inputs= and outputs= name tensors of a frozen graph, a file .pb. What else is exported "
            "says itself what it takes and gives: leave them out."
        )
    return _saved_model(path) if path is not None else _function(source)


def _saved_model(path: Path) -> Signatures:
    found = sorted(set(SAVED_MODELS) & set(os.listdir(path)))
    tags, methods = _described(path / found[0])
    try:
        loaded = tf.saved_model.load(str(path), tags=tags)
    except Exception as error:  # the file may hold anything
        raise ValueError(
            f"TensorFlow cannot load the SavedModel {path}. See that it is whole, and that what it "
            f"needs (custom operations) is imported. It says: {one_line(error)}"
        ) from error
    found_there = getattr(loaded, "signatures", None)
    if not isinstance(found_there, Mapping) or not found_there:
        raise ValueError(
            f"The SavedModel {path} has no signatures, so nothing says what it serves. Save it with "
            "signatures=, or pass one of its functions."
        )
    # TensorFlow frees what a SavedModel holds with the object that it loaded.
    return Signatures(str(path), dict(found_there), loaded, methods)


def _described(path: Path) -> tuple[list[str] | None, dict[str, str]]:
    """The tags to load a SavedModel by, and its signatures' method names."""
    if path.suffix == ".pbtxt":
        return None, {}
    read = saved_model_pb2.SavedModel()
    try:
        read.ParseFromString(path.read_bytes())
    except DecodeError as error:
        raise ValueError(f"{path} is damaged, or no SavedModel: {one_line(error)}") from error
    graphs = [graph for graph in read.meta_graphs if "train" not in graph.meta_info_def.tags]
    served = [graph for graph in graphs if "serve" in graph.meta_info_def.tags] or graphs
    if len(served) != 1:
        tags = [f"({', '.join(graph.meta_info_def.tags)})" for graph in read.meta_graphs]
        raise ValueError(f"{path} holds no single graph to serve; its tags are {join_some(tags)}.")
    methods = {name: kind.method_name for name, kind in served[0].signature_def.items()}
    return list(served[0].meta_info_def.tags), methods


def _frozen(path: Path, inputs: Sequence[str] | None, outputs: Sequence[str] | None) -> Signatures:
    definition = tf.compat.v1.GraphDef()
    try:
        definition.ParseFromString(path.read_bytes())
        graph = tf.Graph()
        with graph.as_default():
            tf.graph_util.import_graph_def(definition, name="")
    except Exception as error:  # a file may hold anything
        raise ValueError(
            f"{path} cannot be read as a frozen graph (a GraphDef). A SavedModel is exported by its "
            f"directory. TensorFlow says: {one_line(error)}"
        ) from error
    if any(operation.type in ("VariableV2", "VarHandleOp") for operation in graph.get_operations()):
        raise ValueError(
            f"{path} is not frozen: it has variables, whose values are elsewhere. Freeze it with its "
            "checkpoint, or export its SavedModel."
        )
    given = [_tensor(graph, name, path) for name in inputs or _guessed_inputs(graph, path)]
    made = [_tensor(graph, name, path) for name in outputs or _guessed_outputs(graph, path)]
    specs = _specs(given, [tensor.op for tensor in given])

    def serve(**named: tf.Tensor) -> dict[str, tf.Tensor]:
        fed = {tensor.name: named[name] for tensor, name in zip(given, specs, strict=True)}
        wanted = [tensor.name for tensor in made]
        found = tf.graph_util.import_graph_def(definition, fed, wanted, name="")
        return dict(zip(map(_name_of, made), found, strict=True))

    return Signatures(str(path), {SIGNATURE: of_named(serve, specs)})


def _specs(tensors: Sequence[Any], named: Sequence[Any]) -> dict[str, tf.TensorSpec]:
    """What a function of such tensors takes, by the names that others have."""
    names = signature.own_names(named)
    return {
        name: tf.TensorSpec(tensor.shape, tensor.dtype, name)
        for name, tensor in zip(names, tensors, strict=True)
    }


def _name_of(tensor: tf.Tensor) -> str:
    return tensor.op.name + (f"_{tensor.value_index}" if tensor.value_index else "")


def _tensor(graph: tf.Graph, name: str, path: Path) -> tf.Tensor:
    try:
        return graph.get_tensor_by_name(name if ":" in name else f"{name}:0")
    except (KeyError, ValueError) as error:
        raise ValueError(f"{path} has no tensor {name!r}: {one_line(error)}") from error


def _guessed_inputs(graph: tf.Graph, path: Path) -> list[str]:
    found = [
        operation.outputs[0].name
        for operation in graph.get_operations()
        if operation.type == "Placeholder"
    ]
    if not found:
        raise ValueError(f"{path} has no placeholder to feed. Name its inputs: inputs=['input:0'].")
    return found


def _guessed_outputs(graph: tf.Graph, path: Path) -> list[str]:
    found = [
        operation.outputs[0].name
        for operation in graph.get_operations()
        if operation.outputs
        and operation.type not in NO_OUTPUTS
        and not any(tensor.consumers() for tensor in operation.outputs)
    ]
    if len(found) != 1:
        raise ValueError(
            f"Which tensors of {path} are its outputs is not clear: nothing reads {join_some(found)}. "
            "Name them: outputs=['prob:0']."
        )
    return found


def _function(source: Any) -> Signatures:
    name = getattr(source, "name", None) or type(source).__name__
    concrete = _concrete(source, name)
    args, named = concrete.structured_input_signature
    flat = [*_leaves(args), *_leaves(named)]  # specifications, and the constants that it was traced with
    taken = [leaf for leaf in flat if isinstance(leaf, tf.TypeSpec)]
    specs = _specs(taken, taken)

    def serve(**tensors: tf.Tensor) -> dict[str, tf.Tensor]:
        given = (tensors[name] for name in specs)
        values = [next(given) if isinstance(leaf, tf.TypeSpec) else leaf for leaf in flat]
        packed = tf.nest.pack_sequence_as((args, named), values, expand_composites=True)
        return signature.outputs_by_name(concrete(*packed[0], **packed[1]))

    holder = source if isinstance(source, tf.Module) else None
    return Signatures(str(name), {SIGNATURE: of_named(serve, specs)}, holder)


def _leaves(structure: Any) -> list[Any]:
    return tf.nest.flatten(structure, expand_composites=True)


def _concrete(source: Any, name: str) -> Any:
    """The one function that something has, traced."""
    if isinstance(source, tf.types.experimental.ConcreteFunction):
        return source
    if isinstance(source, tf.types.experimental.GenericFunction):
        functions = {name: source}
    else:
        own = {key: getattr(type(source), key, None) for key in dir(type(source))}
        own |= vars(source)
        functions = {
            key: getattr(source, key) for key, value in own.items() if isinstance(value, FUNCTIONS)
        }
        functions = {"__call__": functions["__call__"]} if "__call__" in functions else functions
    if len(functions) != 1:
        raise ValueError(
            f"{name} has {len(functions) or 'no'} tf.function{'s' * (len(functions) != 1)} "
            f"({join_some(sorted(functions))}), so what it serves is not clear. Pass one of them, with "
            "an input_signature."
        )
    (function,) = functions.values()
    try:
        return function.get_concrete_function()
    except Exception as error:  # of the user's own code, or for want of a signature
        raise ValueError(
            f"{name} does not say what it takes. Make it with tf.function(input_signature=…), or pass "
            f"its get_concrete_function(…). TensorFlow says: {one_line(error)}"
        ) from error
