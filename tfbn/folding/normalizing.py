"""Affine layers that take another affine map up: batch norms, Rescaling, Normalization."""

from __future__ import annotations

import keras
import numpy as np

from ..axes import channel_axes
from ..batch_norms import AnyBatchNorm, inference_affine
from ..layer import BatchNorm
from .affine import Affine, CannotFoldError, round_to
from .graph import Call
from .targets import FoldTarget, LayerEdit, PendingFold, arrays, per_channel_map

# The largest offset of normalised values that Rescaling may take up, beside their size of about 1.
MOST_OFFSET = 8.0


def check_batch_norm(call: Call, who: str = "it") -> None:
    """Refuse a batch norm that is no affine map in this call, or hands a mask on."""
    if call.training:
        raise CannotFoldError(
            f"{who} is called with training=True and uses each batch's own statistics; "
            "call it without to fold it"
        )
    if call.masked:
        raise CannotFoldError(
            f"{who} is called with a mask, and hands it on to the layers after it; give "
            "them the mask themselves, and normalise without one"
        )


class BatchNormTarget(FoldTarget):
    """Another batch norm: it becomes one of variance 1 with the mean where its output is 0.

    With mean 0 and all in beta, inputs far from 0 would lose their digits: ours takes the mean off
    first. Keras' layer computes `scale · x + offset`, and nothing would be gained.
    """

    def output(self, call: Call, affine: Affine) -> Affine:
        check_batch_norm(call, repr(call.layer.name))
        shape = call.inputs[0].shape
        return per_channel_map(call.layer, affine, channel_axes(call.layer.axis, len(shape)), shape)

    input = output

    def write(self, layer: keras.layers.Layer, pending: PendingFold) -> LayerEdit:
        shape = layer.moving_mean.shape
        affine = apply_pending(Affine(*(one.reshape(-1) for one in inference_affine(layer))), pending)
        scale, offset = (
            np.broadcast_to(one, np.prod(shape)).reshape(shape) for one in (affine.scale, affine.offset)
        )
        weights = {name: one.astype("float64") for name, one in arrays(layer).items()}
        mean = np.zeros(shape)
        if isinstance(layer, BatchNorm):
            root = -offset / np.where(scale == 0, np.inf, scale)
            mean = round_to(root, layer.moving_mean.dtype).astype("float64")
            mean = np.where(np.isfinite(mean), mean, 0)
        weights |= {"gamma": scale * np.sqrt(1 + layer.epsilon), "beta": offset + scale * mean}
        weights |= {"moving_mean": mean, "moving_variance": np.ones(shape)}
        return LayerEdit({"center": True, "scale": True}, weights)


class RescalingTarget(FoldTarget):
    """Rescaling: `scale · x + offset`, numbers or one for each of the last axis."""

    def output(self, call: Call, affine: Affine) -> Affine:
        found = self.input(call, affine)
        own = np.atleast_1d(np.asarray(call.layer.offset, "float64"))
        offset = np.abs(found.scale * own + found.offset)
        # What it adds now was exact, or cancelled where the batch norm took its mean off.
        if call.dtype != "float64" and (offset > MOST_OFFSET).any():
            raise CannotFoldError(
                f"{call.layer.name!r} would add numbers of {offset.max():.2g} to what cancels them, of "
                f"which {call.dtype} keeps the first digits only"
            )
        return found

    def input(self, call: Call, affine: Affine) -> Affine:
        layer, shape = call.layer, call.inputs[0].shape
        own = [np.ndim(one) for one in (layer.scale, layer.offset)]
        if any(rank > 1 for rank in own):
            raise CannotFoldError(f"{layer.name!r} scales along several axes")
        if (affine.axes or any(own)) and keras.config.image_data_format() == "channels_first":
            raise CannotFoldError(
                f"{layer.name!r} reads its scale as channels first, as keras.config.image_data_format() "
                "says now, and the folded model may be used where it says otherwise"
            )
        return per_channel_map(layer, affine, (len(shape) - 1,), shape)

    def write(self, layer: keras.layers.Layer, pending: PendingFold) -> LayerEdit:
        own = (np.atleast_1d(np.asarray(one, "float64")) for one in (layer.scale, layer.offset))
        affine = apply_pending(Affine(*own), pending)
        parts = {"scale": affine.scale, "offset": affine.offset}
        return LayerEdit(
            {name: one.tolist() if one.size > 1 else one.item() for name, one in parts.items()}
        )


class NormalizationTarget(FoldTarget):
    """Normalization of the last axis: `(x - mean) / sqrt(variance)`, which only divides by positives."""

    def output(self, call: Call, affine: Affine) -> Affine:
        self._check(call)
        if (affine.scale <= 0).any():
            raise CannotFoldError(f"{call.layer.name!r} cannot take up a scale that is not positive")
        shape = call.inputs[0].shape
        return per_channel_map(call.layer, affine, (len(shape) - 1,), shape)

    input = output

    def write(self, layer: keras.layers.Layer, pending: PendingFold) -> LayerEdit:
        deviation = np.maximum(np.sqrt(_flat(layer.variance)), keras.config.epsilon())
        affine = apply_pending(Affine(1 / deviation, -_flat(layer.mean) / deviation), pending)
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
        layer, last = call.layer, len(call.inputs[0].shape) - 1
        if layer.invert or tuple(axis % (last + 1) for axis in layer.axis) != (last,):
            raise CannotFoldError(f"{layer.name!r} does not normalise just the last axis")


def most_cancelled(layer: AnyBatchNorm, pending: PendingFold) -> float:
    """How large `scale · mean` is beside the outputs of a batch norm of ours, in the worst channel.

    A layer that takes it up adds and takes off numbers of that size, and rounds them, where the batch
    norm takes the mean off its inputs first, which rounds nothing of them. 0 of Keras' own layer, which
    does as the other layer will.
    """
    if not isinstance(layer, BatchNorm):
        return 0.0
    own = Affine(*(one.reshape(-1) for one in inference_affine(layer)))
    gamma = np.ones(1) if layer.gamma is None else np.asarray(layer.gamma, "float64").reshape(-1)
    beta = np.zeros(1) if layer.beta is None else np.asarray(layer.beta, "float64").reshape(-1)
    after = pending.output_map or Affine.identity(1)
    at_mean = after.scale * beta + after.offset
    size = np.abs(at_mean) + np.abs(after.scale * gamma)
    cancelled = np.abs(apply_pending(own, pending).offset - at_mean)
    return float(np.max(cancelled / np.where(size > 0, size, 1)))


def _flat(tensor: object) -> np.ndarray:
    return np.asarray(keras.ops.convert_to_numpy(tensor), "float64").reshape(-1)


def apply_pending(affine: Affine, pending: PendingFold) -> Affine:
    """An affine layer's map after a change, flat; where sizes differ, one of them is 1."""
    whole = affine.compose(pending.input_map) if pending.input_map else affine
    return pending.output_map.compose(whole) if pending.output_map else whole
