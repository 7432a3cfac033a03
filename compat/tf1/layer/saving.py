"""The weights of a `VariableScopeLayer` in files: with their TF1 names, in whatever order code asks."""

from __future__ import annotations

from collections.abc import MutableMapping
from contextvars import ContextVar
from typing import Any

import numpy as np

NAMES = "names"
_beta_first: ContextVar[bool] = ContextVar("beta_first", default=False)


def is_beta_first() -> bool:
    """Whether each batch norm of contrib makes beta before gamma, as it did when files had no names."""
    return _beta_first.get()


def save_weights(layer: Any, store: MutableMapping[str, Any]) -> None:
    """Store the weights by number, and their names: a key of Keras' stores must have no slash."""
    weights = layer.variables_by_name
    for number, weight in enumerate(weights.values()):
        store[f"{number}"] = weight
    if weights:
        store[NAMES] = np.frombuffer("\n".join(weights).encode(), "uint8")


def load_weights(layer: Any, store: MutableMapping[str, Any]) -> None:
    """Assign what is stored, in files without names by position.

    Raises:
        ValueError: the layer's code asks for other variables.
    """
    weights, count = layer.variables_by_name, len(store.keys())
    if NAMES in store.keys():  # noqa: SIM118 (no dict)
        stored, count = bytes(np.asarray(store[NAMES])).decode().split("\n"), count - 1
    else:
        stored = _names_by_position(layer)
    if set(stored) != set(weights) or count != len(weights):
        told = f": {', '.join(stored)}" if count == len(stored) else ""
        raise ValueError(
            f"The code in {layer.name!r} asks for {len(weights)} variables: {', '.join(weights)}. The "
            f"file has {count}{told}. Load it with the code that it was saved with."
        )
    for number, name in enumerate(stored):
        weights[name].assign(store[f"{number}"])


def _names_by_position(layer: Any) -> list[str]:
    """The names in the order of files without them: Keras' order of variables made as they were then."""
    token = _beta_first.set(True)
    try:
        before = layer.from_config(layer.live_config() | {"trainable": True})
        before.build_from_config(layer.get_build_config())
    finally:
        _beta_first.reset(token)
    names = {id(weight): name for name, weight in before.variables_by_name.items()}
    return [names[id(weight)] for weight in before.weights]
