"""Layers that the caller supplies: classes, and the functions of Lambda layers."""

from __future__ import annotations

import inspect

import keras

from ..errors import UnsupportedLayerError
from ..layers.layer_spec import BuildContext, BuiltLayers, clean


def custom_layer(context: BuildContext) -> BuiltLayers | None:
    """The layer from `custom_objects`, or `None` if it is not there.

    Raises:
        UnsupportedLayerError: a Lambda without its function: what a file holds of it is bytecode,
            which is not run.
    """
    layer = context.layer
    name = None if layer.name is None else clean(layer.name)
    if layer.class_name == "Lambda":
        function = layer.config.get("function")
        keys = [key for key in (layer.name, function) if isinstance(key, str)]
        found = next((context.custom[key] for key in keys if key in context.custom), None)
        if not callable(found):
            raise UnsupportedLayerError(
                "is a Lambda, whose function a file holds as bytecode, which is never run. Pass the "
                f"function: custom_objects={{{layer.name!r}: function}}",
                layer.path,
            )
        arguments = layer.config.get("arguments") or {}
        return BuiltLayers([keras.layers.Lambda(found, arguments=arguments, name=name)])
    short = layer.class_name.rpartition(">")[2]
    found = context.custom.get(layer.class_name, context.custom.get(short))
    if found is None:
        return None
    if not inspect.isclass(found) or not issubclass(found, keras.layers.Layer):
        raise UnsupportedLayerError(
            f"custom_objects has {found!r} for it, which is no layer", layer.path
        )
    shapes = ("batch_input_shape", "input_shape", "input_dtype")
    config = {key: value for key, value in layer.config.items() if key not in shapes}
    if name is not None:
        config["name"] = name
    kind: type[keras.layers.Layer] = found
    return BuiltLayers([kind.from_config(config)], weights=context.arrays)
