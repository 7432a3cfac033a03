"""Layers around layers."""

from __future__ import annotations

from typing import Any

import keras

from ..reading.architecture import makes_masks, objects
from .layer_spec import BuildContext, BuiltLayers, LayerSpec, part_name
from .legacy_wrappers import StepwiseLayer

_MOST_STEPS = 4096  # Keras 3 calls the layer once for each known step


def time_distributed(spec: LayerSpec, context: BuildContext, arguments: dict[str, Any]) -> BuiltLayers:
    """A layer at each step. A batch norm goes over all steps at once, as it did in Keras 1 and 2."""
    inner, shape = arguments.pop("layer"), context.shape
    if len(shape) < 3:
        raise context.unsupported(f"needs inputs of three axes, and has some of shape {shape}")
    if isinstance(inner, dict) and inner.get("class_name") in BATCH_NORMS:
        return _batch_norm(inner, context)
    steps = shape[1] or 1
    if steps > _MOST_STEPS:
        raise context.unsupported(f"has {steps} steps, which Keras 3 would write out one by one")
    built = context.inside(inner, context.arrays, [(shape[0], *shape[2:])], steps)
    model = isinstance(built.holder, keras.Model)
    vectors = model and all(len(output.shape) == 2 for output in built.holder.outputs)
    if context.writer.generation == 2 and makes_masks(inner) and not vectors:
        raise context.unsupported(
            "makes a mask at each step, which Keras 3 forgets. If no layer after it uses masks, set "
            "mask_zero to false in the JSON"
        )
    name, rest = arguments.pop("name"), arguments
    # Keras 2 saw all steps as one batch, which matters to batch norms in training.
    at_once = shape[1] is None or any(found.get("class_name") in BATCH_NORMS for found in objects(inner))
    kind = StepwiseLayer if at_once else spec.layer
    layers = [
        kind(layer, **(rest | {"name": name if layer is built.holder else part_name(name, str(number))}))
        for number, layer in enumerate(built.layers)
    ]
    return BuiltLayers(layers, layers[built.layers.index(built.holder)], built.weights, built.fixed)


BATCH_NORMS = tuple(f"BatchNormalization{version}" for version in ("", "V1", "V2"))


def _batch_norm(inner: dict[str, Any], context: BuildContext) -> BuiltLayers:
    config = dict(inner.get("config") or {}) if isinstance(inner.get("config"), dict) else {}
    axis = config.get("axis", -1)
    if isinstance(axis, list):
        config["axis"] = [index + 1 if type(index) is int and index > 0 else index for index in axis]
    elif type(axis) is int and axis > 0:
        config["axis"] = axis + 1
    config["name"] = context.layer.name
    return context.inside(
        dict(inner) | {"config": config, "name": context.layer.name}, context.arrays, context.shapes
    )
