"""The shapes that the weights of a layer of Keras 3 will have, before it makes any."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import keras

from ....axes import channel_axes
from ....layer import BatchNorm
from ....renorm import BatchRenorm
from ..errors import LegacyModelError
from ..layers.legacy_layers import ParametricSoftplus, SReLU

L = keras.layers
Shape = tuple[int | None, ...]
Expected = Callable[[Any, Shape], list[Shape]]


def expected(layer: Any, shape: Shape, part: str) -> list[Shape] | None:
    """The shapes of `layer.weights`, called on inputs of `shape`; `None` for classes not of the tables.

    Raises:
        LegacyModelError: the inputs have too few axes, or unknown sizes where weights depend on them.
    """
    rule = next((RULES[kind] for kind in type(layer).__mro__ if kind in RULES), None)
    if rule is None:
        return None
    try:
        found = rule(layer, tuple(shape))
    except (IndexError, ValueError) as error:
        raise LegacyModelError(f"cannot be called on inputs of shape {shape}: {error}", part) from error
    if any(None in sizes for sizes in found):
        raise LegacyModelError(
            f"is called on inputs of shape {shape}, and its weights need the sizes that are None there",
            part,
        )
    return found


def _bias(layer: Any, *shape: int) -> list[Shape]:
    return [shape] if layer.use_bias else []


def _channels(layer: Any, shape: Shape) -> int | None:
    return shape[1 if layer.data_format == "channels_first" else -1]


def _times(size: int | None, other: int) -> int | None:
    return None if size is None else size * other


def _dense(layer: Any, shape: Shape) -> list[Shape]:
    return [(shape[-1], layer.units), *_bias(layer, layer.units)]


def _convolution(layer: Any, shape: Shape) -> list[Shape]:
    channels = _channels(layer, shape)
    channels = channels if channels is None else channels // layer.groups
    return [(*layer.kernel_size, channels, layer.filters), *_bias(layer, layer.filters)]


def _transposed(layer: Any, shape: Shape) -> list[Shape]:
    kernel = (*layer.kernel_size, layer.filters, _channels(layer, shape))
    return [kernel, *_bias(layer, layer.filters)]


def _depthwise(layer: Any, shape: Shape) -> list[Shape]:
    channels, many = _channels(layer, shape), layer.depth_multiplier
    bias = [(_times(channels, many),)] if layer.use_bias else []
    return [(*layer.kernel_size, channels, many), *bias]


def _separable(layer: Any, shape: Shape) -> list[Shape]:
    channels, many = _channels(layer, shape), layer.depth_multiplier
    ones = (1,) * len(layer.kernel_size)
    return [
        (*layer.kernel_size, channels, many),
        (*ones, _times(channels, many), layer.filters),
        *_bias(layer, layer.filters),
    ]


def _recurrent(gates: int) -> Expected:
    def rule(layer: Any, shape: Shape) -> list[Shape]:
        wide = gates * layer.units
        bias = (2, wide) if getattr(layer, "reset_after", False) else (wide,)
        return [(shape[2], wide), (layer.units, wide), *_bias(layer, *bias)]

    return rule


def _bidirectional(layer: Any, shape: Shape) -> list[Shape]:
    both = [expected(side, shape, layer.name) for side in (layer.forward_layer, layer.backward_layer)]
    return [shape for shapes in both for shape in shapes or []]


def _distributed(layer: Any, shape: Shape) -> list[Shape]:
    return expected(layer.layer, (shape[0], *shape[2:]), layer.name) or []


def _conv_lstm(layer: Any, shape: Shape) -> list[Shape]:
    channels, wide = shape[2 if layer.data_format == "channels_first" else -1], 4 * layer.filters
    kernels: list[Shape] = [(*layer.kernel_size, size, wide) for size in (channels, layer.filters)]
    return [*kernels, *_bias(layer, wide)]


def _batch_norm(layer: Any, shape: Shape) -> list[Shape]:
    sizes = tuple(shape[axis] for axis in channel_axes(layer.axis, len(shape)))
    return [sizes] * (2 + bool(layer.center) + bool(layer.scale))


def _layer_norm(layer: Any, shape: Shape) -> list[Shape]:
    listed = [layer.axis] if isinstance(layer.axis, int) else layer.axis
    sizes = tuple(shape[axis] for axis in listed)
    return [sizes] * (bool(layer.center) + bool(layer.scale))


def _prelu(layer: Any, shape: Shape) -> list[Shape]:
    shared: Sequence[int] = layer.shared_axes or ()
    return [tuple(1 if axis in shared else size for axis, size in enumerate(shape))[1:]]


def _parametric(layer: Any, shape: Shape) -> list[Shape]:
    return [layer.parameter_shape(shape)] * len(layer.parameters)


RULES: dict[type, Expected] = {
    L.Dense: _dense,
    L.Embedding: lambda layer, shape: [(layer.input_dim, layer.output_dim)],
    **dict.fromkeys((L.Conv1D, L.Conv2D, L.Conv3D), _convolution),
    **dict.fromkeys((L.Conv1DTranspose, L.Conv2DTranspose, L.Conv3DTranspose), _transposed),
    **dict.fromkeys((L.DepthwiseConv1D, L.DepthwiseConv2D), _depthwise),
    **dict.fromkeys((L.SeparableConv1D, L.SeparableConv2D), _separable),
    L.SimpleRNN: _recurrent(1),
    L.GRU: _recurrent(3),
    L.LSTM: _recurrent(4),
    L.ConvLSTM2D: _conv_lstm,
    L.Bidirectional: _bidirectional,
    L.TimeDistributed: _distributed,
    BatchNorm: _batch_norm,
    BatchRenorm: lambda layer, shape: [*_batch_norm(layer, shape), *_batch_norm(layer, shape)[-1:] * 3],
    L.LayerNormalization: _layer_norm,
    L.PReLU: _prelu,
    **dict.fromkeys((ParametricSoftplus, SReLU), _parametric),
}
