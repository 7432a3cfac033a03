"""A model turned from channels first to channels last.

The model is called anew, layer by layer. Each tensor is held in a layout of its own (see `layouts`):
inputs as they were, what a channels-first layer makes channels last. A rule says in which layout a
layer takes its tensors; where they are held in another, a Permute goes between.
"""

from __future__ import annotations

import sys
from contextlib import nullcontext
from dataclasses import replace
from typing import Any

import keras
import numpy as np

from ..batch_norms import layer_paths
from ..cloning import AUTOMATIC_NAME, as_functional, declared_inputs, has_readable_graph, input_like
from ..copying import copy_layer, copy_state
from ..messages import join_some
from .layouts import Layout, natural, transposed
from .rules import CannotTurnError, Given, Turned, as_it_was
from .support import bias_misplaced, channels_first
from .tables import rule_of
from .tensors import HeldTensors, is_masked

L = keras.layers


def to_channels_last(model: keras.Model, *, check_biases: bool = True) -> keras.Model:
    """A copy of an open model with every layer channels last, that takes and gives what it did.

    Args:
        model: an open model (see `tfbn.cloning.is_open`). It is not changed.
        check_biases: refuse a model in which Keras adds a bias along another axis than the
            channels', for channels last it would not.

    Returns:
        A new, uncompiled model that shares nothing with the given one.

    Raises:
        ValueError: a layer cannot be made channels last, or not be copied.
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
    for one, other in zip(new.outputs, model.outputs, strict=True):
        if tuple(one.shape) != tuple(other.shape):
            raise ValueError(
                f"The model {model.name!r} cannot be made channels last: an output of the shape "
                f"{other.shape} would have the shape {one.shape}. Please report this with the model."
            )
    turning.copy_states()
    if not isinstance(model, keras.Sequential):
        new.output_names = list(model.output_names)  # losses and metrics go by them
    return new


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
            kwargs["mask"] = keras.tree.map_structure(
                lambda one: self._tensors.as_it_was(one) if isinstance(one, keras.KerasTensor) else one,
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
        """The new layer, and how it takes its tensors: as in its first call.

        Args:
            fixed: how many of the first axes must stay.
        """
        given = [self._tensors.given(tensor) for tensor in tensors]
        ranks = [one.rank for one in given]
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
                moved = any(one[:fixed] != natural(len(one))[:fixed] for one in turned.inputs)
                # A Permute loses masks; what would stand for it does not.
                if moved or (turned.layer is not None and is_masked(tensors[0])):
                    turned = as_it_was(operation, given)
                found = self._made(operation, turned), turned
            self._called[id(operation)] = found
        new, turned = self._called[id(operation)]
        if ranks == [len(layout) for layout in turned.inputs]:
            return new, turned
        layouts = set(turned.inputs)
        if len(layouts) == 1 and {len(layout) for layout in layouts} == set(ranks):  # more of a kind
            return new, replace(turned, inputs=(*layouts,) * len(ranks))
        if all(layout == natural(len(layout)) for layout in turned.inputs):
            return new, as_it_was(operation, given)
        raise ValueError(
            f"The layer {operation.name!r} cannot be made channels last, because it is called on "
            "tensors of several ranks. Make it a layer for each."
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
        if type(operation) is L.TimeDistributed:
            within = operation.layer
            place = len(self._models)
            inner = self._within(*(turned.inside or (within, Turned(()))))
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

    def _within(self, layer: Any, turned: Turned) -> Any:
        """The new layer, or model, inside a TimeDistributed; it may be called without that, too."""
        if id(layer) not in self._called:
            if has_readable_graph(layer):
                ranks = [len(one.shape) for one in layer.inputs]
                made = self.whole(layer), Turned(tuple(natural(rank) for rank in ranks))
                self._results[id(layer)] = [natural(len(one.shape)) for one in layer.outputs]
            else:
                made = self._made(layer, turned), turned
            self._called[id(layer)] = made
        new, known = self._called[id(layer)]
        open_inside = has_readable_graph(layer) and any(one != natural(len(one)) for one in known.inputs)
        if open_inside or (not has_readable_graph(layer) and known.config != turned.config):
            raise ValueError(
                f"The layer {layer.name!r} cannot be made channels last, because it is called at each "
                "step and by itself, on tensors that are laid out otherwise. Make it a layer for each."
            )
        return new


def _fixed(leaves: list[Any], mask: Any) -> int:
    """How many of the first axes must stay: those of masks that Keras records; all for constants."""
    symbolic = keras.KerasTensor
    if any(
        np.ndim(leaf) for leaf in leaves if hasattr(leaf, "shape") and not isinstance(leaf, symbolic)
    ):
        return sys.maxsize
    masks = [one for one in keras.tree.flatten(mask) if isinstance(one, symbolic)]
    return max((len(one.shape) for one in masks), default=0)
