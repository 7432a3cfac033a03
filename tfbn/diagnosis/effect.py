"""What recalibration would do to a model's outputs and metrics, tried and taken back."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from ..population import Measurement
from ..population import data as reading
from ..population.recalibrate import assign
from ..population.untouched import untouched

# Enough batches to tell accuracies apart by a few hundredths, few enough to cost little beside the pass.
BATCHES = 32


@dataclass(frozen=True)
class Effect:
    """What recalibration changes, on the first batches of the data.

    Attributes:
        outputs: the root of the mean square of the change, relative to that of the outputs, on the
            first batch.
        before, after: the loss and the compiled metrics; empty where the model is not compiled, or the
            data has no targets.
    """

    outputs: float
    before: dict[str, float]
    after: dict[str, float]


def effect(model: keras.Model, data: Any, steps: int | None, measurement: Measurement) -> Effect | None:
    """Try it; `None` where the data cannot be read twice. The model is as it was afterwards."""
    if isinstance(data, Iterator) or not measurement:
        return None
    first = _first(model, data)
    if first is None:
        return None
    with untouched(model):
        before, scores_before = _outputs(model, first), _scores(model, data, steps)
        assign(model, measurement)
        after, scores_after = _outputs(model, first), _scores(model, data, steps)
    change = np.concatenate([(b - a).ravel() for b, a in zip(before, after, strict=True)])
    size = np.concatenate([b.ravel() for b in before])
    with np.errstate(all="ignore"):
        relative = float(np.sqrt(np.mean(np.square(change)) / np.mean(np.square(size))))
    return Effect(relative, scores_before, scores_after)


def _first(model: keras.Model, data: Any) -> Any:
    """The inputs of the first batch; `None` where they are not easily had."""
    inputs, size = reading.readable(model, data)
    if size is not None:
        return tf.nest.map_structure(lambda array: array[:size], inputs)
    if isinstance(data, tf.data.Dataset):
        return reading.preprocessed(model, next(iter(data)))
    return reading.preprocessed(model, data[0]) if isinstance(data, keras.utils.PyDataset) else None


def _outputs(model: keras.Model, x: Any) -> list[np.ndarray]:
    return [np.asarray(keras.ops.cast(y, "float64")) for y in tf.nest.flatten(model(x, training=False))]


def _scores(model: keras.Model, data: Any, steps: int | None) -> dict[str, float]:
    """The loss and metrics on the first batches; empty where there are none to be had."""
    if not getattr(model, "compiled", False) or not _has_targets(data):
        return {}
    batches = BATCHES if steps is None else min(steps, BATCHES)
    if isinstance(data, tuple):
        size = reading.declared_batch_size(model) or reading.BATCH_SIZE
        parts = tf.nest.map_structure(lambda array: array[: batches * size], data)
        x, y, weight = keras.utils.unpack_x_y_sample_weight(parts)
        given = {"x": x, "y": y, "sample_weight": weight, "batch_size": size}
        return _numbers(model.evaluate(**given, verbose=0, return_dict=True))
    if isinstance(data, tf.data.Dataset):
        return _numbers(model.evaluate(data.take(batches), verbose=0, return_dict=True))
    steps = min(batches, data.num_batches or batches)
    return _numbers(model.evaluate(data, steps=steps, verbose=0, return_dict=True))


def _has_targets(data: Any) -> bool:
    if isinstance(data, tf.data.Dataset):
        return isinstance(data.element_spec, tuple) and len(data.element_spec) >= 2
    if isinstance(data, keras.utils.PyDataset):
        return isinstance(data[0], tuple) and len(data[0]) >= 2
    return isinstance(data, tuple) and len(data) >= 2


def _numbers(scores: dict[str, Any]) -> dict[str, float]:
    return {name: float(value) for name, value in scores.items() if np.ndim(value) == 0}
