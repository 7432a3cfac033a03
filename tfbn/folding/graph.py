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
    """

    layer: keras.layers.Layer
    inputs: tuple[Call | None, ...]
    training: bool | None = None


@dataclass
class Graph:
    """The calls of one model, which of them are its outputs, and who uses what.

    Attributes:
        model: the model.
        calls: in an order in which they can run.
        uses: for each call, how many times another call or the model's output takes its result.
    """

    model: keras.Model
    calls: list[Call] = field(default_factory=list)
    uses: Counter[int] = field(default_factory=Counter)

    def add(self, call: Call) -> Call:
        self.calls.append(call)
        self.uses.update(id(one) for one in call.inputs if one is not None)
        return call

    def of(self, layer: keras.layers.Layer) -> list[Call]:
        return [call for call in self.calls if call.layer is layer]


def graphs(model: keras.Model) -> list[Graph]:
    """The graph of an open model and of every open model inside it, each once, outermost first."""
    found = [read(model)]
    seen = {id(model)}
    for graph in found:
        for call in graph.calls:
            if id(call.layer) not in seen and is_open(call.layer):
                seen.add(id(call.layer))
                found.append(read(call.layer))
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
    config = uncompiled(model).get_config()
    operations = {operation.name: operation for operation in model.operations}
    nodes: dict[Key, Any] = {}
    done: dict[Key, Call | None] = {}
    for entry in config["layers"]:
        nodes |= {(entry["name"], n): node for n, node in enumerate(entry["inbound_nodes"])}
        if not entry["inbound_nodes"]:
            done[entry["name"], 0] = None
    sources = {key: list(_arguments(node)) for key, node in nodes.items()}
    users = defaultdict(list)
    for key, inputs in sources.items():
        for source in inputs:
            users[source].append(key)
    ready = [key for key, inputs in sources.items() if all(one in done for one in inputs)]
    for key in ready:
        if key in done:
            continue
        training = nodes[key].get("kwargs", {}).get("training")
        call = Call(operations[key[0]], tuple(done[one] for one in sources[key]), training)
        done[key] = graph.add(call)
        ready += [user for user in users[key] if all(one in done for one in sources[user])]
    for name, index in _outputs(config["output_layers"]):
        # Here, and not in the calls' arguments, Keras counts the calls of a nested Functional model from
        # 1: its own construction is 0.
        first = int(isinstance(operations[name], functional_class()))
        graph.uses[id(done[name, index - first])] += 1
    return graph


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
