"""A Keras model as a graph of the core: nested Sequential and Functional models entered."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import keras
import numpy as np

from ...batch_norms import inference_affine, is_batch_norm
from ...declared_graph import goes_by_steps, has_readable_graph
from ...layer import BatchNorm
from ..core.affine import Affine
from ..core.graph import Call, Graph, Op, Shape, Tensor
from ..core.normalization import Normalization
from .configuration import Configuration
from .given import Given, given_to, parameters
from .masks import BY_VALUES, Masks, masks_by_values
from .operations import is_split
from .tables import Step, fold_target_for, propagation_rule_for

# What the rules ask about a layer, by the names that Keras has for it.
ATTRIBUTES = (
    *("antialias", "axes", "axis", "axis1", "axis2", "data_format", "destination", "dims"),
    *("indices_or_sections", "initial", "interpolation", "into", "keepdims", "mode"),
    *("pad_to_aspect_ratio", "pad_width", "source"),
)

IN_TRAINING = (
    "is called with training=True and uses each batch's own statistics; call it without to fold it"
)
UNCLEAR = "is called with a mask of numbers, or with what may be one"


def read(model: keras.Model) -> Graph:
    """The calls of an open model (see `tfbn.cloning.has_readable_graph`), with the rules for its layers.

    A nested model's calls are there once for each call of it, so that a layer inside it is a layer
    called several times, as any other. A TimeDistributed layer is a `Step` in, its layer's call, and a
    `Step` out.

    Raises:
        ValueError: a layer is called with an argument that has no configuration.
    """
    return _Reader(with_rules=True).read(model)


def tied(graph: Graph) -> dict[Op, str]:
    """Layers with a weight that another layer has too, and the reason to leave them alone."""
    owners: dict[int, list[Op]] = defaultdict(list)
    for op in dict.fromkeys(call.op for call in graph.calls):
        # An open model has no weights but those of its layers, whose calls are here too.
        if not has_readable_graph(op.origin):
            for weight in getattr(op.origin, "weights", ()):
                owners[id(weight)].append(op)
    return {
        op: f"{op} has a weight in common with {other}; give each its own"
        for having in owners.values()
        for op in having
        for other in having
        if op is not other
    }


def called_in_training(model: keras.Model) -> list[keras.layers.Layer]:
    """The layers that a model with a readable graph calls with `training=True`, each once.

    Raises:
        ValueError: a layer is called with an argument that has no configuration.
    """
    graph = _Reader(with_rules=False).read(model)
    called = (call.op.origin for call in graph.calls if call.attributes["training"])
    return list({id(layer): layer for layer in called if isinstance(layer, keras.layers.Layer)}.values())


class _Reader:
    """Reads one model.

    Attributes:
        with_rules: whether the operations get what the algorithm asks of them, or are just named.
    """

    def __init__(self, with_rules: bool) -> None:
        self.with_rules = with_rules
        self.graph = Graph()
        self.masks = Masks()
        self.configurations: dict[int, Configuration] = {}
        self.ops: dict[int, Op] = {}

    def read(self, model: keras.Model) -> Graph:
        self._enter_apart(model, training=False)
        for call in self.graph.calls:
            call.obstacle = call.obstacle or self.masks.obstacle(call)
        return self.graph

    def _enter_apart(self, model: keras.Model, training: bool, masked: bool = False) -> None:
        """Add the calls of a model on inputs of its own; its outputs are outputs of the whole."""
        inputs = [Tensor(tuple(tensor.shape), tensor.dtype) for tensor in model.inputs]
        self.masks.unknown |= set(inputs) if masked else set()
        for output in self._enter(model, inputs, training):
            output.users.append(None)

    def _enter(self, model: keras.Model, inputs: list[Tensor], training: bool) -> list[Tensor]:
        """Add the calls of one call of a model, and return its outputs."""
        if id(model) not in self.configurations:
            self.configurations[id(model)] = Configuration(model)
        configuration = self.configurations[id(model)]
        tensors = {(key, 0): tensor for key, tensor in zip(configuration.inputs, inputs, strict=True)}
        for key, layer, positional, named in configuration.nodes:
            given = given_to(layer, positional, named, tensors, training)
            outputs = self._add_node(layer, given, configuration.specifications[key])
            tensors |= {(key, index): tensor for index, tensor in outputs.items()}
        return [tensors[output] for output in configuration.outputs]

    def _add_node(
        self, layer: Any, given: Given, specified: Mapping[int, tuple[Shape, str]]
    ) -> dict[int, Tensor]:
        """Add a call of a layer, or what is inside it; its outputs that are used, by number."""
        readable = has_readable_graph(layer)
        if readable and _matches(layer, given.positional, given.arguments) and self._knows_masks(given):
            inner = dict(enumerate(self._enter(layer, given.inputs, given.training)))
            for number in inner.keys() - specified.keys():
                inner[number].users.append(None)  # an output of the nested model alone
            return inner
        if _is_by_steps(layer, given):
            return {0: self._enter_steps(layer, given, *specified[0])}
        numbers = sorted(specified)
        if not isinstance(layer, keras.layers.Layer) and is_split(
            layer
        ):  # a call for each part that is used
            return {
                number: self._add(layer, given, [specified[number]], {"part": number})[0]
                for number in numbers
            }
        outputs = self._add(layer, given, [specified[number] for number in numbers])
        if readable:  # its inputs cannot be told from the call
            self._enter_apart(layer, given.training, masked=True)
        return dict(zip(numbers, outputs, strict=True))

    def _add(
        self,
        layer: Any,
        given: Given,
        outputs: Sequence[tuple[Shape, str]],
        attributes: Mapping[str, Any] | None = None,
    ) -> list[Tensor]:
        op = self._op(layer)
        is_layer = isinstance(layer, keras.layers.Layer)
        dtype = layer.compute_dtype if is_layer else outputs[0][1]
        call = Call(op, given.arguments, dtype)
        call.attributes = {"training": given.training, "names": given.names}
        if op.rule is not None:
            known = {name: getattr(layer, name) for name in ATTRIBUTES if hasattr(layer, name)}
            call.attributes = known | call.attributes | dict(attributes or {})
        if op.normalization is not None and given.training:
            call.obstacle = IN_TRAINING
        elif given.unclear:
            call.obstacle = UNCLEAR
        elif self.with_rules and masks_by_values(layer):
            call.obstacle = BY_VALUES
        self.masks.given[call] = given.masks
        return self.graph.add(call, outputs)

    def _knows_masks(self, given: Given) -> bool:
        """Whether the layers in a model find the masks that it is given on its inputs anyway."""
        masks = keras.tree.flatten(dict(given.masks))
        pairs = zip(masks, given.inputs, strict=False)
        return not masks or (
            len(masks) == len(given.inputs) and all(self.masks.is_own(*pair) for pair in pairs)
        )

    def _op(self, layer: Any) -> Op:
        if id(layer) not in self.ops:
            op = self.ops[id(layer)] = Op(layer.name, type(layer).__name__, layer)
            if self.with_rules:
                op.rule, op.target = propagation_rule_for(layer), fold_target_for(layer)
                op.normalization = _normalization(layer) if is_batch_norm(layer) else None
        return self.ops[id(layer)]

    def _enter_steps(self, layer: Any, given: Given, shape: Shape, dtype: str) -> Tensor:
        """The calls of one call of a TimeDistributed layer, and its output."""
        inner, training = layer.layer, given.training

        def called(layer: Any, tensor: Tensor, shape: Shape, dtype: str) -> Tensor:
            return self._add(layer, Given.one(tensor, training, given.masks), [(shape, dtype)])[0]

        (sequence,) = given.inputs
        one_step, made = (sequence.shape[0], *sequence.shape[2:]), (shape[0], *shape[2:])
        step = called(Step(layer.name, into=True), sequence, one_step, sequence.dtype)
        again = Given.one(step, training)
        if has_readable_graph(inner):
            (step,) = self._enter(inner, [step], training)
        elif _is_by_steps(inner, again):
            step = self._enter_steps(inner, again, made, dtype)
        else:
            step = called(inner, step, made, dtype)
        whole = called(Step(layer.name, into=False), step, shape, dtype)
        assert whole.producer is not None
        self.masks.sequences[whole.producer] = sequence
        return whole


def _normalization(layer: Any) -> Normalization:
    scale, offset = (array.reshape(-1) for array in inference_affine(layer))

    def flat(weight: Any, default: float) -> np.ndarray:
        return np.asarray(default if weight is None else weight, "float64").reshape(-1)

    return Normalization(
        Affine(scale, offset),
        gamma=flat(layer.gamma, 1.0),
        beta=flat(layer.beta, 0.0),
        axis=layer.axis,
        sizes=tuple(layer.moving_mean.shape),
        centers_first=isinstance(layer, BatchNorm),
    )


def _matches(model: keras.Model, positional: list[Any], arguments: list[Any]) -> bool:
    """Whether a nested model's inputs are its call's arguments, one to one and as they are."""
    inner = model.inputs
    alike = len(inner) == len(arguments) and all(
        isinstance(given, Tensor) and len(given.shape) == len(own.shape) and given.dtype == own.dtype
        for given, own in zip(arguments, inner, strict=True)
    )
    return alike and (len(inner) == 1 or _keys(positional[0]) == _keys(model.input))


def _is_by_steps(layer: Any, given: Given) -> bool:
    """Whether a call applies one layer, or an open model, to each step of one sequence.

    Keras hands a mask to the layer inside if that takes one: a batch norm, which does nothing with it.
    """
    if not goes_by_steps(layer) or given.unclear or len(given.arguments) != 1:
        return False
    (sequence,), inner = given.arguments, layer.layer
    if given.masks and "mask" in parameters(inner) and not is_batch_norm(inner):
        return False
    if not isinstance(sequence, Tensor) or {inner.compute_dtype, layer.compute_dtype} != {
        sequence.dtype
    }:
        return False
    if not has_readable_graph(inner):
        return not isinstance(inner, keras.Model)
    step = Tensor((sequence.shape[0], *sequence.shape[2:]), sequence.dtype)
    return len(inner.outputs) == 1 and _matches(inner, [step], [step])


def _keys(structure: Any) -> Any:
    """The structure without its leaves; lists and tuples alike, as Keras takes them."""
    if isinstance(structure, dict):
        return {name: _keys(value) for name, value in structure.items()}
    return [_keys(part) for part in structure] if isinstance(structure, (list, tuple)) else None
