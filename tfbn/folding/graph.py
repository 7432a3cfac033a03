"""Which call feeds which, in a whole model: nested Sequential and Functional models entered."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from typing import Any

import keras
import numpy as np

from ..cloning import goes_by_steps, has_readable_graph
from .configuration import Configuration, Key


@dataclass(eq=False)
class Tensor:
    """One tensor of the model, known by its identity.

    Attributes:
        shape: with the batch axis; `None` where unknown.
        dtype: its type.
        source: the call that makes it; `None` for an input of the model.
        users: the calls that take it, once for each time; `None` for an output of the model.
    """

    shape: tuple[int | None, ...]
    dtype: str
    source: Call | None = None
    users: list[Call | None] = field(default_factory=list)


@dataclass(eq=False)
class Call:
    """One call of a layer (or Keras operation).

    Attributes:
        number: its place in an order in which the calls can run.
        layer: what is called.
        arguments: tensors and constants, `inputs` first however it was passed, nested ones in order.
        outputs: the tensors that it makes and that are used.
        training: whether it is called with `training=True`, itself or through a model around it.
        masked: whether it was given a mask.
    """

    number: int
    layer: Any
    arguments: list[Any]
    outputs: list[Tensor] = field(default_factory=list)
    training: bool = False
    masked: bool = False

    @property
    def inputs(self) -> list[Tensor]:
        return [one for one in self.arguments if isinstance(one, Tensor)]

    @property
    def dtype(self) -> str:
        """The type that it computes in."""
        is_layer = isinstance(self.layer, keras.layers.Layer)
        return self.layer.compute_dtype if is_layer else self.outputs[0].dtype


@dataclass(frozen=True)
class Step:
    """Where TimeDistributed takes one step out of a sequence, or puts the steps together again.

    Attributes:
        name: of the TimeDistributed layer.
        into: whether it takes them out.
    """

    name: str
    into: bool


class Graph:
    """The calls of a model in an order in which they can run.

    A nested model's calls are there once for each call of it, so that a layer inside it is a layer
    called several times, as any other. A TimeDistributed layer is a `Step` in, its layer's call, and a
    `Step` out.
    """

    def __init__(self, model: keras.Model) -> None:
        """Read an open model (see `tfbn.cloning.is_open`).

        Raises:
            ValueError: a layer has no configuration.
        """
        self.calls: list[Call] = []
        self._read: dict[int, Configuration] = {}
        inputs = [Tensor(tuple(one.shape), one.dtype) for one in model.inputs]
        for output in self._enter(model, inputs, training=False):
            output.users.append(None)
        self._by_layer: dict[int, list[Call]] = defaultdict(list)
        for call in self.calls:
            self._by_layer[id(call.layer)].append(call)

    def of(self, layer: object) -> list[Call]:
        """All calls of a layer; none for one that is inside another layer."""
        return self._by_layer.get(id(layer), [])

    def drop(self, layer: object) -> None:
        """Leave a layer out: its input goes on instead of its output."""
        for call in self._by_layer.pop(id(layer)):
            (before, *_), (after,) = call.inputs, call.outputs
            before.users.remove(call)
            before.users += after.users
            for user in filter(None, after.users):
                user.arguments = [before if one is after else one for one in user.arguments]
            self.calls.remove(call)

    def _enter(self, model: keras.Model, inputs: list[Tensor], training: bool) -> list[Tensor]:
        """Add the calls of one call of a model, and return its outputs."""
        if id(model) not in self._read:
            self._read[id(model)] = Configuration(model)
        read = self._read[id(model)]
        tensors = {(key, 0): one for key, one in zip(read.inputs, inputs, strict=True)}
        for key, layer, positional, named in read.nodes:
            given = [*_decoded(positional, tensors), *_decoded([named.get("inputs")], tensors)]
            names = sorted(named.keys() - {"inputs", "mask", "training"})
            others = keras.tree.flatten([_decoded(named[name], tensors) for name in names])
            mask = _decoded(named.get("mask"), tensors)
            arguments = [one for one in keras.tree.flatten([given, others, mask]) if one is not None]
            called = training or bool(named.get("training"))
            # By position, too, as tensors may be.
            masked = mask is not None or any(
                isinstance(one, Tensor) and one.dtype == "bool" for one in arguments
            )
            call = Call(len(self.calls), layer, arguments, training=called, masked=masked)
            specified = read.specifications[key]
            if has_readable_graph(layer) and _matches(layer, given, arguments):
                outputs: dict[int, Tensor] = dict(enumerate(self._enter(layer, call.inputs, called)))
                for index in outputs.keys() - specified.keys():
                    outputs[index].users.append(None)  # of the nested model alone
            elif _is_by_steps(layer, call):
                outputs = {0: self._enter_step(call, *specified[0])}
            else:
                outputs = {index: Tensor(*one, source=call) for index, one in sorted(specified.items())}
                self._add(call, list(outputs.values()))
                if has_readable_graph(layer):
                    self._enter_apart(layer, called)
            tensors |= {(key, index): one for index, one in outputs.items()}
        return [tensors[one] for one in read.outputs]

    def _add(self, call: Call, outputs: list[Tensor]) -> None:
        call.outputs, call.number = outputs, len(self.calls)
        self.calls.append(call)
        for one in call.inputs:
            one.users.append(call)

    def _enter_step(self, around: Call, shape: tuple[int | None, ...], dtype: str) -> Tensor:
        """The calls of one call of a TimeDistributed layer, and its output."""
        inner = around.layer.layer

        def called(layer: Any, given: Tensor, shape: tuple[int | None, ...], dtype: str) -> Tensor:
            call = Call(0, layer, [given], training=around.training)
            made = Tensor(tuple(shape), dtype, source=call)
            self._add(call, [made])
            return made

        (sequence,) = around.inputs
        one_step = (sequence.shape[0], *sequence.shape[2:])
        step = called(Step(around.layer.name, into=True), sequence, one_step, sequence.dtype)
        made, again = (shape[0], *shape[2:]), Call(0, inner, [step], training=around.training)
        if has_readable_graph(inner):
            (step,) = self._enter(inner, [step], around.training)
        elif _is_by_steps(inner, again):
            step = self._enter_step(again, made, dtype)
        else:
            step = called(inner, step, made, dtype)
        return called(Step(around.layer.name, into=False), step, shape, dtype)

    def _enter_apart(self, model: keras.Model, training: bool) -> None:
        """The calls of a model whose inputs cannot be told from the call around it."""
        inputs = [Tensor(tuple(one.shape), one.dtype) for one in model.inputs]
        for output in self._enter(model, inputs, training):
            output.users.append(None)


def _decoded(config: Any, tensors: dict[tuple[Key, int], Tensor]) -> Any:
    """Serialised arguments with tensors and arrays in their places."""
    if isinstance(config, dict):
        if config.get("class_name") == "__keras_tensor__":
            name, number, index = config["config"]["keras_history"]
            return tensors[(name, number), index]
        if config.get("class_name") in ("__numpy__", "__tensor__"):
            return np.asarray(config["config"]["value"])
        if config.get("class_name") == "__tuple__":
            return _decoded(config["items"], tensors)
        return {name: _decoded(value, tensors) for name, value in config.items()}
    if isinstance(config, (list, tuple)):
        return [_decoded(value, tensors) for value in config]
    return config


def _matches(model: keras.Model, given: list[Any], arguments: list[Any]) -> bool:
    """Whether a nested model's inputs are its call's arguments, one to one and as they are."""
    inner = model.inputs
    alike = len(inner) == len(arguments) and all(
        isinstance(one, Tensor) and len(one.shape) == len(own.shape) and one.dtype == own.dtype
        for one, own in zip(arguments, inner, strict=True)
    )
    return alike and (len(inner) == 1 or _keys(given[0]) == _keys(model.input))


def _is_by_steps(layer: Any, call: Call) -> bool:
    """Whether a call applies one layer, or an open model, to each step of one sequence, and no mask."""
    if not goes_by_steps(layer) or call.masked or len(call.arguments) != 1:
        return False
    (given,), inner = call.arguments, layer.layer
    if not isinstance(given, Tensor) or {inner.compute_dtype, layer.compute_dtype} != {given.dtype}:
        return False
    if not has_readable_graph(inner):
        return not isinstance(inner, keras.Model)
    step = Tensor((given.shape[0], *given.shape[2:]), given.dtype)
    return len(inner.outputs) == 1 and _matches(inner, [step], [step])


def _keys(structure: Any) -> Any:
    """The structure without its leaves; lists and tuples alike, as Keras takes them."""
    if isinstance(structure, dict):
        return {name: _keys(value) for name, value in structure.items()}
    return [_keys(one) for one in structure] if isinstance(structure, (list, tuple)) else None
