"""What takes an affine map up: how each kind of layer changes when its output or input is mapped.

A rule answers two questions about a call, and changes nothing: may the layer's output be replaced by
`scale · output + offset` (`output`), and may the layer be given `x` where it was given
`scale · x + offset` (`input`)? Both return the map as one number per channel, unless the rule says
otherwise. `write` then gives the layer's new configuration
and weights for all that it took up.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import keras
import numpy as np

from ..axes import bias_may_be_misplaced
from ..data_format.support import CONVERT
from .affine import Affine, CannotFoldError, ScaledKernel
from .graph import Call
from .propagation import check_no_offset, check_not_negative

HOMOGENEOUS = (keras.activations.relu, keras.activations.leaky_relu)


@dataclass(frozen=True)
class PendingFold:
    """What a layer is still to take up: a map of its input, and a map of its output."""

    input_map: Affine | None = None
    output_map: Affine | None = None

    def with_input_map(self, new: Affine) -> PendingFold:
        return PendingFold(self.input_map.compose(new) if self.input_map else new, self.output_map)

    def with_output_map(self, new: Affine) -> PendingFold:
        return PendingFold(self.input_map, new.compose(self.output_map) if self.output_map else new)


@dataclass(frozen=True)
class LayerEdit:
    """A layer's new state: arguments of its configuration, and its weights by name.

    Weights are float64, or a `ScaledKernel` that is rounded once.
    """

    config: dict[str, Any] = field(default_factory=dict)
    weights: Mapping[str, np.ndarray | ScaledKernel] = field(default_factory=dict)


class FoldTarget(ABC):
    """The rule of one class of layers."""

    @abstractmethod
    def output(self, call: Call, affine: Affine) -> Affine:
        """The map of the call's output in the layer's form, or CannotFoldError."""

    @abstractmethod
    def input(self, call: Call, affine: Affine) -> Affine:
        """The map of the call's input in the layer's form, or CannotFoldError."""

    @abstractmethod
    def write(self, layer: keras.layers.Layer, pending: PendingFold) -> LayerEdit:
        """The layer's new state, or CannotFoldError if the layer cannot have it."""


@dataclass(frozen=True)
class KernelTarget(FoldTarget):
    """Dense and all convolutions: kernels and a bias.

    Attributes:
        kernel: the weight with an output-channel axis.
        outputs: that axis, or several that count the channels together.
        inputs: the weight that counts the input channels (of one group), and its axis that does.
        images: whether the layer's tensors follow its `data_format`; otherwise channels are last.
        transposed: whether a constant input gives an output that is not.
    """

    kernel: str
    outputs: tuple[int, ...]
    inputs: tuple[str, int]
    images: bool = True
    transposed: bool = False

    def output(self, call: Call, affine: Affine) -> Affine:
        check_weights(call.layer)
        check_activation(call.layer, affine)
        return self._channels(call, affine, call.outputs[0].shape)

    def input(self, call: Call, affine: Affine) -> Affine:
        layer = call.layer
        check_weights(layer)
        if affine.offset.any() and getattr(layer, "padding", "valid") != "valid":
            raise CannotFoldError(
                f"{layer.name!r} pads its input with zeros (padding={layer.padding!r}), which an offset "
                "would have to reach too; with padding='valid' it could take it up"
            )
        if affine.offset.any() and self.transposed:
            raise CannotFoldError(
                f"{layer.name!r} is transposed and sums fewer inputs at some places than at others, so "
                "it can take up a scale but no offset"
            )
        return self._channels(call, affine, call.inputs[0].shape)

    def write(self, layer: keras.layers.Layer, pending: PendingFold) -> LayerEdit:
        kernels = {name: ScaledKernel(array) for name, array in arrays(layer).items() if name != "bias"}
        bias = np.zeros(1) if layer.bias is None else np.asarray(layer.bias.numpy(), "float64")
        if (before := pending.input_map) is not None:
            name, axis = self.inputs
            kernel = kernels[name].kernel
            if before.offset.any():
                bias = bias + self._sums(layer, kernels, before.offset)
            kernels[name] = kernels[name].times(_inputs(layer, kernel, axis, before.scale))
        if (after := pending.output_map) is not None:
            kernel = kernels[self.kernel].kernel
            sizes = [kernel.shape[axis] for axis in self.outputs]
            shape = [
                size if axis - kernel.ndim in self.outputs else 1
                for axis, size in enumerate(kernel.shape)
            ]
            scale = np.broadcast_to(after.scale, math.prod(sizes)).reshape(shape)
            kernels[self.kernel] = kernels[self.kernel].times(scale)
            bias = after.scale * bias + after.offset
        if layer.use_bias or bias.any():
            return LayerEdit({"use_bias": True}, kernels | {"bias": bias})
        return LayerEdit({}, dict(kernels))

    def _sums(
        self, layer: keras.layers.Layer, kernels: dict[str, ScaledKernel], offset: np.ndarray
    ) -> np.ndarray:
        """What the kernels make of a constant input: one number for each output channel."""
        name, axis = self.inputs
        kernel = kernels[name].kernel
        spatial = tuple(range(kernel.ndim - 2))
        taps = kernel.sum(spatial, dtype="float64", keepdims=True)
        sums = (taps * _inputs(layer, kernel, axis, offset)).reshape(taps.shape[-2:])
        if name != self.kernel:
            return sums.reshape(-1) @ kernels[self.kernel].kernel.reshape(sums.size, -1)
        return sums.reshape(-1) if len(self.outputs) > 1 else sums.sum(0)

    def _channels(self, call: Call, affine: Affine, shape: tuple[int | None, ...]) -> Affine:
        layer, output = call.layer, call.outputs[0].shape
        first = self.images and layer.data_format == "channels_first"
        biased = layer.use_bias or affine.offset.any()
        if first and biased and bias_may_be_misplaced(output):
            raise CannotFoldError(
                f"the last axis of {layer.name!r}'s output may be as long as its channels, and Keras "
                "would add a bias along that one; channels last, or of another size, it can be folded: "
                f"{CONVERT}"
            )
        axis = 1 if first else len(shape) - 1
        return per_channel_map(layer, affine, (axis,), shape)


def arrays(layer: keras.layers.Layer) -> dict[str, np.ndarray]:
    """A layer's weights by name."""
    return {weight.name: weight.numpy() for weight in layer.weights}


def _inputs(
    layer: keras.layers.Layer, kernel: np.ndarray, axis: int, channels: np.ndarray
) -> np.ndarray:
    """Numbers of the input channels, shaped to broadcast along a kernel that counts them on `axis`."""
    groups, size = getattr(layer, "groups", 1), kernel.shape[axis]
    channels = np.broadcast_to(channels, size * groups).reshape(groups, size)
    if groups == 1:
        return np.expand_dims(
            channels[0], tuple(one for one in range(kernel.ndim) if one != axis % kernel.ndim)
        )
    # Output channel o is of group o // (out / groups), and sees that group's inputs only.
    pairs = np.repeat(channels, kernel.shape[-1] // groups, axis=0).T
    return pairs.reshape((1,) * (kernel.ndim - 2) + pairs.shape)


def per_channel_map(
    layer: keras.layers.Layer, affine: Affine, axes: Sequence[int], shape: Sequence[int | None]
) -> Affine:
    """The map of a tensor of `shape`, flat, along its channel `axes`.

    Raises:
        CannotFoldError: it varies along another axis, or a size is not known.
    """
    others = [axis + 1 for axis in affine.axes if axis + 1 not in axes]
    if others:
        raise CannotFoldError(
            f"it varies along axis {_listed(others)}, which is not the channel axis {_listed(axes)} of "
            f"{layer.name!r}; normalise that one"
        )
    sizes = [shape[axis] for axis in axes]
    if affine.axes and None in sizes:
        raise CannotFoldError(f"the size of axis {_listed(axes)} at {layer.name!r} is not known")
    full = [size if axis in axes and size else 1 for axis, size in enumerate(shape)][1:]
    return Affine(*(np.broadcast_to(one, full).reshape(-1) for one in (affine.scale, affine.offset)))


def check_weights(layer: keras.layers.Layer) -> None:
    if getattr(layer, "quantization_mode", None) or getattr(layer, "lora_enabled", False):
        raise CannotFoldError(
            f"the weights of {layer.name!r} are quantized or adapted by LoRA; fold first, and quantize "
            "or adapt the folded model"
        )


def check_activation(layer: keras.layers.Layer, affine: Affine) -> None:
    """Refuse a map that does not move from behind a layer's own activation to before it."""
    if layer.activation in (None, keras.activations.linear):
        return
    name = getattr(layer.activation, "__name__", None) or type(layer.activation).__name__
    own = f"{layer.name!r} applies its own activation ({name}) before it"
    if layer.activation not in HOMOGENEOUS:
        raise CannotFoldError(
            f"{own}; move the activation behind the batch norm if the model may change"
        )
    try:
        check_no_offset(layer, affine)
        check_not_negative(layer, affine)
    except CannotFoldError as reason:
        raise CannotFoldError(f"{own}, and {reason}") from None


def _listed(axes: Sequence[int]) -> str:
    return ", ".join(map(str, axes))
