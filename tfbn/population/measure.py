"""The measurement: which batch norms are measured, what of, and why the others are left."""

from __future__ import annotations

import hashlib
import os
import warnings
from collections.abc import Mapping
from functools import partial
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from ..batch_norms import AnyBatchNorm, batch_norms, excluded_batch_norms
from ..data_format import check_kernels
from ..messages import join_some, no_model
from ..moments import unbiased_variance
from . import data as reading
from .accumulator import MomentAccumulator
from .checkpoint import Checkpoint
from .data_pass import Seen, pass_over
from .report import Measurement, PopulationStatistics
from .shards import Statistics

FROZEN = "frozen (trainable = False)"
NOT_REACHED = "no value of the data reached it"
MOVING = ("moving_mean", "moving_variance", "moving_stddev")


def measure(
    model: keras.Model,
    data: Any,
    steps: int | None = None,
    verbose: int | str = "auto",
    checkpoint: str | os.PathLike[str] | None = None,
) -> Statistics:
    """Measure a part of the data, to be added to the other parts by `Statistics.merge`.

    Measures as `population_statistics` does; see there for the arguments, and for what is raised. Few
    values, or none in a batch norm, are no error here: other parts may have more. Cut the data between
    batches: it is the batches that the batch norms normalise by.

    Returns:
        The `Statistics` of all of `data`.

    >>> import tfbn
    >>> x, model = np.arange(64.0)[:, None], keras.Sequential([keras.Input((1,)), tfbn.BatchNorm()])
    >>> parts = [tfbn.measure(model, part, verbose=0) for part in (x[:32], x[32:])]
    >>> parts[0].merge(parts[1]).samples
    64
    """
    layers, _ = _measurable(model)
    check_kernels(model)
    reading.check(data, steps)
    accumulators = {path: MomentAccumulator(layer) for path, layer in layers.items()}
    file = Checkpoint(checkpoint, steps, partial(_summed_up, model, accumulators))
    seen = pass_over(model, accumulators, data, steps, verbose, file.already, file.after_batch)
    return file.finish(seen)


def measurement(
    model: keras.Model,
    data: Any,
    steps: int | None,
    verbose: int | str,
    checkpoint: str | os.PathLike[str] | None,
) -> Measurement:
    """What `population_statistics` hands out; see there, also for what it raises.

    Whatever happens, the variables of the model are as they were.
    """
    if isinstance(data, Statistics):
        if not (steps is None and checkpoint is None):
            raise ValueError("Statistics are measured already: leave steps and checkpoint out.")
        _check_of(model, data)
        statistics = data
    else:
        statistics = measure(model, data, steps, verbose, checkpoint)
    layers, not_measurable = _measurable(model)
    reasons = not_measurable | {
        path: why
        for path in layers
        if (why := unmeasured_because(statistics.unused.get(path), statistics.count(path))) is not None
    }
    order = [*batch_norms(model), *not_measurable]
    result = Measurement(
        {path: _population(statistics, path) for path in layers if path not in reasons},
        left={path: reasons[path] for path in order if path in reasons},
        before={path: _moving_statistics(layers[path]) for path in layers if path not in reasons},
    )
    _check_complete(model, result, statistics)
    return result


def digest(model: keras.Model, layers: Mapping[str, AnyBatchNorm]) -> str:
    """Of all weights that decide what reaches the batch norms; their own moving statistics do not."""
    moving = {id(getattr(layer, name, None)) for layer in layers.values() for name in MOVING}
    sha = hashlib.sha256(repr([*layers]).encode())
    for weight in model.weights:
        if id(weight) not in moving:
            sha.update(np.ascontiguousarray(weight.numpy()).tobytes())
    return sha.hexdigest()


def _summed_up(
    model: keras.Model, accumulators: Mapping[str, MomentAccumulator], seen: Seen
) -> Statistics:
    moments = {path: each.moments for path, each in accumulators.items()}
    return Statistics(
        {path: part for path, part in moments.items() if part is not None},
        {path: why for path, each in accumulators.items() if (why := each.unused_because) is not None},
        *seen,
        weights=digest(model, {path: each.layer for path, each in accumulators.items()}),
    )


def _check_of(model: keras.Model, statistics: Statistics) -> None:
    layers, _ = _measurable(model)
    if not statistics.weights:
        raise ValueError("These statistics are of no data. Measure some: tfbn.measure(model, data).")
    if statistics.weights != digest(model, layers):
        raise ValueError(
            f"These statistics were measured with other weights than {model.name!r} has, or with other "
            "names of layers. Load the model that they are of, or measure this one: tfbn.measure(model, "
            "data)."
        )


def _population(statistics: Statistics, path: str) -> PopulationStatistics:
    moments = statistics.moments[path]
    variance = unbiased_variance(moments).numpy()
    return PopulationStatistics(moments.mean, variance, statistics.count(path))


def _check_complete(model: keras.Model, measurement: Measurement, statistics: Statistics) -> None:
    """Refuse a measurement of nothing, and warn of batch norms that the data left out."""
    left = measurement.left
    if not measurement:
        lines = [f"{path}: {reason}" for path, reason in left.items()]
        raise ValueError(
            f"None of the batch norms of {model.name!r} could be measured. {join_some(lines, '; ')}. "
            "Pass more data, or call the model as training does."
        )
    lacking = [path for path in left if path in statistics.moments and path not in statistics.unused]
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
            what = (
                "it has none. Were they folded away? Measure before folding. What code computes by "
                "itself, with tf.nn.moments, is not known as a batch norm."
            )
        raise ValueError(f"The model {model.name!r} has no batch norm to measure: {what}")
    return trainable, dict.fromkeys(found.keys() - trainable.keys(), FROZEN) | unlike


def unmeasured_because(unused: str | None, count: int) -> str | None:
    """Why the statistics of a batch norm are not known after the pass; `None` if they are."""
    if unused is not None:
        return unused
    if count == 0:
        return NOT_REACHED
    if count == 1:
        return "it saw 1 value in a channel, and a variance needs two"
    return None


def _moving_statistics(layer: AnyBatchNorm) -> tuple[np.ndarray, np.ndarray]:
    mean, variance = tf.cast(layer.moving_mean, tf.float64), tf.cast(layer.moving_variance, tf.float64)
    return mean.numpy(), variance.numpy()
