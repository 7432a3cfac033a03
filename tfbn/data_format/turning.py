"""A model turned from channels first to channels last.

The model is called anew, layer by layer. Each tensor is held in a layout of its own (see `layouts`):
inputs as they were, what a channels-first layer makes channels last. A rule says in which layout a
layer takes its tensors; where they are held in another, a Permute goes between.
"""

from __future__ import annotations

import sys
from contextlib import nullcontext
from typing import Any

import keras
import numpy as np

from ..batch_norms import layer_paths, some
from ..cloning import (
    AUTOMATIC_NAME,
    copy_layer,
    copy_state,
    declared_inputs,
    input_like,
    is_open,
    uncompiled,
)
from .layouts import Layout, natural, transposed
from .rules import CannotTurnError, Given, Turned, as_it_was
from .tables import rule_of
from .tensors import HeldTensors, is_masked

L = keras.layers


def has_channels_first(model: keras.layers.Layer) -> bool:
    """Whether a layer of the model, at any depth, or a Keras operation in it is channels first."""
    return bool(_channels_first(model))


def to_channels_last(model: keras.Model, *, check_biases: bool = True) -> keras.Model:
    """A copy of an open model with every layer channels last, that takes and gives what it did.

    Args:
        model: an open model (see `tfbn.cloning.is_open`). It is not changed.
        check_biases: refuse a model in which Keras adds a bias along another axis than the
            channels', for channels last it would not.

    Returns:
        A new, uncompiled model that shares nothing with the given one.

    Raises:
        ValueError: a layer cannot be turned round, or not be copied.
    """
    turning = _Turning(model)
    new = turning.whole(model)
    if left := _channels_first(new):
        raise ValueError(
            f"The model {model.name!r} cannot be turned round: {some(left)} would stay channels first, "
            "because how to turn them is not known. Make them channels last in the code of the model."
        )
    if check_biases and turning.misplaced:
        raise ValueError(
            f"The model {model.name!r} cannot be turned round: the outputs of {some(turning.misplaced)} "
            "are as long along the last axis as they have channels, and there Keras adds the bias of a "
            "channels-first layer along that axis. Channels last it goes to the channels, so that the "
            "model would predict something else. Set these biases to 0 and train on."
        )
    turning.copy_states()
    if not isinstance(model, keras.Sequential):
        new.output_names = list(model.output_names)  # losses and metrics go by them
    return new


def _channels_first(model: keras.layers.Layer) -> list[str]:
    """The paths of the layers, and names of the operations, that are channels first."""
    layers = layer_paths(model)
    models = [one for one in (model, *layers.values()) if is_open(one)]
    operations = [
        (operation.name, operation)
        for one in models
        for operation in uncompiled(one).operations
        if not isinstance(operation, L.Layer)
    ]
    return [
        f"{path!r} ({type(one).__name__})"
        for path, one in (*layers.items(), *operations)
        if getattr(one, "data_format", None) == "channels_first"
    ]


class _Turning:
    """One model being turned.

    Attributes:
        misplaced: the layers whose bias Keras adds along the last axis instead of the channels'.
    """

    def __init__(self, model: keras.Model) -> None:
        self.misplaced: list[str] = []
        self._tensors = HeldTensors({one.name for one in layer_paths(model).values()})
        self._called: dict[int, tuple[Any, Turned]] = {}
        self._models: list[tuple[keras.Model, keras.Model]] = []
        self._copied: list[tuple[Any, Any, tuple[int, ...] | None]] = []
        # The layouts of what a model within gives, by its `id`.
        self._results: dict[int, list[Layout]] = {}

    def whole(self, model: keras.Model) -> keras.Model:
        """The model turned, with inputs and outputs as they were."""
        ranks = [len(tensor.shape) for tensor in model.inputs]
        return self._rebuilt(model, [natural(rank) for rank in ranks], border=True)[0]

    def copy_states(self) -> None:
        for old, new in self._models:  # outermost first: a model's flag sets that of everything in it
            new.trainable = old.trainable
        for old, new, axes in self._copied:
            copy_state(old, new, axes)

    def _rebuilt(
        self, model: keras.Model, layouts: list[Layout], border: bool = False
    ) -> tuple[keras.Model, list[Layout]]:
        """A new model that takes its inputs in the given layouts, and the layouts of its outputs.

        Args:
            border: whether the outputs are as they were.
        """
        place = len(self._models)
        given = iter(layouts)
        inputs = keras.tree.map_structure(
            lambda tensor: self._input(model, tensor, next(given)), declared_inputs(model)
        )
        if isinstance(model, keras.Sequential):
            outputs = inputs
            for layer in model.layers:
                # A Sequential model's own layers have its name in the paths of their variables.
                with nullcontext() if is_open(layer) else keras.name_scope(model.name):
                    outputs = self.call(layer, outputs)
        else:
            outputs = keras.models.clone_model(
                uncompiled(model),
                input_tensors=inputs,
                clone_function=lambda operation: operation,
                call_function=self.call,
            ).output
        if border:
            outputs = keras.tree.map_structure(self._tensors.as_it_was, outputs)
        new = keras.Model(inputs, outputs, name=model.name)
        if isinstance(model, keras.Sequential):
            new = keras.Sequential([inputs, *new.layers[1:]], name=model.name)
        self._models.insert(place, (model, new))
        return new, [self._tensors.layout(tensor) for tensor in keras.tree.flatten(outputs)]

    def _input(self, model: keras.Model, tensor: keras.KerasTensor, layout: Layout) -> keras.KerasTensor:
        new = input_like(model, tensor, transposed(tensor.shape, layout))
        source = "inputs" if AUTOMATIC_NAME.fullmatch(tensor.name) else tensor.name
        return self._tensors.hold(new, layout, source)

    def call(self, operation: Any, *args: Any, **kwargs: Any) -> Any:
        """Call the new layer that stands for a layer, or Keras operation, on new tensors."""
        mask = kwargs.pop("mask", None)
        leaves = keras.tree.flatten((args, kwargs))
        tensors = [leaf for leaf in leaves if isinstance(leaf, keras.KerasTensor)]
        new, turned = self._turned(operation, tensors, _fixed(leaves, mask), args)
        wanted = iter(turned.inputs)

        def held(leaf: Any) -> Any:
            symbolic = isinstance(leaf, keras.KerasTensor)
            return self._tensors.in_layout(leaf, next(wanted)) if symbolic else leaf

        args, kwargs = keras.tree.map_structure(held, (args, kwargs))
        if mask is not None:
            kwargs["mask"] = mask
        outputs = new(*args, **kwargs)
        results = self._results.get(id(operation))
        for number, tensor in enumerate(keras.tree.flatten(outputs)):
            layout = results[number] if results else turned.output(len(tensor.shape))
            self._tensors.hold(tensor, layout, operation.name)
        self._note_misplaced(operation, outputs)
        if turned.activation is None:
            return outputs
        name = self._tensors.new_name(f"{operation.name}_activation")
        apart = L.Activation(turned.activation, name=name, dtype=operation.dtype_policy)
        result = apart(self._tensors.as_it_was(outputs))
        return self._tensors.hold(result, natural(len(result.shape)), operation.name)

    def _turned(
        self, operation: Any, tensors: list[keras.KerasTensor], fixed: int, args: Any
    ) -> tuple[Any, Turned]:
        """The new layer, and how it takes its tensors: as in its first call.

        Args:
            fixed: how many of the first axes must stay.
        """
        given = [self._tensors.given(tensor) for tensor in tensors]
        ranks = [one.rank for one in given]
        if id(operation) not in self._called:
            if is_open(operation):
                found = self._nested(operation, given, args)
            else:
                try:
                    turned = rule_of(operation)(operation, given)
                except CannotTurnError as reason:
                    kind = type(operation).__name__
                    raise ValueError(
                        f"The layer {operation.name!r} ({kind}) cannot be turned round: {reason}. Make "
                        "it channels last in the code of the model."
                    ) from None
                moved = any(one[:fixed] != natural(len(one))[:fixed] for one in turned.inputs)
                # A Permute loses masks; what would stand for it does not.
                if moved or (turned.layer is not None and is_masked(tensors[0])):
                    turned = as_it_was(operation, given)
                found = self._made(operation, turned), turned
            self._called[id(operation)] = found
        new, turned = self._called[id(operation)]
        if ranks == [len(layout) for layout in turned.inputs]:
            return new, turned
        if all(layout == natural(len(layout)) for layout in turned.inputs):
            return new, as_it_was(operation, given)
        raise ValueError(
            f"The layer {operation.name!r} cannot be turned round, because it is called on tensors of "
            "several ranks. Make it a layer for each."
        )

    def _nested(self, model: keras.Model, given: list[Given], args: Any) -> tuple[keras.Model, Turned]:
        """A model within: it takes its tensors as they are held, those of one rank in one layout."""
        fits = [len(one.shape) for one in model.inputs] == [one.rank for one in given]
        if len(given) > 1 and fits:  # in another structure they may be in another order
            try:
                keras.tree.assert_same_structure(args[0], model.input)
            except (ValueError, TypeError, IndexError):
                fits = False
        moved = {one.rank: one.layout for one in given if fits and one.layout != natural(one.rank)}
        layouts = [moved.get(one.rank, natural(one.rank)) for one in given]
        inside = layouts if fits else [natural(len(one.shape)) for one in model.inputs]
        new, self._results[id(model)] = self._rebuilt(model, inside)
        return new, Turned(tuple(layouts))

    def _made(self, operation: Any, turned: Turned) -> Any:
        if turned.layer is not None:
            return turned.layer
        within = operation.layer if type(operation) is L.TimeDistributed else None
        if turned.inside is not None or is_open(within):
            place = len(self._models)
            inner = self.whole(within) if turned.inside is None else self._made(*turned.inside)
            new = L.TimeDistributed(inner, name=operation.name, dtype=operation.dtype_policy)
            self._models.insert(place, (operation, new))
            return new
        new = copy_layer(operation, lambda config: config | turned.config)
        if isinstance(operation, L.Layer):
            self._copied.append((operation, new, turned.weights))
        return new

    def _note_misplaced(self, operation: Any, outputs: Any) -> None:
        """A bias that is not 0, where the last axis is as long as the channels' (see `axes`)."""
        first = getattr(operation, "data_format", None) == "channels_first"
        if not first or getattr(operation, "bias", None) is None or not np.any(operation.bias):
            return
        shape = self._tensors.given(outputs).shape if isinstance(outputs, keras.KerasTensor) else ()
        if len(shape) > 2 and 1 != shape[1] == shape[-1] and "ConvLSTM" not in type(operation).__name__:
            self.misplaced.append(repr(operation.name))


def _fixed(leaves: list[Any], mask: Any) -> int:
    """How many of the first axes must stay: those of masks that Keras records; all for constants."""
    symbolic = keras.KerasTensor
    if any(
        np.ndim(leaf) for leaf in leaves if hasattr(leaf, "shape") and not isinstance(leaf, symbolic)
    ):
        return sys.maxsize
    masks = [one for one in keras.tree.flatten(mask) if isinstance(one, symbolic)]
    return max((len(one.shape) for one in masks), default=0)
