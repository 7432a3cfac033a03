"""What a layer's configuration says of the input of a model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..errors import LegacyModelError
from ..layers import config_readers as readers
from ..reading.architecture import LayerConfig


def declared_shape(config: Mapping[str, Any]) -> tuple[Any, Any, Any]:
    """With the batch axis, without it, and as one size; `None` each where it is not said so."""
    whole = config.get("batch_input_shape", config.get("batch_shape"))
    return whole, config.get("input_shape"), config.get("input_dim")


def declared_type(layer: LayerConfig) -> str | None:
    """The type of the input; that of a layer's own numbers says nothing of it but in InputLayer."""
    key = "dtype" if layer.class_name == "InputLayer" else "input_dtype"
    stated = layer.config.get("input_dtype", layer.config.get(key))
    if stated is None:
        return None
    try:
        return readers.dtype(stated)
    except (TypeError, ValueError) as error:
        raise LegacyModelError(f"dtype={stated!r} {error}"[:300], layer.path) from error
