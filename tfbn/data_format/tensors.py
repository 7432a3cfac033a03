"""The tensors of the new model: the layout of each, and Permute layers between layouts."""

from __future__ import annotations

from typing import Any

import keras

from .layouts import Layout, natural, original, permutation
from .rules import Given


class HeldTensors:
    """Symbolic tensors of the new model, by identity.

    Args:
        names: those of the original model's layers, which no new layer may have.
    """

    def __init__(self, names: set[str]) -> None:
        self._names = names
        # By `id` of the tensor, which is kept with it: the `id` of a deleted one could be used again.
        self._held: dict[int, tuple[keras.KerasTensor, Layout, str]] = {}
        self._permuted: dict[tuple[int, Layout], keras.KerasTensor] = {}

    def hold(self, tensor: keras.KerasTensor, layout: Layout, source: str) -> keras.KerasTensor:
        """Note the layout of a new tensor, and the name of the layer that made it."""
        self._held[id(tensor)] = tensor, layout, source
        return tensor

    def layout(self, tensor: keras.KerasTensor) -> Layout:
        return self._held[id(tensor)][1]

    def given(self, tensor: keras.KerasTensor) -> Given:
        layout = self.layout(tensor)
        return Given(original(tensor.shape, layout), layout)

    def as_it_was(self, tensor: keras.KerasTensor) -> keras.KerasTensor:
        return self.in_layout(tensor, natural(len(tensor.shape)))

    def in_layout(self, tensor: keras.KerasTensor, wanted: Layout) -> keras.KerasTensor:
        """The tensor itself, or permuted, by one Permute layer for all that want this layout.

        Raises:
            ValueError: it has a mask along an axis that moves.
        """
        _, held, source = self._held[id(tensor)]
        key = id(tensor), wanted
        if held == wanted:
            return tensor
        if key not in self._permuted:
            permute = self._permute(tensor, permutation(held, wanted), wanted, source)
            self._permuted[key] = self.hold(permute(tensor), wanted, source)
        return self._permuted[key]

    def _permute(
        self, tensor: keras.KerasTensor, axes: Layout, wanted: Layout, source: str
    ) -> keras.layers.Layer:
        form = "channels_first" if wanted == natural(len(wanted)) else "channels_last"
        name = self.new_name(f"{source}_{form}")
        # Of the tensor's type, or the layer would cast it.
        dtype = tensor.dtype if "float" in tensor.dtype else None
        if not is_masked(tensor):
            return keras.layers.Permute(axes[1:], name=name, dtype=dtype)
        if axes[1] != 1:
            raise ValueError(
                f"The output of {source!r} has a mask along an axis that would move, so that the model "
                "cannot be made channels last. Apply the mask behind the channels-first layers."
            )
        # TimeDistributed hands the mask on; Permute does not.
        step = keras.layers.Permute([axis - 1 for axis in axes[2:]], dtype=dtype)
        return keras.layers.TimeDistributed(step, name=name, dtype=dtype)

    def new_name(self, wanted: str) -> str:
        """A name that no layer has yet."""
        name, number = wanted, 0
        while name in self._names:
            number += 1
            name = f"{wanted}_{number}"
        self._names.add(name)
        return name


class _MaskProbe(keras.layers.Layer):
    """Tells whether a tensor has a mask: Keras hands it to a layer whose `call` takes one."""

    masked = False

    def call(self, inputs: Any, mask: Any = None) -> Any:
        self.masked = mask is not None
        return inputs


def is_masked(tensor: keras.KerasTensor) -> bool:
    probe = _MaskProbe(name="tfbn_probe")
    probe.supports_masking = True
    probe(tensor)
    return probe.masked
