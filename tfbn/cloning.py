"""Rebuild a model layer by layer, replacing some layers and leaving some out.

The given model and its layers are not changed. Layers that are not replaced are copied with their whole
state. Only a model with a *readable graph* can be rebuilt (see `has_readable_graph`).
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from enum import Enum
from functools import cache
from typing import Any

import keras
import tensorflow as tf

from .batch_norms import layer_paths
from .copying import CannotCopyError, copy_flags, copy_layer, copy_state, flags_kept
from .declared_graph import (
    as_functional,
    declared_inputs,
    functional_class,
    goes_by_steps,
    has_readable_graph,
    input_like,
)
from .messages import no_model


class CloneAction(Enum):
    """What a rebuild does with a layer that it does not replace by another."""

    COPY = "copy it with its state"
    SKIP = "leave it out: its input takes the place of its output"


Choice = Callable[[keras.layers.Layer], "keras.layers.Layer | CloneAction"]
Adapt = Callable[[dict[str, Any]], dict[str, Any]]


def check_built(model: object, function: str, purpose: str) -> None:
    """Raise an error unless `model` is a built Keras model, which has weights to `purpose`."""
    if not isinstance(model, keras.Model):
        raise TypeError(f"{function} needs a keras.Model, {no_model(model)}")
    if not model.built:
        raise ValueError(
            f"The model {model.name!r} is not built, so it has no weights to {purpose}. Call it on a "
            "batch, or start it with keras.Input."
        )


def rebuild(
    model: keras.Model,
    choose: Choice,
    adapt: Adapt = dict,
    may_share: bool = False,
    for_inference: bool = False,
) -> tuple[keras.Model, dict[int, keras.layers.Layer]]:
    """A new model with the layers that `choose` picks.

    Args:
        model: a model with a readable graph. Such models inside it are rebuilt likewise.
        choose: called once for each layer that is no such model; returns a new layer or a `CloneAction`.
            The weights of a new layer are not touched; it is frozen if the old one is.
        adapt: changes the configuration of each layer that is copied.
        may_share: whether a layer that cannot be copied is used as it is, in both models.
        for_inference: whether weights that are arguments of calls become constants. Otherwise both
            models use the same, which are not among the new model's weights.

    Returns:
        The new, uncompiled model, and the new layer for each layer that was not left out, by the `id` of
        the old one.

    Raises:
        CannotCopyError: a layer cannot be made anew from its configuration.
    """
    as_they_are: set[int] = set()
    while True:
        try:
            return _Rebuilder(choose, adapt, may_share, for_inference, as_they_are).rebuild(model)
        except CannotCopyError as error:  # a copy did not take the layer's state
            if not may_share or id(error.layer) in as_they_are:
                raise
            as_they_are.add(id(error.layer))


class _Rebuilder:
    """One attempt of `rebuild`.

    Attributes:
        clones: what stands for each layer, by the `id` of the old one.
        copied, replaced: old and new layers.
        around: models and TimeDistributed layers, outermost first.
    """

    def __init__(
        self,
        choose: Choice,
        adapt: Adapt,
        may_share: bool,
        for_inference: bool,
        as_they_are: Collection[int],
    ) -> None:
        self.choose, self.adapt, self.may_share = choose, adapt, may_share
        self.for_inference, self.as_they_are = for_inference, as_they_are
        self.clones: dict[int, Any] = {}
        self.copied: list[tuple[keras.layers.Layer, keras.layers.Layer]] = []
        self.replaced: list[tuple[keras.layers.Layer, keras.layers.Layer]] = []
        self.around: list[keras.layers.Layer] = []

    def rebuild(self, model: keras.Model) -> tuple[keras.Model, dict[int, keras.layers.Layer]]:
        new, clones = self._clone(model), self.clones
        shared = [layer for layer in layer_paths(new).values() if clones.get(id(layer)) is layer]
        with flags_kept(shared):
            for outer in self.around:  # outermost first: a flag sets that of everything inside
                if clones[id(outer)] is not CloneAction.SKIP:
                    clones[id(outer)].trainable = outer.trainable
        for old_layer, new_layer in self.copied:
            self._copy_state(old_layer, new_layer)
        for old_layer, new_layer in self.replaced:
            copy_flags(old_layer, new_layer)
        return new, {key: layer for key, layer in clones.items() if layer is not CloneAction.SKIP}

    def _clone(self, layer: Any) -> Any:
        if id(layer) not in self.clones:
            if has_readable_graph(layer):
                self.around.append(layer)
                new = _rebuild_graph(layer, self._clone, self.for_inference)
                new.supports_masking = layer.supports_masking
                self.clones[id(layer)] = new
            else:
                self.clones[id(layer)] = self._make(layer)
        return self.clones[id(layer)]

    def _make(self, layer: Any) -> Any:
        if goes_by_steps(layer):
            self.around.append(layer)
            inner = self._clone(layer.layer)
            return inner if inner is CloneAction.SKIP else by_steps(layer, inner, self.adapt)
        is_layer = isinstance(layer, keras.layers.Layer)
        choice = self.choose(layer) if is_layer else CloneAction.COPY
        if choice is CloneAction.COPY:
            choice = self._copy_or_share(layer)
            if is_layer and choice is not layer:
                self.copied.append((layer, choice))
        elif choice is not CloneAction.SKIP:
            self.replaced.append((layer, choice))
        return choice

    def _copy_or_share(self, layer: Any) -> Any:
        if id(layer) in self.as_they_are:
            return layer
        try:
            return copy_layer(layer, self.adapt if isinstance(layer, keras.layers.Layer) else dict)
        except CannotCopyError:
            if not self.may_share:
                raise
            return layer

    def _copy_state(self, old: keras.layers.Layer, new: keras.layers.Layer) -> None:
        try:
            copy_state(old, new)
        except Exception as error:  # the class may be anybody's
            if not self.may_share:
                raise
            raise CannotCopyError(old, str(error)) from error


def by_steps(
    layer: keras.layers.TimeDistributed, inner: keras.layers.Layer, adapt: Adapt = dict
) -> keras.layers.Layer:
    """A layer like one that goes by steps (see `goes_by_steps`), around another inner layer."""
    dtype = adapt({"dtype": layer.dtype_policy.name})["dtype"]
    new = type(layer)(inner, name=layer.name, dtype=dtype)
    new.activity_regularizer = layer.activity_regularizer
    return new


def _rebuild_graph(model: keras.Model, clone: Callable[[Any], Any], for_inference: bool) -> keras.Model:
    """The model's graph over the layers that `clone` returns.

    Where all layers between an input and an output are left out, an Identity with the first one's name
    takes their place: Keras 3.10 to 3.14 refuse a model whose output is its input.
    """
    if isinstance(model, keras.Sequential):
        layers = [new for layer in model.layers if (new := clone(layer)) is not CloneAction.SKIP]
        layers = layers or [keras.layers.Identity(name=model.layers[0].name)]
        return keras.Sequential([input_like(model, declared_inputs(model)), *layers], name=model.name)

    inputs = tf.nest.map_structure(lambda tensor: input_like(model, tensor), model.input)
    at_inputs = {id(tensor) for tensor in tf.nest.flatten(inputs)}
    # By `id` of an output of an Identity or a cast: that output, and the input.
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
        # Only outputs of the model need an Identity, and a layer that casts its inputs needs no cast.
        before = identities | casts if _casts_inputs(layer) else identities
        if before:
            args, kwargs = tf.nest.map_structure(
                lambda leaf: before.get(id(leaf), (leaf, leaf))[1], (args, kwargs)
            )
        if for_inference:
            args, kwargs = tf.nest.map_structure(_without_variable, (args, kwargs))
        out = layer(*args, **kwargs)
        if _is_layers_cast(layer, out, *args):
            casts[id(out)] = out, args[0]
        return out

    # Of an uncompiled model, or clone_model makes a second optimizer, with slots for all weights.
    return keras.models.clone_model(
        as_functional(model),
        input_tensors=inputs,
        clone_function=lambda layer: (layer.name, clone(layer)),
        call_function=call,
    )


def _without_variable(leaf: Any) -> Any:
    return keras.ops.copy(leaf) if isinstance(leaf, keras.Variable) else leaf


@cache
def cast_before_layers() -> type | None:
    """The class of operation by which Keras 3.8 and 3.9 cast the inputs of a layer; `None` in others.

    There it is a node in the graph before the layer; elsewhere the layer casts when it is called.
    """
    x = keras.Input((1,), dtype="float32", name="tfbn_probe")
    model = keras.Model(x, keras.layers.Identity(dtype="float16")(x), name="tfbn_probe")
    between = [
        operation for operation in model.operations if not isinstance(operation, keras.layers.Layer)
    ]
    return type(between[0]) if between else None


def _is_layers_cast(operation: Any, out: Any, *args: Any) -> bool:
    """Whether a call is such a cast: from one floating-point type to another."""
    cast = cast_before_layers()
    if cast is None or type(operation) is not cast:
        return False
    return bool(args) and all(tf.as_dtype(tensor.dtype).is_floating for tensor in (args[0], out))


def _casts_inputs(layer: Any) -> bool:
    """Whether a layer casts its inputs to its own type; Functional models leave that to their layers."""
    return (
        isinstance(layer, keras.layers.Layer)
        and layer.autocast
        and not isinstance(layer, functional_class())
    )
