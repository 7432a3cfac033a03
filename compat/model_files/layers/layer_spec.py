"""An entry of the layer tables: how the configuration of a legacy layer becomes a layer of Keras 3."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import keras
import numpy as np

from ..errors import LegacyModelError, UnsupportedLayerError
from ..reading.architecture import LayerConfig
from ..reading.writer_info import WriterInfo
from . import config_readers as readers

REQUIRED, ABSENT = object(), object()


@dataclass(frozen=True)
class ConfigKey:
    """A key of a legacy configuration.

    Attributes:
        name: of Keras 3's argument; `None` for what is checked and has no counterpart.
        read: the reader of its value.
        default: what a configuration without it means; `REQUIRED`, or `ABSENT` for Keras 3's default.
    """

    name: str | None
    read: readers.Reader
    default: Any = ABSENT


@dataclass
class BuiltLayers:
    """Layers of Keras 3 that together are a legacy one, called one after the other.

    Attributes:
        layers: not built yet.
        holder: the one with the weights.
        weights: its weights in its order; `None` for a model that has them already.
        fixed: whether they were chosen by the shape of the inputs.
    """

    layers: list[Any]
    holder: Any = None
    weights: list[np.ndarray] | None = field(default_factory=list)
    fixed: bool = False

    def __post_init__(self) -> None:
        self.holder = self.layers[-1] if self.holder is None else self.holder


@dataclass
class BuildContext:
    """The first call of a legacy layer, which it is made for.

    Attributes:
        layer: its configuration.
        arrays: its weights as the file has them.
        shapes: of its inputs.
        writer: who wrote it.
        inside: makes the layer or model that a wrapper holds: (raw, arrays, shapes, steps=1) →
            `BuiltLayers`.
        note: takes what the report says of a batch norm.
        custom: the caller's custom objects.
        masked: whether something in the model makes masks.
        turned: whether the model will be turned to channels last, where every bias goes to the channels.
    """

    layer: LayerConfig
    arrays: list[np.ndarray]
    shapes: list[tuple[int | None, ...]]
    writer: WriterInfo
    inside: Callable[..., BuiltLayers]
    note: Callable[..., None]
    custom: Mapping[str, Any]
    masked: bool
    turned: bool

    @property
    def shape(self) -> tuple[int | None, ...]:
        return self.shapes[0]

    def unsupported(self, why: str) -> UnsupportedLayerError:
        config = str(self.layer.config)
        config = config if len(config) < 600 else f"{config[:600]}…"
        return UnsupportedLayerError(f"{why} ({self.layer.class_name}, {config})", self.layer.path)


Names = tuple[str, ...]


@dataclass(frozen=True)
class LayerSpec:
    """How a layer of a legacy file becomes one of Keras 3.

    Attributes:
        layer: the class of Keras 3.
        keys: of the configuration, besides `COMMON`.
        weights: the names of the weights in the order of the file; "*" marks those not trained.
        finish: makes the layer of the class and the arguments.
        more: arguments that it always has.
    """

    layer: type
    keys: dict[str, ConfigKey] = field(default_factory=dict)
    weights: Callable[[Mapping[str, Any]], Names] = lambda config: ()
    finish: Callable[[LayerSpec, BuildContext, dict[str, Any]], BuiltLayers] | None = None
    more: dict[str, Any] = field(default_factory=dict)

    def make(self, context: BuildContext) -> BuiltLayers:
        """The layer for a call.

        Raises:
            LegacyModelError: a value that cannot be; weights of another number.
            UnsupportedLayerError: a setting that Keras 3 has nothing for.
        """
        arguments = self.more | arguments_of(context, COMMON | self.keys)
        trainable = arguments.pop("trainable", True)  # which some classes of Keras 3 do not take
        finish = plain if self.finish is None else self.finish
        built = finish(self, context, arguments)
        if not trainable:
            built.holder.trainable = False
        return built


def plain(spec: LayerSpec, context: BuildContext, arguments: dict[str, Any]) -> BuiltLayers:
    """The layer with its arguments, and its weights as they are."""
    return BuiltLayers([spec.layer(**arguments)], weights=context.arrays)


# What every layer may have. Shapes of inputs are read by the model, types of inputs with them.
COMMON = {
    "name": ConfigKey(None, lambda name: name),
    "trainable": ConfigKey("trainable", readers.flag),
    "dtype": ConfigKey("dtype", readers.dtype),
    **dict.fromkeys(
        ("batch_input_shape", "input_shape"), ConfigKey(None, readers.maybe(readers.batch_shape))
    ),
    "input_dtype": ConfigKey(None, readers.maybe(readers.dtype)),
    **dict.fromkeys(("input_dim", "input_length"), ConfigKey(None, lambda size: size)),
    "cache_enabled": ConfigKey(None, readers.flag),
}


def arguments_of(context: BuildContext, keys: Mapping[str, ConfigKey]) -> dict[str, Any]:
    """Keras 3's arguments by name; every key of the configuration must be known, or mean nothing."""
    config = context.layer.config
    arguments: dict[str, Any] = {
        "name": None if context.layer.name is None else clean(context.layer.name)
    }
    for name, key in keys.items():
        if name in config:
            value = _read(context, name, key, config[name])
        elif key.default is REQUIRED:
            raise LegacyModelError(f"the configuration lacks {name!r}", context.layer.path)
        else:
            value = key.default
        if key.name is not None and value is not ABSENT:
            arguments[key.name] = value
    for name in config.keys() - keys.keys():
        if config[name] is not None and config[name] is not False and config[name] not in ([], {}, ""):
            raise context.unsupported(f"{name}={config[name]!r} has no counterpart in Keras 3"[:300])
    return arguments


def _read(context: BuildContext, name: str, key: ConfigKey, value: Any) -> Any:
    if key.read is readers.activation and isinstance(value, str) and value in context.custom:
        return context.custom[value]
    try:
        return key.read(value)
    except (TypeError, ValueError, OverflowError) as error:
        raise LegacyModelError(f"{name}={repr(value)[:200]} {error}", context.layer.path) from error


def clean(name: str) -> str:
    """A layer's name without the slashes that Keras 3 forbids."""
    return name.replace("/", "_")


def part_name(name: str | None, part: str) -> str | None:
    return None if name is None else f"{name}_{part}"


def keras_layer(layer: type, arguments: dict[str, Any], *without: str) -> keras.layers.Layer:
    return layer(**{key: value for key, value in arguments.items() if key not in without})
