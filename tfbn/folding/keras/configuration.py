"""What Keras' public configuration says of one model's graph."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from typing import Any

import keras

from ...batch_norms import layer_paths
from ...copying import stood_in
from ...declared_graph import as_functional, functional_class
from ...messages import one_line

Key = tuple[str, int]
Specification = tuple[tuple[int | None, ...], str]


class Configuration:
    """The calls of an open model's layers and what they are given (`declared_graph.has_readable_graph`).

    Attributes:
        inputs: its input layers' calls.
        outputs: call and output number of each output.
        nodes: (call, layer, positional arguments, named arguments), in an order in which they can run.
        specifications: shape and type of the outputs of each call that are used, by number.
    """

    def __init__(self, model: keras.Model) -> None:
        functional = as_functional(model)
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
    """The configuration of a Functional model; of layers that have none, nothing.

    Raises:
        ValueError: a layer is called with an argument that cannot be written down.
    """
    layers = [layer for layer in layer_paths(model).values() if isinstance(layer, keras.layers.Layer)]
    with stood_in(layers):  # what the user's functions do is not asked here
        try:
            return model.get_config()
        except Exception:  # the classes may be anybody's
            return _without_configurations(model)


def _without_configurations(model: keras.Model) -> dict[str, Any]:
    lacking = [vars(operation) for operation in model.operations if not _has_config(operation)]
    for attributes in lacking:
        attributes["get_config"] = dict
    try:
        return model.get_config()
    except (NotImplementedError, TypeError, ValueError) as error:
        raise ValueError(
            f"The graph of {model.name!r} cannot be read, because a layer is called with an argument "
            "that has no configuration. Give the argument's class a get_config(), or hand it to the "
            f"layer's __init__(). Keras says: {one_line(error)}"
        ) from error
    finally:
        for attributes in lacking:
            del attributes["get_config"]


def _has_config(operation: Any) -> bool:
    try:
        keras.saving.serialize_keras_object(operation)
    except Exception:
        return False
    return True


def _triples(config: Any) -> list[tuple[Key, int]]:
    """((layer name, call number), output number) of every triple in a structure, in Keras' order."""
    if isinstance(config, dict):
        config = [config[key] for key in sorted(config)]
    if isinstance(config[0], str):
        return [((config[0], config[1]), config[2])]
    return [triple for value in config for triple in _triples(value)]
