"""Builds the model: each layer where its inputs are known, each weight checked before it is made."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from typing import Any

import keras
import numpy as np

from ..errors import LegacyModelError, UnsupportedLayerError, translated
from ..layers import config_readers as readers
from ..layers.layer_spec import BuildContext, BuiltLayers, LayerSpec, clean
from ..layers.legacy_wrappers import InTraining
from ..reading.architecture import CallOutput, LayerConfig, ModelConfig, call_count, layer_config
from ..reading.writer_info import WriterInfo
from .assignment import Assignment
from .custom import custom_layer
from .inputs import declared_shape, declared_type
from .order import in_order
from .weight_checks import assign, check_inputs, check_states, check_weights

Tensors = list[Any]
_INITIAL_STATES = (
    keras.layers.LSTM,
    keras.layers.GRU,
    keras.layers.SimpleRNN,
    keras.layers.Bidirectional,
)
_MOST_CALLS = 1 << 16  # Keras needs half a millisecond for one; models in use have some thousand


class Builder:
    """Builds one model and those within it.

    Args:
        table: the layers of that generation of Keras.
        assignment: the arrays of each layer.
        custom: the caller's custom objects.
        note: takes (path, mode, stored, layer) of each batch norm.
        masked: whether something in the model makes masks.
        turned: whether the model will be turned to channels last.
    """

    def __init__(
        self,
        table: Mapping[str, LayerSpec],
        assignment: Assignment,
        writer: WriterInfo,
        custom: Mapping[str, Any],
        note: Callable[..., None],
        masked: bool,
        turned: bool,
    ) -> None:
        self._table, self._assignment, self._writer = table, assignment, writer
        self._custom, self._note, self._masked, self._turned = custom, note, masked, turned
        self._built: dict[LayerConfig, BuiltLayers] = {}
        self._trained: dict[LayerConfig, bool] = {}
        self._wrapped: dict[int, InTraining] = {}
        self._calls, self._steps = 0, 1
        self._first: dict[LayerConfig, list[tuple[int | None, ...]]] = {}

    def model(self, config: ModelConfig, shape: Any = None) -> keras.Model:
        """The model of Keras 3, with its weights.

        Raises:
            LegacyModelError: a layer, its weights or the graph are wrong.
            UnsupportedLayerError: a layer that Keras 3 has nothing for.
        """
        return self._sequential(config, shape) if config.sequential else self._functional(config)

    def _sequential(self, config: ModelConfig, shape: Any) -> keras.Model:
        first = config.layers[0]
        layers = config.layers[1:]
        name = None if config.name is None else clean(config.name)
        with _building(first.path):
            if first.branches:
                branches = [self._branch(branch) for branch in first.branches]
                inputs = [tensor for model in branches for tensor in model.inputs]
                tensors = self._apply(first, [tensor for model in branches for tensor in model.outputs])
            else:
                inputs = tensors = [self._first_input(config, shape)]
                layers = layers if first.class_name == "InputLayer" else config.layers
        chain: list[Any] = []
        for layer in layers:
            if len(tensors) != 1:
                raise LegacyModelError("takes one tensor in a Sequential model", layer.path)
            tensors = self._apply(layer, tensors)
            chain += self._built[layer].layers
        with _building(config.name or "model"):
            if first.branches:
                return keras.Model(inputs, tensors, name=name)
            return keras.Sequential([inputs[0], *chain], name=name)

    def _branch(self, layer: LayerConfig) -> keras.Model:
        model = layer.model
        if model is None:
            model = ModelConfig(None, (layer,), sequential=True)
        return self.model(model)

    def _first_input(self, config: ModelConfig, shape: Any) -> Any:
        first = config.layers[0]
        if first.model is not None and shape is None:
            inner = first.model
            if inner.sequential:
                return self._first_input(inner, None)
            named = {inner_layer.name: inner_layer for inner_layer in inner.layers}
            source = named.get(inner.inputs[0].layer)
            if source is None:
                raise LegacyModelError("names an input that is no layer", first.path)
            return self._input(source)
        if shape is not None and not any(declared_shape(first.config)):
            return keras.Input(batch_shape=shape, dtype=declared_type(first))
        if not any(declared_shape(first.config)) and config.input_shape is not None:
            first = LayerConfig(
                first.class_name,
                None,
                first.config | {"batch_input_shape": config.input_shape},
                first.path,
            )
        return self._input(first, named=first.class_name == "InputLayer")

    def _input(self, layer: LayerConfig, *, named: bool = True) -> Any:
        """A symbolic input as an InputLayer, or the first layer of a Sequential model, declares it."""
        whole, rest, size = declared_shape(layer.config)
        if whole is None and rest is None and size is not None:
            length = layer.config.get("input_length", 0)
            rest = [size] if length == 0 else [length, size]
        if whole is None and rest is None:
            raise LegacyModelError(
                "does not say the shape of the model's input (batch_input_shape)", layer.path
            )
        if whole is None:
            whole = [None, *rest] if isinstance(rest, list) else rest
        if layer.config.get("sparse") or layer.config.get("ragged"):
            raise UnsupportedLayerError("takes sparse or ragged tensors", layer.path)
        with _building(layer.path):
            shape = readers.batch_shape(whole)
            name = clean(layer.name) if named and layer.name is not None else None
            return keras.Input(batch_shape=shape, dtype=declared_type(layer), name=name)

    def _functional(self, config: ModelConfig) -> keras.Model:
        tensors: dict[CallOutput, Any] = {}
        named = {layer.name: layer for layer in config.layers}
        sources = {output.layer: output for output in config.inputs}
        for layer, number, call in in_order(config):
            if layer.class_name == "InputLayer":
                outputs = [self._input(layer)]
            else:
                taken = _outputs(call.inputs, tensors, layer.path)
                outputs = self._apply(layer, taken, call.arguments)
            for output, tensor in enumerate(outputs):
                tensors[CallOutput(layer.name or "", number, output)] = tensor
        part = config.name or "model"
        ends = [_outputs(each, tensors, part) for each in (config.inputs, config.outputs)]
        if any(named[name].class_name != "InputLayer" for name in sources):
            raise LegacyModelError("input_layers names other layers", config.name or "model")
        inputs, outputs = (each[0] if len(each) == 1 else each for each in ends)
        with _building(config.name or "model"):
            return keras.Model(inputs, outputs, name=None if config.name is None else clean(config.name))

    def _apply(
        self, layer: LayerConfig, tensors: Tensors, arguments: Mapping[str, Any] | None = None
    ) -> Tensors:
        """Call a layer on tensors; the first time, make it and give it its weights."""
        given = [tuple(tensor.shape) for tensor in tensors]
        if not given:
            raise LegacyModelError("is called on nothing", layer.path)
        if layer not in self._built:
            arrays = self._assignment.arrays(layer)
            with _building(layer.path):
                self._built[layer] = self._make(layer, arrays, given)
            self._first[layer] = given
        built = self._built[layer]
        if built.fixed and given != self._first[layer]:
            raise UnsupportedLayerError(
                f"is called on inputs of shapes {self._first[layer]} and {given}: make it a layer each",
                layer.path,
            )
        training = _training(layer, arguments or {})
        if self._trained.setdefault(layer, training is True) != (training is True):
            raise UnsupportedLayerError(
                "is called with training=True and without, and Keras 3 overrides what a call says: make "
                "it a layer each",
                layer.path,
            )
        self._count(layer, call_count(layer))
        with _building(layer.path):
            return self._called(layer, built, tensors, training)

    def _count(self, layer: LayerConfig, more: int) -> None:
        """Limit the calls, with those in nested models and at each step: Keras 3 makes them all."""
        self._calls += more * self._steps
        if self._calls > _MOST_CALLS:
            raise LegacyModelError(
                f"calls more than {_MOST_CALLS} layers, those of models within and of steps each",
                layer.path,
            )

    def _called(
        self, layer: LayerConfig, built: BuiltLayers, tensors: Tensors, training: bool | None
    ) -> Tensors:
        further = {"training": False} if training is False else {}
        x: Any = tensors[0] if len(tensors) == 1 else tensors
        for keras_layer in built.layers:
            if keras_layer is built.holder and built.weights is not None and not keras_layer.built:
                shape = x.shape if hasattr(x, "shape") else x[0].shape
                check_weights(keras_layer, tuple(shape), built.weights, layer.path)
            if isinstance(keras_layer, keras.Model):
                check_inputs(keras_layer, x, layer.path)
            if getattr(keras_layer, "stateful", False):
                check_states(x, layer.path)
            called = self._in_training(keras_layer) if training else keras_layer
            if isinstance(keras_layer, _INITIAL_STATES) and isinstance(x, list):
                x = called(x[0], initial_state=x[1:], **further)
            else:
                x = called(x, **further)
            if keras_layer is built.holder and built.weights is not None:
                assign(keras_layer, built, layer.path)
        return list(x) if isinstance(x, (list, tuple)) else [x]

    def _in_training(self, layer: keras.layers.Layer) -> InTraining:
        """One wrapper for all calls of a layer."""
        if id(layer) not in self._wrapped:
            self._wrapped[id(layer)] = InTraining(layer, name=layer.name, dtype=layer.dtype_policy)
        return self._wrapped[id(layer)]

    def _make(
        self, layer: LayerConfig, arrays: list[np.ndarray], given: list[tuple[int | None, ...]]
    ) -> BuiltLayers:
        if layer.model is not None:
            return BuiltLayers([self.model(layer.model, given[0])], weights=None)
        context = BuildContext(
            layer,
            arrays,
            given,
            self._writer,
            lambda raw, share, inner, steps=1: self._inside(layer, raw, share, inner, steps),
            lambda mode, stored, built: self._note(layer.path, mode, stored, built),
            self._custom,
            self._masked,
            self._turned,
        )
        custom = custom_layer(context)
        if custom is not None:
            return custom
        spec = self._table.get(layer.class_name)
        if spec is None:
            raise context.unsupported(
                "is no layer that can be loaded; pass its class in custom_objects, or replace it in the "
                "Keras that wrote it"
            )
        return spec.make(context)

    def _inside(
        self,
        outer: LayerConfig,
        raw: Any,
        arrays: list[np.ndarray],
        given: list[tuple[int | None, ...]],
        steps: int,
    ) -> BuiltLayers:
        layer = layer_config(raw, outer.path)
        self._assignment.inside(layer, arrays)
        self._steps *= steps
        self._count(outer, call_count(layer))
        built = self._make(layer, arrays, given)
        self._steps //= steps
        return built


def _outputs(references: tuple[CallOutput, ...], tensors: dict[CallOutput, Any], part: str) -> Tensors:
    for reference in references:
        if reference not in tensors:
            raise LegacyModelError(
                f"names the output {reference.output} of call {reference.call} of {reference.layer!r}, "
                "which is none",
                part,
            )
    return [tensors[reference] for reference in references]


def _training(layer: LayerConfig, arguments: Mapping[str, Any]) -> bool | None:
    """What a call says of training; it may say nothing else besides its tensors."""
    strange = {key: value for key, value in arguments.items() if value is not None and key != "training"}
    if strange or not isinstance(arguments.get("training"), bool | None):
        raise UnsupportedLayerError(f"is called with {arguments}"[:300], layer.path)
    return arguments.get("training")


def _building(part: str) -> AbstractContextManager[None]:
    """What Keras raises of settings that do not fit."""
    return translated(part, "Keras cannot make it so: {}")
