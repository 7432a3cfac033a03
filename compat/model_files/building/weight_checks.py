"""Whether the weights of a file, and the tensors of a call, fit a layer."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np

from ..errors import LegacyModelError
from ..layers.layer_spec import BuiltLayers
from . import weight_shapes

_MOST_STATES = 1 << 16


def check_weights(
    layer: Any, shape: tuple[int | None, ...], weights: list[np.ndarray], part: str
) -> None:
    """Refuse weights that do not fit, before the layer makes any."""
    wanted = weight_shapes.expected(layer, shape, part)
    found = [array.shape for array in weights]
    if wanted is not None and wanted != found:
        raise LegacyModelError(
            f"called on inputs of shape {shape} it has weights of the shapes {wanted}, and the file "
            f"holds {found}",
            part,
        )


def check_inputs(model: keras.Model, given: Any, part: str) -> None:
    """Refuse tensors of other shapes than a nested model declares; Keras 3 notices only when it runs."""
    declared = [tuple(tensor.shape) for tensor in model.inputs]
    shapes = [tuple(tensor.shape) for tensor in (given if isinstance(given, list) else [given])]
    fits = len(declared) == len(shapes) and all(
        len(shape) == len(given_shape)
        and all(None in pair or pair[0] == pair[1] for pair in zip(shape, given_shape, strict=True))
        for shape, given_shape in zip(declared, shapes, strict=True)
    )
    if not fits:
        raise LegacyModelError(f"takes tensors of shapes {declared}, and is called on {shapes}", part)


def check_states(given: Any, part: str) -> None:
    """Refuse batches of a size that a stateful layer cannot have a state for each sample of."""
    batch = (given[0] if isinstance(given, list) else given).shape[0]
    if batch is not None and batch > _MOST_STATES:
        raise LegacyModelError(f"is stateful for batches of {batch}, more than {_MOST_STATES}", part)


def assign(layer: Any, built: BuiltLayers, part: str) -> None:
    weights = built.weights or []
    held = [tuple(weight.shape) for weight in layer.weights]
    if held != [array.shape for array in weights]:
        raise LegacyModelError(
            f"{type(layer).__name__} has weights of the shapes {held}, and the file holds "
            f"{[array.shape for array in weights]}",
            part,
        )
    layer.set_weights(weights)
    built.weights = None
