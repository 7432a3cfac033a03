"""Predictions of an old model, to hold a new one against."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from .. import compare
from ..declared_graph import declared_inputs
from ..export import samples
from ..files import npz

HOW = "In the old Keras: numpy.savez('ref.npz', x=x, y=model.predict(x))"


@dataclass(frozen=True)
class Reference:
    """What an `.npz` file says that a model predicted.

    Attributes:
        x: inputs, structured as the model's.
        y: the predictions, for each output in the model's order.
    """

    x: Any
    y: list[np.ndarray]

    @classmethod
    def read(cls, path: str | os.PathLike[str], model: keras.Model) -> Reference:
        """Read inputs `x` and predictions `y`, or `x_0`, `x_1`, … and `y_0`, … where there are several.

        Raises:
            ValueError: no such file; arrays that are missing, no numbers, or of other shapes than the
                model's.
        """
        inputs = declared_inputs(model)
        tensors = {"x": tf.nest.flatten(inputs), "y": model.outputs}
        arrays = npz.read(path, HOW)
        names = {letter: _names(letter, len(each), arrays) for letter, each in tensors.items()}
        if any(name not in arrays for each in names.values() for name in each):
            asked = ", ".join((*names["x"], *names["y"]))
            order = ", ".join(tensor.name for tensor in tensors["x"])
            raise ValueError(
                f"{path} must hold {asked} (inputs {order}, then the outputs, in the model's order), "
                f"and it holds {', '.join(arrays) or 'nothing'}. {HOW}"
            )
        count = next(iter(arrays[names["x"][0]].shape), 0)
        for letter, each in tensors.items():
            for name, tensor in zip(names[letter], each, strict=True):
                _check(path, name, arrays[name], tensor, count)
        x = tf.nest.pack_sequence_as(inputs, [arrays[name] for name in names["x"]])
        return cls(samples.arrange(inputs, x), [arrays[name] for name in names["y"]])

    def difference(self, model: keras.Model, batch_size: int | None = None) -> float:
        """How far a model's predictions are from `y`, as `largest_relative_difference` says."""
        return largest_relative_difference(predictions(model, self.x, batch_size), self.y)


def predictions(model: keras.Model, x: Any, batch_size: int | None = None) -> list[np.ndarray]:
    """Each output of the model at inference, for all samples at once or in batches."""
    count = len(tf.nest.flatten(x)[0])
    size = batch_size or count
    parts = [
        tf.nest.flatten(model(_rows(x, start, start + size), training=False))
        for start in range(0, count, size)
    ]
    return [np.concatenate(batches) for batches in zip(*parts, strict=True)]


def largest_relative_difference(found: list[np.ndarray], expected: list[np.ndarray]) -> float:
    """The largest over the outputs, relative to each one's largest finite value; NaN equals NaN."""
    pairs = zip(found, expected, strict=True)
    return max((compare.difference(output, wanted).relative for output, wanted in pairs), default=0.0)


def _rows(x: Any, start: int, stop: int) -> Any:
    return tf.nest.map_structure(lambda array: array[start:stop], x)


def _names(letter: str, count: int, arrays: dict[str, np.ndarray]) -> list[str]:
    numbered = [f"{letter}_{number}" for number in range(count)]
    return numbered if count > 1 or numbered[0] in arrays else [letter]


def _check(path: Any, name: str, array: np.ndarray, tensor: keras.KerasTensor, count: int) -> None:
    shape = (count, *tensor.shape[1:])
    fits = len(shape) == array.ndim and all(
        known in (None, size) for known, size in zip(shape, array.shape, strict=True)
    )
    if not fits or not count:
        raise ValueError(
            f"{path}: {name} has the shape {array.shape}, and should have {shape}. Is it the reference "
            "of this model, with a row for each sample?"
        )
    if array.dtype.kind not in "fiub" or not np.isfinite(array).all():
        raise ValueError(f"{path}: {name} holds {array.dtype} values that are not all finite numbers.")
