"""Affine layers that take another affine map up: batch norms, Rescaling, Normalization."""

from __future__ import annotations

import keras
import numpy as np

from ..axes import channel_axes
from ..batch_norms import inference_affine
from .absorbing import Absorber, Change, Written, arrays, spread
from .affine import Affine, StaysError, rounded
from .graph import Call


def check_batch_norm(call: Call, who: str = "it") -> None:
    """Refuse a batch norm that is no affine map in this call, or hands a mask on."""
    if call.training:
        raise StaysError(
            f"{who} is called with training=True and uses each batch's own statistics; "
            "call it without to fold it"
        )
    if call.masked:
        raise StaysError(
            f"{who} is called with a mask, and hands it on to the layers after it; give "
            "them the mask themselves, and normalise without one"
        )


class BatchNormalized(Absorber):
    """Another batch norm: it becomes one with mean 0 and variance 1."""

    def output(self, call: Call, affine: Affine) -> Affine:
        check_batch_norm(call, repr(call.layer.name))
        shape = call.inputs[0].shape
        return spread(call.layer, affine, channel_axes(call.layer.axis, len(shape)), shape)

    input = output

    def write(self, layer: keras.layers.Layer, change: Change) -> Written:
        shape = layer.moving_mean.shape
        affine = changed(Affine(*(one.reshape(-1) for one in inference_affine(layer))), change)
        scale, offset = (
            np.broadcast_to(one, np.prod(shape)).reshape(shape) for one in (affine.scale, affine.offset)
        )
        weights = {name: one.astype("float64") for name, one in arrays(layer).items()}
        weights |= {"gamma": scale * np.sqrt(1 + layer.epsilon), "beta": offset}
        weights |= {"moving_mean": np.zeros(shape), "moving_variance": np.ones(shape)}
        return Written({"center": True, "scale": True}, weights)


class Rescaled(Absorber):
    """Rescaling: `scale · x + offset`, numbers or one for each of the last axis."""

    def output(self, call: Call, affine: Affine) -> Affine:
        layer, shape = call.layer, call.inputs[0].shape
        own = [np.ndim(one) for one in (layer.scale, layer.offset)]
        if any(rank > 1 for rank in own):
            raise StaysError(f"{layer.name!r} scales along several axes")
        if (affine.axes or any(own)) and keras.config.image_data_format() == "channels_first":
            raise StaysError(
                f"{layer.name!r} reads its scale as channels first, as keras.config.image_data_format() "
                "says now, and the folded model may be used where it says otherwise"
            )
        return spread(layer, affine, (len(shape) - 1,), shape)

    input = output

    def write(self, layer: keras.layers.Layer, change: Change) -> Written:
        own = (np.atleast_1d(np.asarray(one, "float64")) for one in (layer.scale, layer.offset))
        affine = changed(Affine(*own), change)
        parts = {"scale": affine.scale, "offset": affine.offset}
        return Written(
            {name: one.tolist() if one.size > 1 else one.item() for name, one in parts.items()}
        )


class Standardized(Absorber):
    """Normalization of the last axis: `(x - mean) / sqrt(variance)`, which only divides by positives."""

    def output(self, call: Call, affine: Affine) -> Affine:
        self._check(call)
        if (affine.scale <= 0).any():
            raise StaysError(f"{call.layer.name!r} cannot take up a scale that is not positive")
        shape = call.inputs[0].shape
        return spread(call.layer, affine, (len(shape) - 1,), shape)

    input = output

    def write(self, layer: keras.layers.Layer, change: Change) -> Written:
        deviation = np.maximum(np.sqrt(_flat(layer.variance)), keras.config.epsilon())
        affine = changed(Affine(1 / deviation, -_flat(layer.mean) / deviation), change)
        # Keras takes no mean and variance of different sizes.
        mean, variance = np.broadcast_arrays(-affine.offset / affine.scale, affine.scale**-2)
        kept = np.asarray(rounded(variance, layer.compute_dtype), "float64")
        if (1 / affine.scale < keras.config.epsilon()).any() or not np.allclose(kept, variance, 0.01, 0):
            raise StaysError(
                f"{layer.name!r} would divide by a number too small or too large for it: it replaces "
                f"those below {keras.config.epsilon()}, and computes in {layer.compute_dtype}"
            )
        return Written({"mean": mean.tolist(), "variance": variance.tolist()})

    def _check(self, call: Call) -> None:
        layer, last = call.layer, len(call.inputs[0].shape) - 1
        if layer.invert or tuple(axis % (last + 1) for axis in layer.axis) != (last,):
            raise StaysError(f"{layer.name!r} does not normalise just the last axis")


def _flat(tensor: object) -> np.ndarray:
    return np.asarray(keras.ops.convert_to_numpy(tensor), "float64").reshape(-1)


def changed(affine: Affine, change: Change) -> Affine:
    """An affine layer's map after a change, flat; where sizes differ, one of them is 1."""
    whole = affine.after(change.before) if change.before else affine
    return change.after.after(whole) if change.after else whole
