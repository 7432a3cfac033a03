"""What each kind of linear layer does with a scale and an offset on its output channels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import keras
import numpy as np

from .. import functional

L = keras.layers


@dataclass(frozen=True)
class Rule:
    """Where a linear layer keeps its output channels.

    Attributes:
        kernel: name of the weight that the scale goes into.
        axes: the axes of that weight that count output channels, together where there are several.
        images: whether the layer's output follows its `data_format`; otherwise channels are last.
    """

    kernel: str
    axes: tuple[int, ...]
    images: bool = True

    def channel_axis(self, layer: keras.layers.Layer) -> int:
        """The axis of the layer's output that holds its channels."""
        return 1 if self.images and layer.data_format == "channels_first" else -1


_CONVOLUTION = Rule("kernel", (-1,))
_TRANSPOSED = Rule("kernel", (-2,))
_DEPTHWISE = Rule("kernel", (-2, -1))  # output channel = input channel · multiplier + which multiple
_SEPARABLE = Rule("pointwise_kernel", (-1,))

RULES: dict[type, Rule] = {
    L.Dense: Rule("kernel", (-1,), images=False),
    # A grouped kernel is [..., in / groups, out]: still one slice of the last axis a channel.
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
}


def rule_for(layer: object) -> Rule | None:
    """The rule of exactly this class: a subclass may compute something else."""
    return RULES.get(type(layer))


def refusal(layer: keras.layers.Layer) -> str | None:
    """Why a layer that has a rule cannot take a scale and an offset as it stands."""
    if layer.activation is not keras.activations.linear:
        name = getattr(layer.activation, "__name__", None) or type(layer.activation).__name__
        return (
            f"{layer.name!r} applies its own activation ({name}) before it; move the "
            "activation behind the batch norm if the model may change"
        )
    if getattr(layer, "quantization_mode", None) or getattr(layer, "lora_enabled", False):
        return f"the weights of {layer.name!r} are quantized or adapted by LoRA"
    return None


@dataclass(frozen=True)
class Absorbed:
    """A linear layer with a scale and an offset folded in: its configuration and weights by name."""

    layer: keras.layers.Layer
    weights: dict[str, np.ndarray]

    def assign(self, new: keras.layers.Layer) -> None:
        for name, value in self.weights.items():
            getattr(new, name).assign(value)

    def unbuilt(self) -> keras.layers.Layer:
        """The layer anew, with a bias and without weights yet."""
        config: dict[str, Any] = self.layer.get_config() | {"use_bias": True}
        return type(self.layer).from_config(config)


def absorb(layer: keras.layers.Layer, scale: np.ndarray, offset: np.ndarray) -> Absorbed:
    """Fold a scale and an offset of the output channels into a layer that has a rule.

    Raises:
        OverflowError: the result does not fit the type of the layer's weights.
    """
    rule = RULES[type(layer)]
    weights = {weight.name: weight.numpy() for weight in layer.weights}
    kernel, bias = functional.fold_into_kernel(
        weights[rule.kernel], weights.get("bias"), scale, offset, rule.axes
    )
    weights |= {rule.kernel: kernel.numpy(), "bias": bias.numpy()}
    for name in (rule.kernel, "bias"):
        if not np.isfinite(weights[name].astype("float64")).all():
            raise OverflowError(f"its folded {name} is not finite in {weights[name].dtype}")
    return Absorbed(layer, weights)
