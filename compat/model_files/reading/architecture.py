"""The JSON of a model, whichever Keras wrote it, in one form: layers, and who feeds whom."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from ..errors import LegacyModelError, UnsupportedLayerError

SEQUENTIAL, FUNCTIONAL = ("Sequential",), ("Model", "Functional")
MODELS = (*SEQUENTIAL, *FUNCTIONAL)
MOST = 2**31 - 1  # of any size in a file
_DEEPEST = 12  # models in models

# What only the configurations of Keras 2 say.
_KERAS2_KEYS = {
    *("kernel_initializer", "embeddings_initializer", "gamma_initializer", "alpha_initializer"),
    *("units", "filters", "rate", "data_format"),
}


@dataclass(frozen=True)
class CallOutput:
    """An output of a call: the layer's name, which of its calls, which of that call's outputs."""

    layer: str
    call: int = 0
    output: int = 0


@dataclass(frozen=True)
class CallConfig:
    """A call of a layer: what it takes, and further arguments."""

    inputs: tuple[CallOutput, ...]
    arguments: dict[str, Any]


@dataclass(frozen=True, eq=False)
class LayerConfig:
    """A layer as a file describes it.

    Attributes:
        class_name, config: as in the file; of Keras 0.3 as Keras 1 would have written them.
        name: `None` where the file gives none, as for models in a Sequential model of Keras 1.
        path: where it is, for messages and reports.
        calls: in a functional model.
        model: what the layer holds, if it is a model itself.
        branches: the layers or models in front of a Merge that starts a Sequential model.
    """

    class_name: str
    name: str | None
    config: dict[str, Any]
    path: str
    calls: tuple[CallConfig, ...] = ()
    model: ModelConfig | None = None
    branches: tuple[LayerConfig, ...] = ()


@dataclass(frozen=True, eq=False)
class ModelConfig:
    """A model: its layers, and the tensors that go in and come out if it is functional."""

    name: str | None
    layers: tuple[LayerConfig, ...]
    inputs: tuple[CallOutput, ...] = ()
    outputs: tuple[CallOutput, ...] = ()
    sequential: bool = False
    input_shape: Any = None


def model_config(raw: Any, path: str = "", depth: int = 0) -> ModelConfig:
    """Read the JSON object of a model.

    Raises:
        LegacyModelError: not the JSON of a model.
        UnsupportedLayerError: the Graph container.
    """
    where = path or "model"
    if depth > _DEEPEST:
        raise LegacyModelError(f"holds models more than {_DEEPEST} deep", where)
    raw = _object(raw, where)
    kind = raw.get("class_name", raw.get("name") if "layers" in raw else None)
    if kind == "Graph":
        raise UnsupportedLayerError(
            "is a Graph, the container of Keras before 1.0. Load it in Keras 1.2.2 with its legacy "
            "models, rebuild it as a Model and save that",
            where,
        )
    if kind not in MODELS:
        raise LegacyModelError(
            f"is a {kind!r} and no Sequential or functional model. A model of a class of its own keeps "
            "its architecture in its code: make it there, and use load_weights",
            where,
        )
    config = raw.get("config", raw)
    name = _name(raw, config)
    if kind in SEQUENTIAL:
        layers = config.get("layers") if isinstance(config, dict) else config
        shape = config.get("build_input_shape") if isinstance(config, dict) else None
        made = tuple(layer_config(layer, path, depth) for layer in _list(layers, f"{where}: layers"))
        if not made:
            raise LegacyModelError("has no layers", where)
        return ModelConfig(name, made, sequential=True, input_shape=shape)
    config = _object(config, where)
    made = tuple(
        layer_config(layer, path, depth) for layer in _list(config.get("layers"), f"{where}: layers")
    )
    names = [layer.name for layer in made]
    if None in names or len(set(names)) != len(names):
        raise LegacyModelError("has layers without a name, or two of one name", where)
    inputs, outputs = (
        _references(config.get(key), f"{where}: {key}") for key in ("input_layers", "output_layers")
    )
    if not inputs or not outputs:
        raise LegacyModelError("has no input_layers or no output_layers", where)
    return _from_call_0(ModelConfig(name, made, inputs, outputs))


def _from_call_0(model: ModelConfig) -> ModelConfig:
    """Number the calls of nested models from 0.

    In Keras 1 and 2 building a model was its call 0, which the file leaves out, so its other calls begin
    with 1. A Sequential model that tf.keras made without an input has no such call.
    """
    inside = {layer.name for layer in model.layers if layer.model is not None}
    used = [output for layer in model.layers for call in layer.calls for output in call.inputs]
    first = inside - {output.layer for output in (*used, *model.outputs) if output.call == 0}

    def renumbered(references: tuple[CallOutput, ...]) -> tuple[CallOutput, ...]:
        return tuple(
            replace(output, call=output.call - 1) if output.layer in first else output
            for output in references
        )

    layers = tuple(
        replace(
            layer, calls=tuple(replace(call, inputs=renumbered(call.inputs)) for call in layer.calls)
        )
        for layer in model.layers
    )
    return replace(model, layers=layers, outputs=renumbered(model.outputs))


def layer_config(raw: Any, path: str, depth: int = 0) -> LayerConfig:
    """Read the JSON object of a layer, and of the models in it."""
    where = path or "layers"
    raw = _object(raw, where)
    if "class_name" not in raw:  # Keras 0.3: one object, whose name is the class
        config = {key: value for key, value in raw.items() if key not in ("name", "custom_name")}
        raw = {"class_name": raw.get("name"), "config": config, "name": raw.get("custom_name")}
        if "layers" in config and raw["class_name"] in MODELS:
            raw["config"] = config["layers"]
    kind, config = raw["class_name"], raw.get("config")
    if not isinstance(kind, str):
        raise LegacyModelError(f"a layer's class_name is {kind!r}", where)
    name = _name(raw, config)
    path = "/".join(filter(None, (path, name or kind)))
    calls = tuple(
        _call(node, path) for node in _list(raw.get("inbound_nodes", []), f"{path}: inbound_nodes")
    )
    if kind in MODELS or kind == "Graph":
        return LayerConfig(kind, name, {}, path, calls, model_config(raw, path, depth + 1))
    config = dict(_object(config, path))
    branches: tuple[LayerConfig, ...] = ()
    if kind == "Merge" and config.get("layers"):
        listed = _list(config.pop("layers"), f"{path}: layers")
        branches = tuple(layer_config(branch, path, depth + 1) for branch in listed)
    if depth > _DEEPEST:
        raise LegacyModelError(f"holds layers more than {_DEEPEST} deep", path)
    return LayerConfig(kind, name, config, path, calls, None, branches)


def call_count(layer: LayerConfig) -> int:
    """How many layers a call of this layer calls; a nested model counts as the layers in it."""
    if layer.model is None:
        return 1
    return sum(call_count(inner) * max(len(inner.calls), 1) for inner in layer.model.layers)


def looks_like_keras2(raw: Any) -> bool:
    """Whether a JSON object without a version has what only Keras 2 wrote."""
    return any(not _KERAS2_KEYS.isdisjoint(found) for found in objects(raw))


def makes_masks(raw: Any) -> bool:
    """Whether a JSON object has a layer of Keras that makes masks."""
    return any(
        found.get("class_name") == "Masking"
        or found.get("name") == "Masking"
        or found.get("mask_zero") is True
        for found in objects(raw)
    )


def objects(raw: Any) -> Iterator[dict[str, Any]]:
    """All objects in a JSON value."""
    todo = [raw]
    while todo:
        value = todo.pop()
        if isinstance(value, dict):
            yield value
            todo += value.values()
        elif isinstance(value, list):
            todo += value


def listed(model: ModelConfig) -> Iterator[LayerConfig]:
    """The layers in the order of a file of weights, which lists a merge's branches in its place."""
    for layer in model.layers:
        if layer.branches:
            for branch in layer.branches:
                yield from (branch,) if branch.model is None else listed(branch.model)
        else:
            yield layer


def _call(raw: Any, path: str) -> CallConfig:
    where = f"{path}: inbound_nodes"
    entries = _list(raw, where)
    if entries and isinstance(entries[0], str):  # one tensor, not in a list
        entries = [entries]
    arguments: dict[str, Any] = {}
    for entry in entries:
        further = _list(entry, where)[3:4]
        arguments |= _object(further[0], where) if further else {}
    return CallConfig(_references(entries, where), arguments)


def _references(raw: Any, where: str) -> tuple[CallOutput, ...]:
    entries = _list(raw, where)
    if entries and isinstance(entries[0], str):
        entries = [entries]
    found = []
    for entry in entries:
        parts = _list(entry, where)[:3]
        layer, *numbers = parts or [None]
        fine = isinstance(layer, str) and len(numbers) == 2
        if not fine or not all(type(number) is int and 0 <= number <= MOST for number in numbers):
            raise LegacyModelError(f"names no output of a layer: {entry!r}"[:200], where)
        found.append(CallOutput(layer, *numbers))
    return tuple(found)


def _name(raw: dict[str, Any], config: Any) -> str | None:
    name = raw.get("name") if "class_name" in raw else None
    if name is None and isinstance(config, dict):
        name = config.get("name")
    if name is not None and (not isinstance(name, str) or not name):
        raise LegacyModelError(f"a layer's name is {name!r}", "name")
    return name


def _object(value: Any, where: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise LegacyModelError(f"should be a JSON object, and is {value!r}"[:200], where)
    return value


def _list(value: Any, where: str) -> list[Any]:
    if not isinstance(value, list):
        raise LegacyModelError(f"should be a list, and is {value!r}"[:200], where)
    return value
