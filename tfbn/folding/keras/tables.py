"""The tables: what each class of layers does with an affine map.

A rule holds for exactly its class: a subclass may compute something else.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import keras

from ...layer import BatchNorm
from ..core.combining import (
    AddRule,
    ConcatRule,
    MultiplyRule,
    SameMapForAllInputs,
)
from ..core.kernel_arithmetic import KernelLayout
from ..core.propagation import (
    GlobalPoolRule,
    PassThrough,
    PermuteRule,
    PropagationRule,
    RepeatVectorRule,
    ReshapeRule,
    TimeStepRule,
    channels_last,
    in_order,
    interpolated,
    no_offset,
    not_in_training,
    not_negative,
    per_channel,
    permuted,
)
from .attention import AttentionTarget
from .einsum import EinsumTarget
from .embedding import EmbeddingTarget
from .normalizing import BatchNormTarget, NormalizationTarget, RescalingTarget
from .operations import operation_rules, relu_with_arguments
from .recurrent import RecurrentTarget
from .targets import HOMOGENEOUS, KernelTarget, LayerTarget

L = keras.layers


@dataclass(frozen=True)
class Step:
    """Where TimeDistributed takes one step out of a sequence, or puts the steps together again.

    Attributes:
        name: of the TimeDistributed layer.
        into: whether it takes them out.
    """

    name: str
    into: bool


# A grouped kernel is [..., in / groups, out]: still one slice of the last axis a channel.
_CONVOLUTION = KernelTarget(KernelLayout("kernel", (-1,), ("kernel", -2)))
_TRANSPOSED = KernelTarget(KernelLayout("kernel", (-2,), ("kernel", -1)), transposed=True)
# Output channel = input channel · multiplier + which multiple.
_DEPTHWISE = KernelTarget(KernelLayout("kernel", (-2, -1), ("kernel", -2)))
_SEPARABLE = KernelTarget(KernelLayout("pointwise_kernel", (-1,), ("depthwise_kernel", -2)))

FOLD_TARGETS: dict[type, LayerTarget] = {
    L.Dense: KernelTarget(KernelLayout("kernel", (-1,), ("kernel", -2)), images=False),
    L.EinsumDense: EinsumTarget(),
    L.Conv1D: _CONVOLUTION,
    L.Conv2D: _CONVOLUTION,
    L.Conv3D: _CONVOLUTION,
    L.Conv1DTranspose: _TRANSPOSED,
    L.Conv2DTranspose: _TRANSPOSED,
    L.Conv3DTranspose: _TRANSPOSED,
    L.DepthwiseConv1D: _DEPTHWISE,
    L.DepthwiseConv2D: _DEPTHWISE,
    L.SeparableConv1D: _SEPARABLE,
    L.SeparableConv2D: _SEPARABLE,
    L.SimpleRNN: RecurrentTarget(),
    L.LSTM: RecurrentTarget(),
    L.GRU: RecurrentTarget(),
    L.RNN: RecurrentTarget(),
    L.Bidirectional: RecurrentTarget(),
    L.MultiHeadAttention: AttentionTarget(),
    L.GroupQueryAttention: AttentionTarget(),
    L.Embedding: EmbeddingTarget(),
    L.Rescaling: RescalingTarget(),
    L.Normalization: NormalizationTarget(),
    L.BatchNormalization: BatchNormTarget(),
    BatchNorm: BatchNormTarget(),
}

_IDENTITY = PassThrough()
_DROPPED = PassThrough(not_in_training)
_HOMOGENEOUS = PassThrough(no_offset, not_negative)
_PER_CHANNEL = PassThrough(per_channel)
_LARGEST = PassThrough(per_channel, not_negative)
_PADDED = PassThrough(per_channel, no_offset)
_REORDERED = ReshapeRule(in_order)


def _of_ranks(
    name: str, rule: PropagationRule, ranks: tuple[int, ...] = (1, 2, 3)
) -> dict[type, PropagationRule]:
    return {getattr(L, f"{name}{rank}D"): rule for rank in ranks}


PROPAGATION_RULES: dict[type, PropagationRule] = {
    L.Identity: _IDENTITY,
    L.Dropout: _DROPPED,
    **_of_ranks("SpatialDropout", _DROPPED),
    L.AlphaDropout: _DROPPED,
    L.GaussianDropout: _DROPPED,
    L.GaussianNoise: _DROPPED,
    L.LeakyReLU: _HOMOGENEOUS,
    L.PReLU: _HOMOGENEOUS,
    **_of_ranks("AveragePooling", _PER_CHANNEL),  # TensorFlow leaves the padding out of averages
    **_of_ranks("MaxPooling", _LARGEST),
    **_of_ranks("GlobalAveragePooling", GlobalPoolRule()),
    **_of_ranks("GlobalMaxPooling", GlobalPoolRule(not_negative)),
    **_of_ranks("UpSampling", PassThrough(per_channel, interpolated)),
    **_of_ranks("Cropping", _PER_CHANNEL),
    **_of_ranks("ZeroPadding", _PADDED),
    L.Flatten: ReshapeRule(channels_last),
    L.Reshape: _REORDERED,
    L.Permute: PermuteRule(permuted),
    L.RepeatVector: RepeatVectorRule(),
    Step: TimeStepRule(),
    L.Add: AddRule(),
    L.Subtract: AddRule(1, -1),
    L.Average: SameMapForAllInputs(),
    L.Maximum: SameMapForAllInputs(not_negative),
    L.Minimum: SameMapForAllInputs(not_negative),
    L.Multiply: MultiplyRule(),
    L.Concatenate: ConcatRule(),
}


def fold_target_for(layer: Any) -> LayerTarget | None:
    """What takes an affine map up at this layer."""
    return FOLD_TARGETS.get(type(layer))


def propagation_rule_for(operation: Any) -> PropagationRule | None:
    """What an affine map does at this layer or Keras operation that has no weights to change."""
    if isinstance(operation, L.Activation):
        plain = operation.activation in (keras.activations.linear, *HOMOGENEOUS)
        if type(operation) is not L.Activation or not plain:
            return None
        return _IDENTITY if operation.activation is keras.activations.linear else _HOMOGENEOUS
    # The classes of operations are asked for only of an operation: probes of them take automatic names.
    is_operation = not isinstance(operation, (L.Layer, Step))
    if type(operation) is L.ReLU or (is_operation and type(operation) is relu_with_arguments()):
        straight = operation.max_value is None and not operation.threshold
        return _HOMOGENEOUS if straight else None
    rules = operation_rules() if is_operation else PROPAGATION_RULES
    return rules.get(type(operation))
