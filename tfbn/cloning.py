"""Rebuild a model layer by layer, replacing some layers and leaving some out.

The given model and its layers are never touched, and everything that is not replaced carries its whole
state over.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from enum import Enum
from functools import cache
from typing import Any

import keras
import tensorflow as tf

from .copying import copy_flags, copy_layer, copy_state
from .messages import no_model


class CloneAction(Enum):
    """What a rebuild can do with a layer besides putting a given one in its place."""

    COPY = "copy it with its state"
    SKIP = "leave it out: what went in goes on"


# What Keras calls an input that was given no name, before and after saving: a counter, another in each
# process, on which no client should depend.
AUTOMATIC_NAME = re.compile(r"(keras_tensor|input_layer)(_\d+)?")

Choice = Callable[[keras.layers.Layer], "keras.layers.Layer | CloneAction"]


def check_built(model: object, function: str, purpose: str) -> None:
    """Refuse what `function` cannot take: no Keras model, or one without weights to `purpose`."""
    if not isinstance(model, keras.Model):
        raise TypeError(f"{function} needs a keras.Model, {no_model(model)}")
    if not model.built:
        raise ValueError(
            f"The model {model.name!r} is not built, so it has no weights to {purpose}. Call it on a "
            "batch, or start it with keras.Input."
        )


def has_readable_graph(model: object) -> bool:
    """Whether `model` is a Sequential or Functional model that runs just the graph it shows.

    A model with a `call` of its own is opaque, also when it was made from inputs and outputs.
    """
    if not isinstance(model, keras.Model) or not model.built:
        return False
    if isinstance(model, keras.Sequential):
        try:
            return type(model).call is keras.Sequential.call and bool(model.inputs)
        except (AttributeError, ValueError):  # what Keras' versions raise where none are declared
            return False
    functional = functional_class()
    return isinstance(model, functional) and type(model).call is functional.call


def goes_by_steps(layer: object) -> bool:
    """Whether a layer is TimeDistributed, or a class of it that says that it does no more."""
    own = type(layer) is keras.layers.TimeDistributed
    return own or getattr(layer, "applies_its_layer_to_each_step", False)


@cache
def functional_class() -> type[keras.Model]:
    """The class behind `keras.Model(inputs, outputs)`, which has no public name."""
    x = keras.Input((1,), name="tfbn_probe")
    # Of a layer, for Keras 3.10 to 3.14 make no model whose input feeds nothing.
    return type(keras.Model(x, keras.layers.Identity()(x), name="tfbn_probe"))


def operation_class(x: keras.KerasTensor, result: Any) -> type:
    """The class of the Keras operation that made a result of `x`, which has no public name."""
    return type(keras.Model(x, result, name="tfbn_probe").operations[-1])


def rebuild(
    model: keras.Model, choose: Choice, adapt: Callable[[dict[str, Any]], dict[str, Any]] = dict
) -> tuple[keras.Model, dict[int, keras.layers.Layer]]:
    """A new model with the layers that `choose` picks.

    Args:
        model: an open model (see `has_readable_graph`). Open models inside it are rebuilt likewise.
        choose: called once for each layer that is not an open model; returns a new layer, whose
            weights stay as they are and which is frozen or not as the old one is, or a `CloneAction`.
        adapt: changes the configuration of each layer that is copied.

    Returns:
        The new model, uncompiled, and the new layer for each layer kept, by `id` of the old one.

    Raises:
        ValueError: a layer cannot be made anew from its configuration.
    """
    clones: dict[int, Any] = {}
    copied: list[tuple[keras.layers.Layer, keras.layers.Layer]] = []
    replaced: list[tuple[keras.layers.Layer, keras.layers.Layer]] = []
    around: list[keras.layers.Layer] = []  # models and TimeDistributed, outermost first

    def clone(layer: keras.layers.Layer) -> Any:
        if id(layer) not in clones:
            if has_readable_graph(layer):
                around.append(layer)
                clones[id(layer)] = _rebuild_open(layer, clone)
            else:
                clones[id(layer)] = make(layer)
        return clones[id(layer)]

    def make(layer: keras.layers.Layer) -> Any:
        if goes_by_steps(layer):
            around.append(layer)
            inner = clone(layer.layer)
            return inner if inner is CloneAction.SKIP else by_steps(layer, inner)
        choice = choose(layer) if isinstance(layer, keras.layers.Layer) else CloneAction.COPY
        if choice is CloneAction.COPY:
            choice = copy_layer(layer, adapt if isinstance(layer, keras.layers.Layer) else dict)
            if isinstance(layer, keras.layers.Layer):
                copied.append((layer, choice))
        elif choice is not CloneAction.SKIP:
            replaced.append((layer, choice))
        return choice

    def by_steps(layer: keras.layers.TimeDistributed, inner: keras.layers.Layer) -> keras.layers.Layer:
        dtype = adapt({"dtype": layer.dtype_policy.name})["dtype"]
        new = type(layer)(inner, name=layer.name, dtype=dtype)
        new.activity_regularizer = layer.activity_regularizer
        return new

    new = clone(model)
    for outer in around:  # outermost first: a flag sets that of everything inside
        if clones[id(outer)] is not CloneAction.SKIP:
            clones[id(outer)].trainable = outer.trainable
    for old_layer, new_layer in copied:
        copy_state(old_layer, new_layer)
    for old_layer, new_layer in replaced:
        copy_flags(old_layer, new_layer)
    return new, {key: layer for key, layer in clones.items() if layer is not CloneAction.SKIP}


def declared_inputs(model: keras.Model) -> Any:
    """The symbolic inputs of an open model, structured as it takes them."""
    return model.inputs[0] if isinstance(model, keras.Sequential) else model.input


def as_functional(model: keras.Model) -> keras.Model:
    """The same graph over the same layers as a Functional model, without losses and optimizer."""
    outputs = model.outputs if isinstance(model, keras.Sequential) else model.output
    return keras.Model(declared_inputs(model), outputs, name=model.name)


def _rebuild_open(model: keras.Model, clone: Callable[[Any], Any]) -> keras.Model:
    """An open model of the new layers.

    An input that goes out as it came in passes an Identity, called as the first layer left out there:
    Keras 3.10 to 3.14 refuse a model whose input feeds nothing.
    """
    if isinstance(model, keras.Sequential):
        layers = [new for layer in model.layers if (new := clone(layer)) is not CloneAction.SKIP]
        layers = layers or [keras.layers.Identity(name=model.layers[0].name)]
        return keras.Sequential([input_like(model, declared_inputs(model)), *layers], name=model.name)

    inputs = tf.nest.map_structure(lambda one: input_like(model, one), model.input)
    at_inputs = {id(one) for one in tf.nest.flatten(inputs)}
    # By what an Identity and a cast make: that itself, and what they are of.
    identities: dict[int, tuple[Any, Any]] = {}
    casts: dict[int, tuple[Any, Any]] = {}

    def call(named: tuple[str, Any], *args: Any, **kwargs: Any) -> Any:
        name, layer = named
        if layer is CloneAction.SKIP:
            tensor = args[0] if args else kwargs["inputs"]
            if id(tensor) not in at_inputs:
                return tensor
            out = keras.layers.Identity(name=name)(tensor)
            identities[id(out)] = out, tensor
            return out
        # An Identity is for outputs alone, and a layer that casts what it is given does so again.
        before = identities | casts if _casts_inputs(layer) else identities
        if before:
            args, kwargs = tf.nest.map_structure(
                lambda one: before.get(id(one), (one, one))[1], (args, kwargs)
            )
        out = layer(*args, **kwargs)
        if _is_layers_cast(layer, out, *args):
            casts[id(out)] = out, args[0]
        return out

    # Uncompiled first: clone_model would make a second optimizer, with a slot for every weight.
    return keras.models.clone_model(
        as_functional(model),
        input_tensors=inputs,
        clone_function=lambda layer: (layer.name, clone(layer)),
        call_function=call,
    )


@cache
def cast_before_layers() -> type | None:
    """The operation by which Keras 3.8 and 3.9 cast what a layer is given; `None` where layers do it.

    It stands in the graph before the layer, with the type that the layer had then.
    """
    x = keras.Input((1,), dtype="float32", name="tfbn_probe")
    model = keras.Model(x, keras.layers.Identity(dtype="float16")(x), name="tfbn_probe")
    between = [one for one in model.operations if not isinstance(one, keras.layers.Layer)]
    return type(between[0]) if between else None


def _is_layers_cast(operation: Any, out: Any, *args: Any) -> bool:
    """Whether a call is a cast such as layers make: from one floating-point type to another."""
    cast = cast_before_layers()
    if cast is None or type(operation) is not cast:
        return False
    return bool(args) and all(tf.as_dtype(one.dtype).is_floating for one in (args[0], out))


def _casts_inputs(layer: Any) -> bool:
    """Whether a layer casts what it is given to its own type; Functional models leave that to theirs."""
    return (
        isinstance(layer, keras.layers.Layer)
        and layer.autocast
        and not isinstance(layer, functional_class())
    )


def input_like(
    model: keras.Model, tensor: keras.KerasTensor, shape: tuple[int | None, ...] | None = None
) -> keras.KerasTensor:
    """A new symbolic input: sparse, optional and named as the model's, perhaps of another shape."""
    shape = tensor.shape if shape is None else shape
    for layer in model.layers:
        if isinstance(layer, keras.layers.InputLayer) and layer.output is tensor:
            # Before Keras 3.13 the configuration does not say that an input is optional.
            changed = {"batch_shape": shape, "optional": layer.optional}
            return type(layer).from_config(layer.get_config() | changed).output
    return keras.Input(batch_shape=shape, dtype=tensor.dtype, sparse=tensor.sparse, name=tensor.name)
