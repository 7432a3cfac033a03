"""EinsumDense, whose kernel and bias may count any of its axes."""

from __future__ import annotations

import string

import keras
import numpy as np

from ..core.affine import Affine, CannotFoldError
from ..core.graph import Call
from ..core.targets import PendingFold
from .targets import LayerEdit, LayerTarget, arrays, check_activation, check_weights


class EinsumTarget(LayerTarget):
    """EinsumDense. Its form of a map has an axis for each letter of the output (or input)."""

    def output(self, call: Call, affine: Affine) -> Affine:
        layer = call.op.origin
        check_weights(layer)
        check_activation(call.op, affine)
        _, kernel, output = letters(layer)
        return self._lettered(layer, affine, output, kernel)

    def input(self, call: Call, affine: Affine) -> Affine:
        layer = call.op.origin
        check_weights(layer)
        source, kernel, output = letters(layer)
        if affine.offset.any() and (lost := set(source) - set(kernel) - set(output)):
            raise CannotFoldError(
                f"{call.op} sums over {', '.join(sorted(lost))}, which its kernel does not "
                "know the size of, so it can take up a scale but no offset"
            )
        return self._lettered(layer, affine, source, kernel)

    def write(self, layer: keras.layers.Layer, pending: PendingFold) -> LayerEdit:
        source, kernel, output = letters(layer)
        weights = {name: array.astype("float64") for name, array in arrays(layer).items()}
        bias = np.zeros((1,) * len(output))
        if "bias" in weights:
            own = weights["bias"]
            bias = own.reshape((1,) * (len(output) - own.ndim) + own.shape)
        if (before := pending.input_map) is not None:
            if before.offset.any():
                equation = f"{source},{kernel}->{output}"
                bias = bias + np.einsum(equation, before.offset, weights["kernel"])
            weights["kernel"] = weights["kernel"] * _aligned(before.scale, source, kernel)
        if (after := pending.output_map) is not None:
            weights["kernel"] = weights["kernel"] * _aligned(after.scale, output, kernel)
            bias = after.scale * bias + after.offset
        varying = {letter for letter, size in zip(output, bias.shape, strict=True) if size > 1}
        axes = "".join(letter for letter in output if letter in varying | set(layer.bias_axes or ""))
        if not axes and bias.any():
            axes = output[-1]
        if not axes:
            return LayerEdit({}, {"kernel": weights["kernel"]})
        shape = layer.compute_output_shape(layer.get_build_config()["input_shape"])
        sizes = (None, *shape[1:])[-len(output) :]  # a bias counts no samples
        if None in (size for letter, size in zip(output, sizes, strict=True) if letter in axes):
            raise CannotFoldError(
                f"{layer.name!r} would need a bias along an axis of a size that it does not know"
            )
        first = output.index(axes[0])
        return LayerEdit({"bias_axes": axes}, weights | {"bias": bias.reshape(bias.shape[first:])})

    def _lettered(self, layer: keras.layers.Layer, affine: Affine, own: str, kernel: str) -> Affine:
        """The map on the axes that have letters, which are the last ones."""
        whole = affine.map(lambda array: array[np.newaxis])  # with the batch axis
        unnamed = whole.rank - len(own)
        unscaled = {axis for axis, size in enumerate(whole.scale.shape) if size > 1} - {
            unnamed + place for place, letter in enumerate(own) if letter in kernel
        }
        if unscaled or any(axis < unnamed for axis in whole.axes):
            raise CannotFoldError(
                f"it varies along an axis that the kernel of {layer.name!r} ({layer.equation}) does not "
                "have; normalise one that it has"
            )
        return whole.map(lambda array: array.reshape(array.shape[unnamed:]))


def letters(layer: keras.layers.Layer) -> tuple[str, str, str]:
    """The letters of input, kernel and output, without the ellipsis that may stand before them."""
    inputs, output = layer.equation.replace(" ", "").split("->")
    source, kernel = inputs.split(",")
    if any(part.count(letter) > 1 for part in (source, kernel) for letter in part if letter != "."):
        raise CannotFoldError(f"{layer.name!r} ({layer.equation}) takes a diagonal")
    if source.endswith("..."):
        raise CannotFoldError(f"the last axes of {layer.name!r} ({layer.equation}) have no letters")
    return source.removeprefix("..."), kernel, output.removeprefix("...")


def _aligned(array: np.ndarray, own: str, kernel: str) -> np.ndarray:
    """An array with an axis for each letter of `own`, shaped to broadcast along the kernel."""
    kept = [letter for letter in kernel if letter in own]
    numbers_of = [string.ascii_letters.index(letter) for letter in own]
    squeezed = np.einsum(array, numbers_of, [string.ascii_letters.index(letter) for letter in kept])
    sizes = iter(squeezed.shape)
    return squeezed.reshape([next(sizes) if letter in kept else 1 for letter in kernel])
