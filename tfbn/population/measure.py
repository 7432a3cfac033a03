"""The measurement: which batch norms are measured, what of, and why the others are left."""

from __future__ import annotations

import warnings
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from ..batch_norms import AnyBatchNorm, batch_norms, excluded_batch_norms
from ..data_format import check_kernels
from ..messages import join_some, no_model
from . import data as reading
from .accumulator import MomentAccumulator
from .data_pass import pass_over
from .report import Measurement, PopulationStatistics

FROZEN = "frozen (trainable = False)"
AT_INFERENCE = "the model's own code runs it with training=False, in training too"
NOT_CALLED = "training does not call it"
NOT_REACHED = "no value of the data reached it"


def measure(model: keras.Model, data: Any, steps: int | None, verbose: int | str) -> Measurement:
    """Measure a model's batch norms in one pass; see `population_statistics`, also for what it raises.

    Whatever happens, the variables of the model are as they were.
    """
    layers, not_measurable = _measurable(model)
    check_kernels(model)
    reading.check(data, steps)
    accumulators = {path: MomentAccumulator(layer) for path, layer in layers.items()}
    pass_over(model, accumulators, data, steps, verbose)
    reasons = not_measurable | {
        path: why
        for path, accumulator in accumulators.items()
        if (why := unmeasured_because(accumulator)) is not None
    }
    order = [*batch_norms(model), *not_measurable]
    measured = [path for path in accumulators if path not in reasons]
    measurement = Measurement(
        {path: PopulationStatistics(*accumulators[path].read()) for path in measured},
        left={path: reasons[path] for path in order if path in reasons},
        before={path: _moving_statistics(layers[path]) for path in measured},
    )
    _check_complete(model, measurement, accumulators)
    return measurement


def _check_complete(
    model: keras.Model, measurement: Measurement, accumulators: dict[str, MomentAccumulator]
) -> None:
    """Refuse a measurement of nothing, and warn of batch norms that the data left out."""
    left = measurement.left
    if not measurement:
        lines = [f"{path}: {reason}" for path, reason in left.items()]
        raise ValueError(
            f"None of the batch norms of {model.name!r} could be measured. {join_some(lines, '; ')}. "
            "Pass more data, or call the model as training does."
        )
    lacking = [path for path in accumulators if left.get(path) not in (None, AT_INFERENCE, NOT_CALLED)]
    if lacking:
        lines = [f"{path} ({left[path]})" for path in lacking]
        warnings.warn(f"These batch norms were not measured: {join_some(lines)}.", stacklevel=4)


def _measurable(model: keras.Model) -> tuple[dict[str, AnyBatchNorm], dict[str, str]]:
    """The batch norms that may be measured, and why the others are left, by path."""
    if not isinstance(model, keras.Model):
        raise TypeError(f"model must be a keras.Model, {no_model(model)}")
    found = batch_norms(model)
    unlike = {path: why for path, (_, why) in excluded_batch_norms(model).items()}
    trainable = {path: layer for path, layer in found.items() if layer.trainable}
    if not trainable:
        if found:
            what = (
                f"its {len(found)} are all frozen. Unfreeze those to be measured (layer.trainable = "
                "True)."
            )
        elif unlike:
            reasons = [f"{path} ({why})" for path, why in unlike.items()]
            what = f"of {join_some(reasons)} none needs statistics, as far as is known."
        else:
            what = "it has none. Were they folded away? Measure before folding."
        raise ValueError(f"The model {model.name!r} has no batch norm to measure: {what}")
    return trainable, dict.fromkeys(found.keys() - trainable.keys(), FROZEN) | unlike


def unmeasured_because(accumulator: MomentAccumulator) -> str | None:
    """Why the statistics of a batch norm are not known after the pass; `None` if they are."""
    if accumulator.in_training == []:
        return NOT_CALLED
    if not accumulator.used_in_training:
        return AT_INFERENCE
    if accumulator.count == 0:
        return NOT_REACHED
    if accumulator.count == 1:
        return "it saw 1 value in a channel, and a variance needs two"
    return None


def _moving_statistics(layer: AnyBatchNorm) -> tuple[np.ndarray, np.ndarray]:
    mean, variance = tf.cast(layer.moving_mean, tf.float64), tf.cast(layer.moving_variance, tf.float64)
    return mean.numpy(), variance.numpy()
