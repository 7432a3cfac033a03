"""A folded model in another floating-point precision."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np

POLICIES = ("float16", "bfloat16", "float32", "float64", "mixed_float16", "mixed_bfloat16")

# What has a dtype of its own in a configuration that is not a layer's policy.
DATA = {"InputLayer", "__keras_tensor__", "__numpy__"}


def floating_policy(dtype: Any) -> str:
    """The name of a floating-point policy.

    Raises:
        ValueError: it is none.
    """
    name = getattr(dtype, "name", dtype)
    if name not in POLICIES:
        raise ValueError(f"dtype must be one of {', '.join(POLICIES)}, received {dtype!r}.")
    return name


def with_policy(config: Any, policy: str) -> Any:
    """A layer's configuration with another policy where it has a floating-point one.

    Layers inside it (the cells of an RNN, what a wrapper wraps) change likewise; layers of integers
    and strings, and quantized ones, stay as they are.
    """
    if isinstance(config, dict):
        if config.get("class_name") in DATA:
            return config
        return {
            name: policy if name == "dtype" and _is_floating(value) else with_policy(value, policy)
            for name, value in config.items()
        }
    if isinstance(config, (list, tuple)):
        return type(config)(with_policy(part, policy) for part in config)
    return config


def _is_floating(dtype: Any) -> bool:
    name = dtype.get("config", {}).get("name") if isinstance(dtype, dict) else dtype
    return isinstance(name, str) and name in POLICIES


def check_fit(path: str, old: keras.layers.Layer, new: keras.layers.Layer) -> None:
    """Refuse a copy whose type is too narrow for its weights.

    Raises:
        ValueError: a weight that was finite is not.
    """
    for variable in new.weights:
        if not np.isfinite(np.asarray(variable.numpy(), "float64")).all() and all_finite(old):
            raise ValueError(
                f"{variable.name} of the layer {path!r} does not fit {variable.dtype}. Choose a wider "
                "dtype, such as bfloat16 or mixed_float16."
            )


def all_finite(layer: keras.layers.Layer) -> bool:
    """Whether no weight of a layer is NaN or infinite."""
    return all(np.isfinite(np.asarray(weight.numpy(), "float64")).all() for weight in layer.weights)
