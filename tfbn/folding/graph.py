"""Which layer call feeds which, in one Sequential or Functional model."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import keras

from ..cloning import functional_class, is_open, uncompiled

Key = tuple[str, int]


@dataclass(frozen=True)
class Call:
    """One call of a layer (or Keras operation) in a model's graph.

    Attributes:
        layer: what is called.
        inputs: the calls whose outputs it receives, in order; `None` for an input of the model.
        training: the constant that the call was given for `training`, if any.
        masked: whether it was given a mask.
    """

    layer: keras.layers.Layer
    inputs: tuple[Call | None, ...]
    training: bool | None = None
    masked: bool = False


@dataclass
class Graph:
    """The calls of one model, which of them are its outputs, and who uses what.

    Attributes:
        model: the model.
        calls: in an order in which they can run.
        uses: for each call, how many times another call or the model's output takes its result.
        training: whether the model itself is called with `training=True` by one around it.
    """

    model: keras.Model
    training: bool = False
    calls: list[Call] = field(default_factory=list)
    uses: Counter[int] = field(default_factory=Counter)

    def add(self, call: Call) -> Call:
        self.calls.append(call)
        self.uses.update(id(one) for one in call.inputs if one is not None)
        return call


def graphs(model: keras.Model) -> list[Graph]:
    """The graph of an open model and of every open model inside it, each once, outermost first."""
    found = [read(model)]
    seen = {id(model)}
    for graph in found:
        for call in graph.calls:
            if id(call.layer) not in seen and is_open(call.layer):
                seen.add(id(call.layer))
                found.append(read(call.layer))
    by_model = {id(graph.model): graph for graph in found}

    def pass_on_training(graph: Graph) -> None:
        for call in graph.calls:
            inner = by_model.get(id(call.layer))
            if inner is not None and not inner.training and (graph.training or call.training):
                inner.training = True
                pass_on_training(inner)

    for graph in found:
        pass_on_training(graph)
    return found


def read(model: keras.Model) -> Graph:
    """The graph of an open model (see `tfbn.cloning.is_open`), by Keras' public configuration."""
    return _read_sequential(model) if isinstance(model, keras.Sequential) else _read_functional(model)


def _read_sequential(model: keras.Sequential) -> Graph:
    graph = Graph(model)
    last = None
    for layer in model.layers:
        last = graph.add(Call(layer, (last,)))
    graph.uses[id(last)] += 1
    return graph


def _read_functional(model: keras.Model) -> Graph:
    graph = Graph(model)
    config = _configuration(model)
    operations = {operation.name: operation for operation in model.operations}
    nodes: dict[Key, Any] = {}
    done: dict[Key, Call | None] = {}
    for entry in config["layers"]:
        nodes |= {(entry["name"], n): node for n, node in enumerate(entry["inbound_nodes"])}
        if not entry["inbound_nodes"]:
            done[entry["name"], 0] = None
    sources = {key: list(_sources(node)) for key, node in nodes.items()}
    users = defaultdict(list)
    for key, inputs in sources.items():
        for source in inputs:
            users[source].append(key)
    ready = [key for key, inputs in sources.items() if all(one in done for one in inputs)]
    for key in ready:
        if key in done:
            continue
        named = nodes[key].get("kwargs", {})
        masked = any(_arguments(named.get("mask")))
        results = tuple(done[one] for one in sources[key])
        done[key] = graph.add(Call(operations[key[0]], results, named.get("training"), masked))
        ready += [user for user in users[key] if all(one in done for one in sources[user])]
    for name, index in _outputs(config["output_layers"]):
        # Here, and not in the calls' arguments, Keras counts the calls of a nested Functional model from
        # 1: its own construction is 0.
        first = int(isinstance(operations[name], functional_class()))
        graph.uses[id(done[name, index - first])] += 1
    return graph


def _configuration(model: keras.Model) -> dict[str, Any]:
    try:
        return uncompiled(model).get_config()
    except (NotImplementedError, TypeError, ValueError) as error:
        raise ValueError(
            f"The graph of {model.name!r} cannot be read, because a layer in it has no configuration: "
            f"{error} Give its class a get_config() that returns all arguments of its __init__()."
        ) from error


def _sources(node: dict[str, Any]) -> Iterator[Key]:
    """The tensors that a call receives, `inputs` first however it was passed."""
    named = node.get("kwargs", {})
    yield from _arguments(node["args"])
    yield from _arguments(named.get("inputs"))
    yield from _arguments({name: value for name, value in named.items() if name != "inputs"})


def _arguments(config: Any) -> Iterator[Key]:
    """The (layer name, call number) of every tensor among a call's serialised arguments."""
    if isinstance(config, dict) and config.get("class_name") == "__keras_tensor__":
        name, index, _ = config["config"]["keras_history"]
        yield name, index
    elif isinstance(config, (dict, list, tuple)):
        for value in config.values() if isinstance(config, dict) else config:
            yield from _arguments(value)


def _outputs(config: Any) -> Iterator[Key]:
    """The (layer name, call number) of every output: a triple, or a structure of triples."""
    if isinstance(config, dict):
        config = list(config.values())
    if isinstance(config[0], str):
        yield config[0], config[1]
    else:
        for value in config:
            yield from _outputs(value)
