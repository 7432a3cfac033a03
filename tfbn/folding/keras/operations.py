"""What each Keras operation (`x + y`, `keras.ops.reshape`) does with an affine map.

Their classes have no public names; a model of one call shows them.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import keras

from ...declared_graph import operation_class
from ..core.combining import (
    ADDITION,
    DIVISION,
    MULTIPLICATION,
    SUBTRACTION,
    ConcatRule,
    SameMapForAllInputs,
)
from ..core.propagation import (
    NegativeRule,
    PassThrough,
    PermuteRule,
    PropagationRule,
    ReshapeRule,
    in_order,
    interpolated,
    moved,
    no_offset,
    not_negative,
    per_channel,
    same_type,
    swapped,
    transposed,
)
from ..core.selecting import PadRule, ReductionRule, ShapeRule, SliceRule, indexed, split

ops = keras.ops

_SAME = PassThrough(same_type)
_HOMOGENEOUS = PassThrough(no_offset, not_negative)
_REORDERED = ReshapeRule(in_order)

# Each operation as called on a tensor (samples, 2, 2, 2). In arithmetic: whether the tensor comes first,
# and the other argument, give the constants of factor · x + term.
_OPERATIONS: dict[Callable[[Any], Any], PropagationRule] = {
    lambda x: ops.add(x, x): ADDITION,
    lambda x: ops.subtract(x, x): SUBTRACTION,
    lambda x: ops.multiply(x, x): MULTIPLICATION,
    lambda x: ops.divide(x, x): DIVISION,
    lambda x: ops.true_divide(x, x): DIVISION,
    lambda x: ops.maximum(x, x): SameMapForAllInputs(not_negative),
    lambda x: ops.minimum(x, x): SameMapForAllInputs(not_negative),
    ops.negative: NegativeRule(),
    ops.zeros_like: ShapeRule(),
    ops.ones_like: ShapeRule(),
    ops.relu: _HOMOGENEOUS,
    ops.leaky_relu: _HOMOGENEOUS,
    ops.convert_to_tensor: _SAME,
    lambda x: ops.cast(x, "float16"): _SAME,
    ops.copy: _SAME,
    ops.stop_gradient: _SAME,
    lambda x: ops.reshape(x, (-1, 8)): _REORDERED,
    lambda x: ops.squeeze(x[:, :1], 1): _REORDERED,
    lambda x: ops.expand_dims(x, 1): _REORDERED,
    lambda x: ops.transpose(x, (0, 2, 1, 3)): PermuteRule(transposed),
    lambda x: ops.swapaxes(x, 1, 2): PermuteRule(swapped),
    lambda x: ops.moveaxis(x, 1, 2): PermuteRule(moved),
    lambda x: ops.concatenate([x, x]): ConcatRule(),
    lambda x: x[:, :1]: SliceRule(indexed),
    lambda x: ops.split(x, 2, -1): SliceRule(split),
    lambda x: ops.pad(x, 1): PadRule(),
    lambda x: ops.mean(x, 1): ReductionRule(),
    lambda x: ops.sum(x, 1): ReductionRule(total=True),
    lambda x: ops.max(x, 1): ReductionRule(not_negative),
    lambda x: ops.min(x, 1): ReductionRule(not_negative),
    lambda x: ops.average_pool(x, 2): PassThrough(per_channel),
    lambda x: ops.max_pool(x, 2): PassThrough(per_channel, not_negative),
    lambda x: ops.image.resize(x, (4, 4)): PassThrough(per_channel, interpolated),
}


@cache
def operation_rules() -> dict[type, PropagationRule]:
    """The rules by the operations' classes."""
    return {class_of(call): rule for call, rule in _OPERATIONS.items()}


@cache
def relu_with_arguments() -> type:
    """The class of `keras.activations.relu` on a tensor, which may have a ceiling, as the layer may."""
    return class_of(lambda x: keras.activations.relu(x, negative_slope=0.1))


def is_split(operation: Any) -> bool:
    """Whether an operation has parts of its input as its outputs."""
    return isinstance(operation_rules().get(type(operation)), SliceRule) and hasattr(
        operation, "indices_or_sections"
    )


def class_of(call: Callable[[Any], Any]) -> type:
    x = keras.Input((2, 2, 2), name="tfbn_probe")
    return operation_class(x, call(x))
