"""The tables: what each operation of TensorFlow's does with an affine map."""

from __future__ import annotations

from ..core.combining import (
    ADDITION,
    DIVISION,
    MULTIPLICATION,
    SUBTRACTION,
    AddRule,
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
    no_offset,
    not_negative,
    per_channel,
    same_type,
    transposed,
)
from ..core.selecting import PadRule, ReductionRule, ShapeRule, SliceRule, indexed, split

_IDENTITY = PassThrough()
_SAME = PassThrough(same_type)
_HOMOGENEOUS = PassThrough(no_offset, not_negative)
_PER_CHANNEL = PassThrough(per_channel)
_LARGEST = PassThrough(per_channel, not_negative)
_REORDERED = ReshapeRule(in_order)
_SHAPE = ShapeRule()

RULES: dict[str, PropagationRule] = {
    "Identity": _IDENTITY,
    "Snapshot": _IDENTITY,
    "StopGradient": _IDENTITY,
    "PreventGradient": _IDENTITY,
    "CheckNumerics": _IDENTITY,
    "Cast": _SAME,
    "Relu": _HOMOGENEOUS,
    "LeakyRelu": _HOMOGENEOUS,
    "Add": ADDITION,
    "AddV2": ADDITION,
    "BiasAdd": ADDITION,
    "AddN": AddRule(),
    "Sub": SUBTRACTION,
    "Mul": MULTIPLICATION,
    "RealDiv": DIVISION,
    "Neg": NegativeRule(),
    "Maximum": SameMapForAllInputs(not_negative),
    "Minimum": SameMapForAllInputs(not_negative),
    "MaxPool": _LARGEST,
    "MaxPool3D": _LARGEST,
    "AvgPool": _PER_CHANNEL,  # the padding is left out of averages
    "AvgPool3D": _PER_CHANNEL,
    "ResizeBilinear": _PER_CHANNEL,
    "ResizeNearestNeighbor": _PER_CHANNEL,
    "SpaceToBatchND": PassThrough(per_channel, no_offset),  # it pads with zeros
    "BatchToSpaceND": _PER_CHANNEL,
    "Mean": ReductionRule(),
    "Sum": ReductionRule(total=True),
    "Max": ReductionRule(not_negative),
    "Min": ReductionRule(not_negative),
    "ConcatV2": ConcatRule(),
    "Pad": PadRule(),
    "PadV2": PadRule(),
    "MirrorPad": PadRule(),
    "Reshape": _REORDERED,
    "Squeeze": _REORDERED,
    "ExpandDims": _REORDERED,
    "Transpose": PermuteRule(transposed),
    "StridedSlice": SliceRule(indexed),
    "Split": SliceRule(split),
    "Shape": _SHAPE,
    "ZerosLike": _SHAPE,
    "OnesLike": _SHAPE,
}
