"""Copy one layer: make it anew from its configuration, and carry over its whole state."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import keras
import numpy as np

from .batch_norms import layer_paths, sublayers
from .messages import one_line

TRANSPOSED = tuple(getattr(keras.layers, f"Conv{rank}DTranspose") for rank in (1, 2, 3))

# Attributes of layers that may hold functions or objects of the user's, by their names or the endings of
# these, and what replaces them while Keras writes a layer's configuration. Keras could not serialise all
# such functions and objects, or not read them again.
STAND_INS = {
    "function": keras.activations.linear,
    "activation": keras.activations.linear,
    "recurrent_activation": keras.activations.linear,
    "_initializer": None,
    "_regularizer": None,
    "_constraint": None,
}


def like(layer: Any, config: dict[str, Any], policy: Any = None) -> Any:
    """A new layer of the same class from a configuration.

    What some versions of Keras leave out of configurations (policy, activity regulariser, output
    padding) is taken from `layer`.

    Args:
        policy: the dtype policy where the configuration has none; `None` for the layer's own.
    """
    if type(layer) is keras.layers.Lambda:
        return keras.layers.Lambda(**config)
    if not isinstance(layer, keras.layers.Layer):
        return type(layer).from_config(config)
    with _default_policy(layer.dtype_policy if policy is None else policy, "dtype" not in config):
        new = type(layer).from_config(config)
    if layer.activity_regularizer is not None and "activity_regularizer" not in config:
        new.activity_regularizer = layer.activity_regularizer
    _pad_alike(layer, new)
    return new


@contextmanager
def _default_policy(policy: Any, needed: bool) -> Iterator[None]:
    """Make `policy` the default if `needed`, as by a class that has no dtype in its configuration."""
    before = keras.config.dtype_policy()
    try:
        if needed:
            keras.config.set_dtype_policy(policy)
        yield
    finally:
        keras.config.set_dtype_policy(before)


def _pad_alike(old: keras.layers.Layer, new: keras.layers.Layer) -> None:
    if isinstance(old, TRANSPOSED):
        new.output_padding = old.output_padding
    for pair in zip(sublayers(old), sublayers(new)):  # noqa: B905 (copy_state compares their numbers)
        _pad_alike(*pair)


def configuration(layer: Any) -> dict[str, Any]:
    """A layer's configuration for a copy in the same process: the user's functions are in it as objects.

    Activations that are layers are copied, for Keras before 3.15 cannot read them. A layer that holds
    functions elsewhere defines `live_config()`, whose result its `from_config` accepts.
    """
    if type(layer) is keras.layers.Lambda:
        return keras.layers.Layer.get_config(layer) | {
            "function": layer.function,
            "mask": layer.mask,
            "arguments": dict(layer.arguments),
            "output_shape": vars(layer)["_output_shape"],  # get_config() alone has it
        }
    if hasattr(layer, "live_config"):
        return layer.live_config()
    with stood_in([layer]) as (own,):
        config = layer.get_config()
    if isinstance(layer, keras.layers.Lambda):  # a subclass, whose function `copy_layer` sets
        return config
    if own.keys() - config.keys() - {"activity_regularizer"}:
        return layer.get_config()  # a user's class that calls its arguments otherwise
    return config | {name: _copy_if_layer(value) for name, value in own.items() if name in config}


@contextmanager
def stood_in(layers: Iterable[Any]) -> Iterator[list[dict[str, Any]]]:
    """Put stand-ins of Keras' in place of the user's objects in layers; yields these by attribute."""
    layers = list(layers)
    own = [
        {name: value for name, value in vars(layer).items() if _is_users(name, value)}
        for layer in layers
    ]
    try:
        for layer, found in zip(layers, own, strict=True):
            vars(layer).update({name: STAND_INS[_kind(name)] for name in found})
        yield own
    finally:
        for layer, found in zip(layers, own, strict=True):
            vars(layer).update(found)


def _kind(name: str) -> str:
    """The key of `STAND_INS` that an attribute belongs to; `""` if to none."""
    ending = f"_{name.rpartition('_')[2]}"
    return name if name in STAND_INS else ending if ending in STAND_INS else ""


def _is_users(name: str, value: Any) -> bool:
    """Whether an attribute in `STAND_INS` holds a function or an object that is not Keras' own."""
    if not _kind(name) or not callable(value):
        return False
    if isinstance(value, keras.layers.Layer):
        return True
    own = value if hasattr(value, "__module__") and hasattr(value, "__name__") else type(value)
    return not str(own.__module__).startswith("keras.")


def _copy_if_layer(value: Any) -> Any:
    return like(value, configuration(value)) if isinstance(value, keras.layers.Layer) else value


class CannotCopyError(ValueError):
    """A layer cannot be made anew, or its copy does not take its state.

    Attributes:
        layer: that layer.
    """

    def __init__(self, layer: Any, message: str) -> None:
        super().__init__(message)
        self.layer = layer


def copy_layer(layer: Any, adapt: Callable[[dict[str, Any]], dict[str, Any]]) -> Any:
    """A copy of a layer, or of a Keras operation, from its configuration, without its state.

    Args:
        adapt: changes the configuration.

    Raises:
        CannotCopyError: the class cannot be made from its configuration.
    """
    try:
        config = adapt(configuration(layer))
        if not isinstance(layer, keras.layers.Layer):
            return like(layer, config)
        if isinstance(layer, keras.layers.Lambda) and type(layer) is not keras.layers.Lambda:
            # Safe: the configuration comes from this process, where the function runs already.
            new = type(layer).from_config(config, safe_mode=False)
            flags = {name: flag for name, flag in vars(layer).items() if name.startswith("_fn_expects")}
            vars(new).update({"function": layer.function} | flags)
            return new
        return like(layer, config, adapt({"dtype": layer.dtype_policy.name})["dtype"])
    except Exception as error:  # the class may be anybody's
        raise CannotCopyError(
            layer,
            f"The layer {layer.name!r} ({type(layer).__name__}) cannot be copied. Give its class a "
            "get_config() that returns all arguments of its __init__(), by which it can be made anew. "
            f"Making it so fails: {one_line(error)}",
        ) from error


def copy_state(
    old: keras.layers.Layer, new: keras.layers.Layer, axes: tuple[int, ...] | None = None
) -> None:
    """Copy the weights, assets and frozen flags of a layer and of all layers inside it.

    Args:
        axes: how to transpose the layer's own weights, as in `np.transpose`; `None` leaves them.
    """
    copy_flags(old, new)  # before the layers inside, whose flags this sets, too
    if getattr(old, "lora_enabled", False) or getattr(old, "quantization_mode", None):
        _copy_adapted(old, new)
    else:
        store: dict[str, Any] = {}
        old.save_own_variables(store)
        if axes is not None:
            store = {name: np.transpose(value, axes) for name, value in store.items()}
        new.load_own_variables(store)
    if hasattr(old, "save_assets"):
        with tempfile.TemporaryDirectory() as assets:
            old.save_assets(assets)
            new.load_assets(assets)
    inside_old, inside_new = sublayers(old), sublayers(new)
    if len(inside_old) != len(inside_new):
        raise ValueError(
            f"The layer {old.name!r} ({type(old).__name__}) holds {len(inside_old)} layers, and a copy "
            f"of it made from its configuration holds {len(inside_new)}. Create all of them in "
            "__init__() or build()."
        )
    for old_inside, new_inside in zip(inside_old, inside_new, strict=True):
        copy_state(old_inside, new_inside)


def _copy_adapted(old: keras.layers.Layer, new: keras.layers.Layer) -> None:
    """Copy each variable: Keras would save the sum of kernel and adapter, and quantize it anew."""
    if hasattr(old, "lora_alpha"):
        new.lora_alpha = old.lora_alpha
    values = {variable.name: variable for variable in old.variables}
    for variable in new.variables:
        variable.assign(values[variable.name])


def copy_flags(old: keras.layers.Layer, new: keras.layers.Layer) -> None:
    """Copy whether the layer is frozen, and whether each of its weights is, which may differ."""
    new.trainable = old.trainable
    for old_weight, new_weight in zip(old.weights, new.weights):  # noqa: B905 (folding may have added a bias)
        new_weight.trainable = old_weight.trainable


@contextmanager
def flags_kept(layers: list[keras.layers.Layer]) -> Iterator[None]:
    """At the end these layers, what is inside them, and their weights are frozen or not as before."""
    inside = [part for layer in layers for part in (layer, *layer_paths(layer).values())]
    weights = [weight for part in inside for weight in part.weights]
    flags = [(part, part.trainable) for part in (*inside, *weights)]
    yield
    for part, flag in flags:  # outermost first, and weights at last
        part.trainable = flag
