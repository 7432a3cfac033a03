"""Layers with kernels that take affine maps up, and what any layer becomes that does."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import keras
import numpy as np

from ...axes import bias_may_be_misplaced
from ...batch_norms import layer_paths
from ...copying import configuration
from ...data_format.support import CONVERT
from ...messages import one_line
from ..core.affine import Affine, CannotFoldError
from ..core.graph import Call, Op
from ..core.kernel_arithmetic import KernelLayout, ScaledKernel
from ..core.propagation import check_no_offset, check_not_negative
from ..core.targets import FoldTarget, PendingFold, per_channel_map

HOMOGENEOUS = (keras.activations.relu, keras.activations.leaky_relu)


@dataclass(frozen=True)
class LayerEdit:
    """A layer's new state: arguments of its configuration, and its weights.

    Weights are by the names of `named_weights`; float64, or a `ScaledKernel` that is rounded once.
    """

    config: dict[str, Any] = field(default_factory=dict)
    weights: Mapping[str, np.ndarray | ScaledKernel] = field(default_factory=dict)


class LayerTarget(FoldTarget):
    """How layers of one class take maps up, and what becomes of a layer that does."""

    @abstractmethod
    def write(self, layer: keras.layers.Layer, pending: PendingFold) -> LayerEdit:
        """The layer's new state, or CannotFoldError if the layer cannot have it."""


@dataclass(frozen=True)
class KernelTarget(LayerTarget):
    """Dense and all convolutions: kernels and a bias.

    Attributes:
        layout: where the kernels count the channels.
        images: whether the layer's tensors follow its `data_format`; otherwise channels are last.
        transposed: whether a constant input gives an output that is not.
    """

    layout: KernelLayout
    images: bool = True
    transposed: bool = False

    def output(self, call: Call, affine: Affine) -> Affine:
        check_weights(call.op.origin)
        check_activation(call.op, affine)
        return self._channels(call, affine, call.outputs[0].shape)

    def input(self, call: Call, affine: Affine) -> Affine:
        layer = call.op.origin
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
        kernels = {name: array for name, array in arrays(layer).items() if name != "bias"}
        own = np.zeros(1) if layer.bias is None else np.asarray(layer.bias.numpy(), "float64")
        scaled, bias = self.layout.fold(kernels, own, pending, getattr(layer, "groups", 1))
        if layer.use_bias or bias.any():
            return LayerEdit({"use_bias": True}, scaled | {"bias": bias})
        return LayerEdit({}, dict(scaled))

    def _channels(self, call: Call, affine: Affine, shape: tuple[int | None, ...]) -> Affine:
        layer, output = call.op.origin, call.outputs[0].shape
        first = self.images and layer.data_format == "channels_first"
        biased = layer.use_bias or affine.offset.any()
        if first and biased and bias_may_be_misplaced(output):
            raise CannotFoldError(
                f"the last axis of {layer.name!r}'s output may be as long as its channels, and Keras "
                "would add a bias along that one; channels last, or of another size, it can be folded: "
                f"{CONVERT}"
            )
        axis = 1 if first else len(shape) - 1
        return per_channel_map(layer.name, affine, (axis,), shape)


def named_weights(layer: keras.layers.Layer) -> dict[str, Any]:
    """A layer's variables by name; of a layer inside it by path and name, as `lstm_cell/kernel`."""
    found = {id(weight): (weight.name, weight) for weight in layer.weights}
    for path, inside in layer_paths(layer).items():  # outermost first, so that the whole path is left
        found |= {id(weight): (f"{path}/{weight.name}", weight) for weight in inside.weights}
    return dict(found.values())


def arrays(layer: keras.layers.Layer) -> dict[str, np.ndarray]:
    """A layer's weights by these names."""
    return {name: weight.numpy() for name, weight in named_weights(layer).items()}


def own_configuration(layer: keras.layers.Layer) -> dict[str, Any]:
    try:
        return configuration(layer)
    except Exception as error:  # of the user's own objects inside it
        raise cannot_be_made_anew(layer, error) from error


def cannot_be_made_anew(layer: keras.layers.Layer, error: Exception) -> CannotFoldError:
    return CannotFoldError(f"{layer.name!r} cannot be made anew: {one_line(error)}")


def check_weights(layer: keras.layers.Layer) -> None:
    if getattr(layer, "quantization_mode", None) or getattr(layer, "lora_enabled", False):
        raise CannotFoldError(
            f"the weights of {layer.name!r} are quantized or adapted by LoRA; fold first, and quantize "
            "or adapt the folded model"
        )


def check_activation(op: Op, affine: Affine) -> None:
    """Refuse a map that does not move from behind a layer's own activation to before it."""
    layer = op.origin
    if layer.activation in (None, keras.activations.linear):
        return
    name = getattr(layer.activation, "__name__", None) or type(layer.activation).__name__
    own = f"{layer.name!r} applies its own activation ({name}) before it"
    if layer.activation not in HOMOGENEOUS:
        raise CannotFoldError(
            f"{own}; move the activation behind the batch norm if the model may change"
        )
    try:
        check_no_offset(op, affine)
        check_not_negative(op, affine)
    except CannotFoldError as reason:
        raise CannotFoldError(f"{own}, and {reason}") from None
