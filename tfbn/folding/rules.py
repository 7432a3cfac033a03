"""The tables: what each class of layers, and each Keras operation, does with an affine map.

A rule holds for exactly its class: a subclass may compute something else.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, partial
from typing import Any

import keras

from ..cloning import operation_class
from ..layer import BatchNorm
from .absorbing import HOMOGENEOUS, Absorber, Linear
from .combining import Alike, Constants, Product, Slices, Sum, inverse
from .crossing import (
    Crossing,
    Pooled,
    Rearranged,
    Repeated,
    Stepped,
    Unchanged,
    channels_last,
    in_order,
    interpolated,
    no_offset,
    not_in_training,
    not_negative,
    per_channel,
)
from .einsum import Einsum
from .graph import Step
from .normalizing import BatchNormalized, Rescaled, Standardized

L = keras.layers

# A grouped kernel is [..., in / groups, out]: still one slice of the last axis a channel.
_CONVOLUTION = Linear("kernel", (-1,), ("kernel", -2))
_TRANSPOSED = Linear("kernel", (-2,), ("kernel", -1), transposed=True)
# Output channel = input channel · multiplier + which multiple.
_DEPTHWISE = Linear("kernel", (-2, -1), ("kernel", -2))
_SEPARABLE = Linear("pointwise_kernel", (-1,), ("depthwise_kernel", -2))

ABSORBERS: dict[type, Absorber] = {
    L.Dense: Linear("kernel", (-1,), ("kernel", -2), images=False),
    L.EinsumDense: Einsum(),
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
    L.Rescaling: Rescaled(),
    L.Normalization: Standardized(),
    L.BatchNormalization: BatchNormalized(),
    BatchNorm: BatchNormalized(),
}
MERGED_INTO = (L.BatchNormalization, BatchNorm)

_IDENTITY = Unchanged()
_DROPPED = Unchanged(not_in_training)
_HOMOGENEOUS = Unchanged(no_offset, not_negative)
_PER_CHANNEL = Unchanged(per_channel)
_LARGEST = Unchanged(per_channel, not_negative)
_PADDED = Unchanged(per_channel, no_offset)
_REORDERED = Rearranged(in_order)


def _of_ranks(name: str, rule: Crossing, ranks: tuple[int, ...] = (1, 2, 3)) -> dict[type, Crossing]:
    return {getattr(L, f"{name}{rank}D"): rule for rank in ranks}


CROSSINGS: dict[type, Crossing] = {
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
    **_of_ranks("GlobalAveragePooling", Pooled()),
    **_of_ranks("GlobalMaxPooling", Pooled(not_negative)),
    **_of_ranks("UpSampling", Unchanged(per_channel, interpolated)),
    **_of_ranks("Cropping", _PER_CHANNEL),
    **_of_ranks("ZeroPadding", _PADDED),
    L.Flatten: Rearranged(channels_last),
    L.Reshape: _REORDERED,
    L.Permute: Rearranged(lambda call: tuple(axis - 1 for axis in call.layer.dims)),
    L.RepeatVector: Repeated(),
    Step: Stepped(),
    L.Add: Sum(),
    L.Subtract: Sum(1, -1),
    L.Average: Alike(),
    L.Maximum: Alike(not_negative),
    L.Minimum: Alike(not_negative),
    L.Multiply: Product(),
    L.Concatenate: Slices(),
}

# Whether the tensor comes first, and the other argument: the constants of factor · x + term.
_ARITHMETIC: dict[Callable[..., Any], Crossing] = {
    keras.ops.add: Constants(lambda _, other: (1, other), Sum()),
    keras.ops.subtract: Constants(
        lambda first, other: (1, -other) if first else (-1, other), Sum(1, -1)
    ),
    keras.ops.multiply: Constants(lambda _, other: (other, 0), Product()),
    keras.ops.divide: Constants(inverse),
    keras.ops.true_divide: Constants(inverse),
    keras.ops.maximum: Alike(not_negative),
    keras.ops.minimum: Alike(not_negative),
}


def absorber_for(layer: Any) -> Absorber | None:
    """What takes an affine map up at this layer."""
    return ABSORBERS.get(type(layer))


def crossing_for(operation: Any) -> Crossing | None:
    """What an affine map does at this layer or Keras operation that has no weights to change."""
    if isinstance(operation, L.Activation):
        plain = operation.activation in (keras.activations.linear, *HOMOGENEOUS)
        if type(operation) is not L.Activation or not plain:
            return None
        return _IDENTITY if operation.activation is keras.activations.linear else _HOMOGENEOUS
    if type(operation) is L.ReLU:
        straight = operation.max_value is None and not operation.threshold
        return _HOMOGENEOUS if straight else None
    return CROSSINGS.get(type(operation)) or _operations().get(type(operation))


@cache
def _operations() -> dict[type, Crossing]:
    """The rules of Keras operations (`x + y`, `keras.ops.reshape`) by their classes.

    The classes have no public names; a model of one call shows them.
    """
    x = keras.Input((1,), name="tfbn_probe")
    class_of = partial(operation_class, x)
    rules = {class_of(function(x, x)): rule for function, rule in _ARITHMETIC.items()}
    return rules | {
        class_of(keras.ops.relu(x)): _HOMOGENEOUS,
        class_of(keras.ops.reshape(x, (-1, 1))): _REORDERED,
        class_of(keras.ops.concatenate([x, x])): Slices(),
    }
