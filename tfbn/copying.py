"""One layer made anew, and its whole state carried over."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from typing import Any

import keras
import numpy as np

from .batch_norms import sublayers
from .messages import one_line

TRANSPOSED = tuple(getattr(keras.layers, f"Conv{rank}DTranspose") for rank in (1, 2, 3))


def like(layer: Any, config: dict[str, Any]) -> Any:
    """A layer of the same class from a configuration, and what some of Keras' versions leave out."""
    new = type(layer).from_config(config)
    if not isinstance(layer, keras.layers.Layer):
        return new
    if layer.activity_regularizer is not None and "activity_regularizer" not in config:
        new.activity_regularizer = layer.activity_regularizer
    _pad_alike(layer, new)
    return new


def _pad_alike(old: keras.layers.Layer, new: keras.layers.Layer) -> None:
    if isinstance(old, TRANSPOSED):
        new.output_padding = old.output_padding
    for pair in zip(sublayers(old), sublayers(new)):  # noqa: B905 (whether they are as many is seen later)
        _pad_alike(*pair)


def configuration(layer: Any) -> dict[str, Any]:
    """A layer's configuration, to make another from in this process: the user's functions are in it.

    Keras would write them down, which is not possible for all, and not be able to read them again.
    Layers as activations, which it cannot read before 3.15, are copied.
    """
    names = ("activation", "recurrent_activation")
    functions = {name: value for name in names if callable(value := vars(layer).get(name))}
    own = [name for name, value in functions.items() if value not in vars(keras.activations).values()]
    try:
        vars(layer).update(dict.fromkeys(own, keras.activations.linear))
        config = layer.get_config()
    finally:
        vars(layer).update(functions)
    return config | {name: _for_another(functions[name]) for name in own if name in config}


def _for_another(activation: Any) -> Any:
    is_layer = isinstance(activation, keras.layers.Layer)
    return like(activation, configuration(activation)) if is_layer else activation


def copy_layer(layer: Any, adapt: Callable[[dict[str, Any]], dict[str, Any]]) -> Any:
    """A layer, or Keras operation, made anew from its adapted configuration, without state.

    Raises:
        ValueError: that fails.
    """
    try:
        config = adapt(configuration(layer))
        if isinstance(layer, keras.layers.Lambda):
            # The function is already alive in this process: nothing foreign is unmarshalled.
            new = type(layer).from_config(config, safe_mode=False)
            new.function = layer.function
            return new
        return like(layer, config)
    except Exception as error:  # the class may be anybody's
        raise ValueError(
            f"The layer {layer.name!r} ({type(layer).__name__}) cannot be copied, because making it "
            f"anew from its configuration fails: {one_line(error)} Give the class a get_config() that "
            "returns all arguments of its __init__()."
        ) from error


def copy_state(
    old: keras.layers.Layer, new: keras.layers.Layer, axes: tuple[int, ...] | None = None
) -> None:
    """Weights, assets and frozen flags of a layer and of all layers inside it.

    Args:
        axes: transposes the layer's own weights, as `np.transpose` does.
    """
    copy_flags(old, new)  # outermost first: a layer's flag sets that of everything inside it
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


def copy_flags(old: keras.layers.Layer, new: keras.layers.Layer) -> None:
    """Whether a layer is frozen, and each of its weights, for one may be so alone."""
    new.trainable = old.trainable
    for old_weight, new_weight in zip(old.weights, new.weights):  # noqa: B905 (a bias that folding made)
        new_weight.trainable = old_weight.trainable
