"""Which class of layers, and which Keras operation, follows which rule.

A class without a rule is given its tensors in their original layout. Channels-first layers of Keras' own
follow `spatial`; a channels-first layer of another class cannot be made channels last.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache, partial
from typing import Any

import keras

from ..declared_graph import has_readable_graph, operation_class
from ..layer import BatchNorm
from ..renorm import BatchRenorm
from .layouts import Layout, natural
from .rules import (
    DifferentRanksError,
    Given,
    Rule,
    Turned,
    activation,
    along_axis,
    as_it_was,
    elementwise,
    flatten,
    in_order,
    one_axis,
    parametric,
    permute,
    reduction,
    spatial,
    with_scalars,
)

L = keras.layers


def time_distributed(layer: Any, given: list[Given]) -> Turned:
    """TimeDistributed: the rule of the layer inside, without the axis of time."""
    if has_readable_graph(layer.layer):  # a model is rebuilt as a whole
        return as_it_was(layer, given)
    sequence = given[0]
    time_first = sequence.layout[1:2] == (1,)
    held = sequence.layout if time_first else natural(sequence.rank)
    shape = (sequence.shape[0], *sequence.shape[2:])
    step = Given(shape, tuple(axis and axis - 1 for axis in _without_time(held)))
    turned = rule_of(layer.layer)(layer.layer, [step])
    if turned.activation is not None or turned.layer is not None or turned.inside is not None:
        return as_it_was(layer, given)  # it would take several layers at each step

    def outside(layout: Layout) -> Layout:
        return (0, 1, *(axis + 1 for axis in layout[1:]))

    return Turned(
        (outside(turned.inputs[0]), *(natural(other.rank) for other in given[1:])),
        lambda rank: outside(turned.output(rank - 1)),
        inside=(layer.layer, turned),
    )


def _without_time(layout: Layout) -> Layout:
    return tuple(axis for axis in layout if axis != 1)


RULES: dict[type, Rule] = {
    L.Flatten: flatten,
    L.Reshape: in_order,
    L.Permute: permute,
    L.TimeDistributed: time_distributed,
    L.Activation: activation,
    L.PReLU: parametric,
    L.Rescaling: with_scalars("scale", "offset"),
    L.Normalization: one_axis,
    **dict.fromkeys(
        (
            BatchNorm,
            BatchRenorm,
            L.BatchNormalization,
            L.LayerNormalization,
            L.GroupNormalization,
            L.UnitNormalization,
            L.Softmax,
            L.Concatenate,
        ),
        along_axis,
    ),
    **dict.fromkeys(
        (
            L.Identity,
            L.ActivityRegularization,
            L.ReLU,
            L.LeakyReLU,
            L.ELU,
            L.Dropout,
            L.AlphaDropout,
            L.GaussianDropout,
            L.GaussianNoise,
            L.Add,
            L.Subtract,
            L.Multiply,
            L.Average,
            L.Maximum,
            L.Minimum,
        ),
        elementwise,
    ),
}

_ELEMENTWISE = (
    *("relu", "relu6", "leaky_relu", "elu", "selu", "gelu", "silu", "sigmoid", "hard_sigmoid", "tanh"),
    *("hard_silu", "softplus", "softsign", "exp", "log", "sqrt", "square", "abs", "negative", "sign"),
)
_BROADCAST = ("add", "subtract", "multiply", "divide", "true_divide", "maximum", "minimum", "power")
_REDUCTIONS = ("mean", "sum", "max", "min")


def rule_of(operation: Any) -> Rule:
    """The rule of exactly the class of a layer or Keras operation: a subclass may compute anything."""
    kind = type(operation)
    rule = RULES.get(kind) or _operations().get(kind)
    if rule is not None:
        return partial(_or_as_it_was, rule)
    by_keras = kind.__module__.partition(".")[0] == "keras"
    return spatial if by_keras and hasattr(operation, "data_format") else as_it_was


def _or_as_it_was(rule: Rule, layer: Any, given: list[Given]) -> Turned:
    try:
        return rule(layer, given)
    except DifferentRanksError:
        return as_it_was(layer, given)


@cache
def _operations() -> Mapping[type, Rule]:
    """The rules of Keras operations by their classes, which have no public names: a call tells them."""
    x = keras.Input((2,), name="tfbn_probe")
    class_of, ops = partial(operation_class, x), keras.ops
    rules: dict[type, Rule] = {class_of(getattr(ops, name)(x)): elementwise for name in _ELEMENTWISE}
    rules |= {class_of(getattr(ops, name)(x, x)): elementwise for name in _BROADCAST}
    rules |= {class_of(getattr(ops, name)(x, axis=1)): reduction for name in _REDUCTIONS}
    rules |= {class_of(getattr(ops, name)(x)): along_axis for name in ("softmax", "log_softmax")}
    rules[class_of(ops.concatenate([x, x]))] = along_axis
    rules[class_of(ops.clip(x, 0, 1))] = with_scalars("x_min", "x_max")
    rules[class_of(ops.cast(x, "float16"))] = elementwise
    return rules
