"""Rebuild a channels-first model as a channels-last one.

The model is called again on new inputs, layer by layer. Each new tensor is held in some layout (see
`layouts`): inputs in their original layout, outputs of formerly channels-first layers channels last. A
rule says in which layouts a layer takes its tensors. Where one is held in another layout, a Permute
layer is put between.
"""

from __future__ import annotations

import sys
from contextlib import nullcontext
from dataclasses import replace
from typing import Any

import keras
import numpy as np

from ..batch_norms import layer_paths
from ..copying import copy_layer, copy_state
from ..declared_graph import (
    AUTOMATIC_NAME,
    as_functional,
    declared_inputs,
    has_readable_graph,
    input_like,
)
from ..messages import join_some
from .layouts import Layout, natural, transposed
from .rules import CannotTurnError, Given, Turned, as_it_was
from .support import bias_misplaced, channels_first
from .tables import rule_of
from .tensors import HeldTensors, is_masked

L = keras.layers


def to_channels_last(model: keras.Model, *, check_biases: bool = True) -> keras.Model:
    """A copy of a model with every layer channels last, and with the same inputs and outputs.

    Args:
        model: one with a readable graph (see `declared_graph.has_readable_graph`). It is not changed.
        check_biases: whether to refuse a model in which Keras adds a bias along another axis than the
            channels', which the channels-last model does not.

    Returns:
        A new, uncompiled model that shares nothing with the given one.

    Raises:
        ValueError: a layer cannot be made channels last, or cannot be copied.
    """
    turning = _Turning(model)
    new = turning.whole(model)
    if left := channels_first(new):
        raise ValueError(
            f"The model {model.name!r} cannot be made channels last: {join_some(left)} would stay "
            "channels first, for it is not known how to transpose what that computes. Change it in the "
            "code."
        )
    if check_biases and turning.misplaced:
        raise ValueError(
            f"The model {model.name!r} cannot be made channels last: the outputs of "
            f"{join_some(turning.misplaced)} are as long along the last axis as they have channels, and "
            "there Keras adds the bias of a channels-first layer along that axis. Channels last, it "
            "goes to the channels, so that the model would predict something else. Set these biases to "
            "0 and train on."
        )
    for output, original in zip(new.outputs, model.outputs, strict=True):
        if tuple(output.shape) != tuple(original.shape):
            raise ValueError(
                f"The model {model.name!r} cannot be made channels last: an output of the shape "
                f"{original.shape} would have the shape {output.shape}. Please report this with the "
                "model."
            )
    turning.copy_states()
    if not isinstance(model, keras.Sequential):
        new.output_names = list(model.output_names)  # losses and metrics go by them
    return new


class _Turning:
    """The rebuilding of one model.

    Attributes:
        misplaced: the layers whose bias Keras adds along the last axis instead of the channels'.
    """

    def __init__(self, model: keras.Model) -> None:
        self.misplaced: list[str] = []
        self._tensors = HeldTensors({layer.name for layer in layer_paths(model).values()})
        self._called: dict[int, tuple[Any, Turned]] = {}
        self._models: list[tuple[keras.Model, keras.Model]] = []
        self._copied: list[tuple[Any, Any, tuple[int, ...] | None]] = []
        # The layouts of the outputs of nested models, by `id` of the model.
        self._results: dict[int, list[Layout]] = {}

    def whole(self, model: keras.Model) -> keras.Model:
        """The new model, with inputs and outputs in their original layouts."""
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
            border: whether the outputs are put into their original layouts.
        """
        place = len(self._models)
        given = iter(layouts)
        inputs = keras.tree.map_structure(
            lambda tensor: self._input(model, tensor, next(given)), declared_inputs(model)
        )
        if isinstance(model, keras.Sequential):
            outputs = inputs
            for layer in model.layers:
                # In a Sequential model, the paths of variables begin with the model's name.
                with nullcontext() if has_readable_graph(layer) else keras.name_scope(model.name):
                    outputs = self.call(layer, outputs)
        else:
            outputs = keras.models.clone_model(
                as_functional(model),
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
        """Call the new layer of a layer, or of a Keras operation, on new tensors."""
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
            kwargs["mask"] = keras.tree.map_structure(
                lambda leaf: (
                    self._tensors.as_it_was(leaf) if isinstance(leaf, keras.KerasTensor) else leaf
                ),
                mask,
            )
        outputs = new(*args, **kwargs)
        results = self._results.get(id(operation))
        for number, tensor in enumerate(keras.tree.flatten(outputs)):
            layout = results[number] if results else turned.output(len(tensor.shape))
            self._tensors.hold(tensor, layout, operation.name)
        if isinstance(outputs, keras.KerasTensor) and bias_misplaced(
            operation, self._tensors.given(outputs).shape
        ):
            self.misplaced.append(repr(operation.name))
        if turned.activation is None:
            return outputs
        name = self._tensors.new_name(f"{operation.name}_activation")
        apart = L.Activation(
            turned.activation,
            name=name,
            dtype=operation.dtype_policy,
            activity_regularizer=operation.activity_regularizer,
        )
        result = apart(self._tensors.as_it_was(outputs))
        return self._tensors.hold(result, natural(len(result.shape)), operation.name)

    def _turned(
        self, operation: Any, tensors: list[keras.KerasTensor], fixed: int, args: Any
    ) -> tuple[Any, Turned]:
        """The new layer, made at the first call, and how to call it.

        Args:
            fixed: how many of the first axes must keep their places.
        """
        given = [self._tensors.given(tensor) for tensor in tensors]
        ranks = [tensor.rank for tensor in given]
        if id(operation) not in self._called:
            if has_readable_graph(operation):
                found = self._nested(operation, given, args)
            else:
                try:
                    turned = rule_of(operation)(operation, given)
                except CannotTurnError as reason:
                    kind = type(operation).__name__
                    raise ValueError(
                        f"The layer {operation.name!r} ({kind}) cannot be made channels last: {reason}. "
                        "Change it in the code of the model."
                    ) from None
                moved = any(layout[:fixed] != natural(len(layout))[:fixed] for layout in turned.inputs)
                # A Permute loses masks, and an Identity in its place would not.
                if moved or (turned.layer is not None and is_masked(tensors[0])):
                    turned = as_it_was(operation, given)
                found = self._made(operation, turned), turned
            self._called[id(operation)] = found
        new, turned = self._called[id(operation)]
        if ranks == [len(layout) for layout in turned.inputs]:
            return new, turned
        layouts = set(turned.inputs)
        # Another number of tensors than in the first call.
        if len(layouts) == 1 and {len(layout) for layout in layouts} == set(ranks):
            return new, replace(turned, inputs=(*layouts,) * len(ranks))
        if all(layout == natural(len(layout)) for layout in turned.inputs):
            return new, as_it_was(operation, given)
        raise ValueError(
            f"The layer {operation.name!r} cannot be made channels last, because it is called on "
            "tensors of several ranks. Make it a layer for each."
        )

    def _nested(self, model: keras.Model, given: list[Given], args: Any) -> tuple[keras.Model, Turned]:
        """A nested model: it takes its tensors as they are held, those of one rank in one layout."""
        fits = [len(tensor.shape) for tensor in model.inputs] == [tensor.rank for tensor in given]
        if len(given) > 1 and fits:  # in another structure the order may differ
            try:
                keras.tree.assert_same_structure(args[0], model.input)
            except (ValueError, TypeError, IndexError):
                fits = False
        moved = {
            tensor.rank: tensor.layout
            for tensor in given
            if fits and tensor.layout != natural(tensor.rank)
        }
        layouts = [moved.get(tensor.rank, natural(tensor.rank)) for tensor in given]
        inside = layouts if fits else [natural(len(tensor.shape)) for tensor in model.inputs]
        new, self._results[id(model)] = self._rebuilt(model, inside)
        return new, Turned(tuple(layouts))

    def _made(self, operation: Any, turned: Turned) -> Any:
        if turned.layer is not None:
            return turned.layer
        if type(operation) is L.TimeDistributed:
            place = len(self._models)
            inner = self._inside_time_distributed(*(turned.inside or (operation.layer, Turned(()))))
            new = L.TimeDistributed(
                inner,
                name=operation.name,
                dtype=operation.dtype_policy,
                activity_regularizer=operation.activity_regularizer,
            )
            self._models.insert(place, (operation, new))
            return new
        new = copy_layer(operation, lambda config: config | turned.config)
        if isinstance(operation, L.Layer):
            self._copied.append((operation, new, turned.weights))
        return new

    def _inside_time_distributed(self, layer: Any, turned: Turned) -> Any:
        """The new layer, or model, inside a TimeDistributed layer; it may be called by itself, too."""
        if id(layer) not in self._called:
            if has_readable_graph(layer):
                ranks = [len(tensor.shape) for tensor in layer.inputs]
                made = self.whole(layer), Turned(tuple(natural(rank) for rank in ranks))
                self._results[id(layer)] = [natural(len(tensor.shape)) for tensor in layer.outputs]
            else:
                made = self._made(layer, turned), turned
            self._called[id(layer)] = made
        new, known = self._called[id(layer)]
        if has_readable_graph(layer):
            alike = all(layout == natural(len(layout)) for layout in known.inputs)
        else:
            alike = known.config == turned.config
        if not alike:
            raise ValueError(
                f"The layer {layer.name!r} cannot be made channels last, because it is called at each "
                "step and by itself, on tensors that are laid out otherwise. Make it a layer for each."
            )
        return new


def _fixed(leaves: list[Any], mask: Any) -> int:
    """How many of the first axes must keep their places: those of masks; all, beside constants."""
    symbolic = keras.KerasTensor
    if any(
        np.ndim(leaf) for leaf in leaves if hasattr(leaf, "shape") and not isinstance(leaf, symbolic)
    ):
        return sys.maxsize
    masks = [leaf for leaf in keras.tree.flatten(mask) if isinstance(leaf, symbolic)]
    return max((len(leaf.shape) for leaf in masks), default=0)
