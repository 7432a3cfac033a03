"""Which call feeds which, in a whole model: nested Sequential and Functional models entered."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import keras
import numpy as np

from ..cloning import functional_class, is_open, uncompiled
from ..messages import one_line

Key = tuple[str, int]
Specification = tuple[tuple[int | None, ...], str]


@dataclass(eq=False)
class Tensor:
    """One tensor of the model, known by its identity.

    Attributes:
        shape: with the batch axis; `None` where unknown.
        dtype: its type.
        source: the call that makes it; `None` for an input of the model.
        users: the calls that take it, once for each time; `None` for an output of the model.
    """

    shape: tuple[int | None, ...]
    dtype: str
    source: Call | None = None
    users: list[Call | None] = field(default_factory=list)


@dataclass(eq=False)
class Call:
    """One call of a layer (or Keras operation).

    Attributes:
        number: its place in an order in which the calls can run.
        layer: what is called.
        arguments: tensors and constants, `inputs` first however it was passed, nested ones in order.
        outputs: the tensors that it makes and that are used.
        training: whether it is called with `training=True`, itself or through a model around it.
        masked: whether it was given a mask.
    """

    number: int
    layer: Any
    arguments: list[Any]
    outputs: list[Tensor] = field(default_factory=list)
    training: bool = False
    masked: bool = False

    @property
    def inputs(self) -> list[Tensor]:
        return [one for one in self.arguments if isinstance(one, Tensor)]

    @property
    def dtype(self) -> str:
        """The type that it computes in."""
        is_layer = isinstance(self.layer, keras.layers.Layer)
        return self.layer.compute_dtype if is_layer else self.outputs[0].dtype


class Graph:
    """The calls of a model in an order in which they can run.

    A nested model's calls are there once for each call of it, so that a layer inside it is a layer
    called several times, as any other.
    """

    def __init__(self, model: keras.Model) -> None:
        """Read an open model (see `tfbn.cloning.is_open`).

        Raises:
            ValueError: a layer has no configuration.
        """
        self.calls: list[Call] = []
        self._read: dict[int, _Configuration] = {}
        inputs = [Tensor(tuple(one.shape), one.dtype) for one in model.inputs]
        for output in self._enter(model, inputs, training=False):
            output.users.append(None)
        self._by_layer: dict[int, list[Call]] = defaultdict(list)
        for call in self.calls:
            self._by_layer[id(call.layer)].append(call)

    def of(self, layer: object) -> list[Call]:
        """All calls of a layer; none for one that is inside another layer."""
        return self._by_layer.get(id(layer), [])

    def drop(self, layer: object) -> None:
        """Leave a layer out: its input goes on instead of its output."""
        for call in self._by_layer.pop(id(layer)):
            (before, *_), (after,) = call.inputs, call.outputs
            before.users.remove(call)
            before.users += after.users
            for user in filter(None, after.users):
                user.arguments = [before if one is after else one for one in user.arguments]
            self.calls.remove(call)

    def _enter(self, model: keras.Model, inputs: list[Tensor], training: bool) -> list[Tensor]:
        """Add the calls of one call of a model, and return its outputs."""
        if id(model) not in self._read:
            self._read[id(model)] = _Configuration(model)
        read = self._read[id(model)]
        tensors = {(key, 0): one for key, one in zip(read.inputs, inputs, strict=True)}
        for key, layer, positional, named in read.nodes:
            given = [*_decoded(positional, tensors), *_decoded([named.get("inputs")], tensors)]
            names = sorted(named.keys() - {"inputs", "mask", "training"})
            others = keras.tree.flatten([_decoded(named[name], tensors) for name in names])
            mask = _decoded(named.get("mask"), tensors)
            arguments = [one for one in keras.tree.flatten([given, others, mask]) if one is not None]
            called = training or bool(named.get("training"))
            # By position, too, as tensors may be.
            masked = mask is not None or any(
                isinstance(one, Tensor) and one.dtype == "bool" for one in arguments
            )
            call = Call(len(self.calls), layer, arguments, training=called, masked=masked)
            if is_open(layer) and _matches(layer, given, arguments):
                outputs: dict[int, Tensor] = dict(enumerate(self._enter(layer, call.inputs, called)))
                for index in outputs.keys() - read.specifications[key].keys():
                    outputs[index].users.append(None)  # of the nested model alone
            else:
                specified = read.specifications[key]
                outputs = {index: Tensor(*one, source=call) for index, one in sorted(specified.items())}
                call.outputs, call.number = list(outputs.values()), len(self.calls)
                self.calls.append(call)
                for one in call.inputs:
                    one.users.append(call)
                if is_open(layer):
                    self._enter_apart(layer, called)
            tensors |= {(key, index): one for index, one in outputs.items()}
        return [tensors[one] for one in read.outputs]

    def _enter_apart(self, model: keras.Model, training: bool) -> None:
        """The calls of a model whose inputs cannot be told from the call around it."""
        inputs = [Tensor(tuple(one.shape), one.dtype) for one in model.inputs]
        for output in self._enter(model, inputs, training):
            output.users.append(None)


class _Configuration:
    """What Keras' public configuration says of one model's graph.

    Attributes:
        inputs: its input layers' calls.
        outputs: call and output number of each output.
        nodes: (call, layer, positional arguments, named arguments), in an order in which they can run.
        specifications: shape and type of the outputs of each call that are used, by number.
    """

    def __init__(self, model: keras.Model) -> None:
        functional = uncompiled(model)
        config = _configuration(functional)
        operations = {operation.name: operation for operation in functional.operations}
        nodes = {
            (entry["name"], number): (node["args"], node.get("kwargs", {}))
            for entry in config["layers"]
            for number, node in enumerate(entry["inbound_nodes"])
        }
        self.specifications: dict[Key, dict[int, Specification]] = defaultdict(dict)
        sources = {key: set(self._sources(node)) for key, node in nodes.items()}
        self.inputs = [key for key, _ in _triples(config["input_layers"])]
        self.outputs = []
        for ((name, number), index), tensor in zip(
            _triples(config["output_layers"]), functional.outputs, strict=True
        ):
            # Here, and not in the calls' arguments, Keras counts the calls of a nested Functional model
            # from 1: its own construction is 0.
            key = name, number - isinstance(operations[name], functional_class())
            self.outputs.append((key, index))
            self.specifications[key][index] = tuple(tensor.shape), tensor.dtype
        users = defaultdict(list)
        for key, needed in sources.items():
            for source in needed:
                users[source].append(key)
        self.nodes = []
        done: set[Key] = set()
        ready = [*self.inputs, *(key for key, needed in sources.items() if not needed)]
        for key in ready:
            done.add(key)
            if key in nodes:
                self.nodes.append((key, operations[key[0]], *nodes[key]))
            ready += [user for user in dict.fromkeys(users[key]) if sources[user] <= done]

    def _sources(self, config: Any) -> Iterator[Key]:
        """The calls whose outputs are among serialised arguments; notes their shapes and types."""
        if isinstance(config, dict) and config.get("class_name") == "__keras_tensor__":
            tensor = config["config"]
            name, number, index = tensor["keras_history"]
            self.specifications[name, number][index] = tuple(tensor["shape"]), tensor["dtype"]
            yield name, number
        elif isinstance(config, (dict, list, tuple)):
            for value in config.values() if isinstance(config, dict) else config:
                yield from self._sources(value)


def _configuration(model: keras.Model) -> dict[str, Any]:
    try:
        return model.get_config()
    except (NotImplementedError, TypeError, ValueError) as error:
        raise ValueError(
            f"The graph of {model.name!r} cannot be read, because a layer in it has no configuration: "
            f"{one_line(error)} Give its class a get_config() that returns all arguments of its "
            "__init__()."
        ) from error


def _triples(config: Any) -> list[tuple[Key, int]]:
    """((layer name, call number), output number) of every triple in a structure, in Keras' order."""
    if isinstance(config, dict):
        config = [config[key] for key in sorted(config)]
    if isinstance(config[0], str):
        return [((config[0], config[1]), config[2])]
    return [one for value in config for one in _triples(value)]


def _decoded(config: Any, tensors: dict[tuple[Key, int], Tensor]) -> Any:
    """Serialised arguments with tensors and arrays in their places."""
    if isinstance(config, dict):
        if config.get("class_name") == "__keras_tensor__":
            name, number, index = config["config"]["keras_history"]
            return tensors[(name, number), index]
        if config.get("class_name") in ("__numpy__", "__tensor__"):
            return np.asarray(config["config"]["value"])
        if config.get("class_name") == "__tuple__":
            return _decoded(config["items"], tensors)
        return {name: _decoded(value, tensors) for name, value in config.items()}
    if isinstance(config, (list, tuple)):
        return [_decoded(value, tensors) for value in config]
    return config


def _matches(model: keras.Model, given: list[Any], arguments: list[Any]) -> bool:
    """Whether a nested model's inputs are its call's arguments, one to one and as they are."""
    inner = model.inputs
    alike = len(inner) == len(arguments) and all(
        isinstance(one, Tensor) and len(one.shape) == len(own.shape) and one.dtype == own.dtype
        for one, own in zip(arguments, inner, strict=True)
    )
    return alike and (len(inner) == 1 or _keys(given[0]) == _keys(model.input))


def _keys(structure: Any) -> Any:
    """The structure without its leaves; lists and tuples alike, as Keras takes them."""
    if isinstance(structure, dict):
        return {name: _keys(value) for name, value in structure.items()}
    return [_keys(one) for one in structure] if isinstance(structure, (list, tuple)) else None
