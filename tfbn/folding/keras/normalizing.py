"""Affine layers that take another affine map up: batch norms, Rescaling, Normalization."""

from __future__ import annotations

import keras
import numpy as np

from ...axes import channel_axes
from ...batch_norms import inference_affine
from ...layer import BatchNorm
from ..core.affine import Affine, CannotFoldError
from ..core.graph import Call
from ..core.kernel_arithmetic import round_to
from ..core.targets import PendingFold, per_channel_map
from .targets import LayerEdit, LayerTarget, arrays

# The largest offset of normalised values that Rescaling may take up, beside their size of about 1.
MOST_OFFSET = 8.0


class BatchNormTarget(LayerTarget):
    """Another batch norm: it becomes one of variance 1 with the mean where its output is 0.

    With mean 0 and all in beta, inputs far from 0 would lose their digits: ours takes the mean off
    first. Keras' layer computes `scale · x + offset`, and nothing would be gained.
    """

    merges = True

    def output(self, call: Call, affine: Affine) -> Affine:
        layer, shape = call.op.origin, call.inputs[0].shape
        return per_channel_map(layer.name, affine, channel_axes(layer.axis, len(shape)), shape)

    input = output

    def write(self, layer: keras.layers.Layer, pending: PendingFold) -> LayerEdit:
        shape = layer.moving_mean.shape
        affine = pending.applied_to(Affine(*(array.reshape(-1) for array in inference_affine(layer))))
        scale, offset = (
            np.broadcast_to(array, np.prod(shape)).reshape(shape)
            for array in (affine.scale, affine.offset)
        )
        weights = {name: array.astype("float64") for name, array in arrays(layer).items()}
        mean = np.zeros(shape)
        if isinstance(layer, BatchNorm):
            root = -offset / np.where(scale == 0, np.inf, scale)
            mean = round_to(root, layer.moving_mean.dtype).astype("float64")
            mean = np.where(np.isfinite(mean), mean, 0)
        weights |= {"gamma": scale * np.sqrt(1 + layer.epsilon), "beta": offset + scale * mean}
        weights |= {"moving_mean": mean, "moving_variance": np.ones(shape)}
        return LayerEdit({"center": True, "scale": True}, weights)


class RescalingTarget(LayerTarget):
    """Rescaling: `scale · x + offset`, numbers or one for each of the last axis."""

    def output(self, call: Call, affine: Affine) -> Affine:
        found = self.input(call, affine)
        own = np.atleast_1d(np.asarray(call.op.origin.offset, "float64"))
        offset = np.abs(found.scale * own + found.offset)
        # What it adds now was exact, or cancelled where the batch norm took its mean off.
        if call.dtype != "float64" and (offset > MOST_OFFSET).any():
            raise CannotFoldError(
                f"{call.op} would add numbers of {offset.max():.2g} to what cancels them, of "
                f"which {call.dtype} keeps the first digits only"
            )
        return found

    def input(self, call: Call, affine: Affine) -> Affine:
        layer, shape = call.op.origin, call.inputs[0].shape
        own = [np.ndim(number) for number in (layer.scale, layer.offset)]
        if any(rank > 1 for rank in own):
            raise CannotFoldError(f"{layer.name!r} scales along several axes")
        if (affine.axes or any(own)) and keras.config.image_data_format() == "channels_first":
            raise CannotFoldError(
                f"{layer.name!r} reads its scale as channels first, as keras.config.image_data_format() "
                "says now, and the folded model may be used where it says otherwise"
            )
        return per_channel_map(layer.name, affine, (len(shape) - 1,), shape)

    def write(self, layer: keras.layers.Layer, pending: PendingFold) -> LayerEdit:
        own = (np.atleast_1d(np.asarray(given, "float64")) for given in (layer.scale, layer.offset))
        affine = pending.applied_to(Affine(*own))
        parts = {"scale": affine.scale, "offset": affine.offset}
        return LayerEdit(
            {name: part.tolist() if part.size > 1 else part.item() for name, part in parts.items()}
        )


class NormalizationTarget(LayerTarget):
    """Normalization of the last axis: `(x - mean) / sqrt(variance)`, which only divides by positives."""

    def output(self, call: Call, affine: Affine) -> Affine:
        self._check(call)
        if (affine.scale <= 0).any():
            raise CannotFoldError(f"{call.op} cannot take up a scale that is not positive")
        shape = call.inputs[0].shape
        return per_channel_map(call.op.origin.name, affine, (len(shape) - 1,), shape)

    input = output

    def write(self, layer: keras.layers.Layer, pending: PendingFold) -> LayerEdit:
        deviation = np.maximum(np.sqrt(_flat(layer.variance)), keras.config.epsilon())
        affine = pending.applied_to(Affine(1 / deviation, -_flat(layer.mean) / deviation))
        # Keras takes no mean and variance of different sizes.
        mean, variance = np.broadcast_arrays(-affine.offset / affine.scale, affine.scale**-2)
        kept = np.asarray(round_to(variance, layer.compute_dtype), "float64")
        if (1 / affine.scale < keras.config.epsilon()).any() or not np.allclose(kept, variance, 0.01, 0):
            raise CannotFoldError(
                f"{layer.name!r} would divide by a number too small or too large for it: it replaces "
                f"those below {keras.config.epsilon()}, and computes in {layer.compute_dtype}"
            )
        return LayerEdit({"mean": mean.tolist(), "variance": variance.tolist()})

    def _check(self, call: Call) -> None:
        layer, last = call.op.origin, len(call.inputs[0].shape) - 1
        if layer.invert or tuple(axis % (last + 1) for axis in layer.axis) != (last,):
            raise CannotFoldError(f"{layer.name!r} does not normalise just the last axis")


def _flat(tensor: object) -> np.ndarray:
    return np.asarray(keras.ops.convert_to_numpy(tensor), "float64").reshape(-1)
