"""What one call of a layer is given, out of what Keras' configuration says of it."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import keras
import numpy as np

from ..core.graph import Tensor
from .configuration import Key


@dataclass(frozen=True)
class Given:
    """What one call of a layer or operation is given.

    Attributes:
        positional: the positional arguments and `inputs`, structured.
        arguments: all tensors and constants in the order of the parameters of `call`, without masks that
            are not made of numbers.
        names: the parameter that each of them belongs to.
        masks: the masks, by their parameters.
        training: whether it is called with `training=True`, itself or through a model around it.
        unclear: whether what it is given besides may be a mask, or is one of numbers.
    """

    positional: list[Any]
    arguments: list[Any]
    names: list[str]
    training: bool
    masks: Mapping[str, Any] = field(default_factory=dict)
    unclear: bool = False

    @classmethod
    def one(cls, tensor: Tensor, training: bool, masks: Mapping[str, Any] | None = None) -> Given:
        """One tensor and nothing else."""
        return cls([tensor], [tensor], ["inputs"], training, masks or {})

    @property
    def inputs(self) -> list[Tensor]:
        return [argument for argument in self.arguments if isinstance(argument, Tensor)]


def given_to(
    layer: Any,
    positional: Any,
    named: Mapping[str, Any],
    tensors: Mapping[tuple[Key, int], Tensor],
    training: bool,
) -> Given:
    """Serialised arguments with tensors and arrays in their places; `None` is left out."""
    first = _decoded(list(positional), tensors)
    others = {name: _decoded(value, tensors) for name, value in named.items()}
    found = _by_parameter(layer, first, others)
    masks = {name: value for name, value in found.items() if is_mask(name) and not _is_empty(value)}
    # No map is ever on what is not made of numbers.
    beside = {name for name in found if is_mask(name) and not _has_numbers(found[name])}
    pairs = [
        (name, leaf)
        for name, value in found.items()
        if name not in beside | {"training"}
        for leaf in keras.tree.flatten(value)
        if leaf is not None
    ]
    boolean = any(isinstance(leaf, Tensor) and leaf.dtype == "bool" for _, leaf in pairs[1:])
    return Given(
        [*first, others["inputs"]] if "inputs" in others else first,
        [leaf for _, leaf in pairs],
        [name for name, _ in pairs],
        training or bool(found.get("training")),
        masks,
        unclear=boolean or not masks.keys() <= beside,
    )


def is_mask(parameter: str) -> bool:
    """Whether a parameter of a layer's `call` is one for a mask."""
    return parameter == "mask" or parameter.endswith("_mask")


def parameters(layer: Any) -> list[str]:
    """The parameters of a layer's `call`; none where it does not tell."""
    try:
        return list(inspect.signature(layer.call).parameters)
    except (AttributeError, TypeError, ValueError):  # the class may be anybody's
        return []


def _by_parameter(layer: Any, positional: list[Any], named: Mapping[str, Any]) -> dict[str, Any]:
    try:
        return dict(inspect.signature(layer.call).bind(*positional, **named).arguments)
    except (AttributeError, TypeError, ValueError):
        return {"": positional, **dict(sorted(named.items()))}


def _is_empty(mask: Any) -> bool:
    return all(leaf is None for leaf in keras.tree.flatten(mask))


def _has_numbers(mask: Any) -> bool:
    return any(isinstance(leaf, Tensor) and "float" in leaf.dtype for leaf in keras.tree.flatten(mask))


def _decoded(config: Any, tensors: Mapping[tuple[Key, int], Tensor]) -> Any:
    if isinstance(config, dict):
        if config.get("class_name") == "__keras_tensor__":
            name, number, index = config["config"]["keras_history"]
            return tensors[(name, number), index]
        if config.get("class_name") in ("__numpy__", "__tensor__"):
            return np.asarray(config["config"]["value"])
        if config.get("class_name") == "__tuple__":
            return _decoded(config["items"], tensors)
        return _place({name: _decoded(value, tensors) for name, value in config.items()})
    if isinstance(config, (list, tuple)):
        return [_decoded(value, tensors) for value in config]
    return config


def _place(values: dict[str, Any]) -> Any:
    """A slice of numbers or an ellipsis that a dictionary stands for; otherwise the dictionary."""
    if values.get("class_name") == "__ellipsis__":
        return ...
    if values.get("class_name") == "__slice__":
        bounds = [values["config"][name] for name in ("start", "stop", "step")]
        if all(isinstance(bound, int | None) for bound in bounds):
            return slice(*bounds)
    return values
