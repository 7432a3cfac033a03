"""What the passes over the data measured, and its assignment."""

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
from .measure import measure
from .report import Measurement, PopulationStatistics

FROZEN = "frozen (trainable = False)"
AT_INFERENCE = "the model's own code runs it with training=False, in training too"
NOT_CALLED = "training does not call it"
NOT_REACHED = "no value of the data reached it"


def population_statistics(
    model: keras.Model, data: Any, steps: int | None = None, verbose: int | str = "auto"
) -> Measurement:
    """Measure the population statistics of a model's batch norms in one pass over `data`.

    The batch norms (ours and Keras' own) normalise with the statistics of each batch, as in
    training; every other layer runs as at inference, without dropout. Measured are those that use the
    batch's statistics when the model is called with `training=True`. Frozen ones (`trainable = False`)
    and those that the model's own code calls with `training=False` run as at inference. (In a Functional
    model `base(x, training=False)` is no such code: `fit` overrides it, and the statistics move. Freeze
    it, `base.trainable = False`.)

    All batches together count as one sample of m values: they are combined by (count, mean, squared
    deviations) in float64, so batches of unequal size weigh by their size, and the variance
    is corrected once by m/(m−1). With one batch that is line 10 to the letter; with several it
    adds what line 10 leaves out, the variance of the batches' means, and so for the first batch norm
    equals the variance of the whole data.

    Under `tf.distribute` the parts of a batch are put together again and go through the model on one
    device, in every worker: the result is that of one process. Memory: three floats a channel, and a
    copy of the model's variables.

    Args:
        model: a built or buildable Keras model that contains batch norms.
        data: what `keras.Model.fit` takes and more: a `tf.data.Dataset`, also a distributed one, a
            `PyDataset`, a generator or other iterable of batches `x`, `(x, y)` or `(x, y,
            sample_weight)` (in a list, each a tuple), or arrays: one, a list or dictionary of them for
            a model of several inputs, or a tuple `(x, y[, sample_weight])`. Arrays are cut in batches
            of 32, or of the size that the model's inputs declare; for another size pass batches.
            Targets and sample weights are ignored. A KerasHub task preprocesses what it is given.
        steps: number of batches to use; all of them if `None`.
        verbose: 0 for silence, 1 or "auto" for a progress bar, 2 for a line, as in Keras.

    Returns:
        A dictionary of `PopulationStatistics` by layer path (`"block/bn"` for the layer `bn` in
        `block`), which says in `left` why the other batch norms were not measured.

    Warns:
        UserWarning: fewer than two values reached a batch norm, and it was left out.

    Raises:
        TypeError: `model` is not a Keras model.
        ValueError: nothing to measure; no data, less than `steps`, or endless data without `steps`;
            batches of another size than the model declares; fewer than two values a channel in every
            batch norm; statistics that are not finite.
        RuntimeError: a channels-first model that TensorFlow cannot run on this machine.
        Exception: whatever the data or the model raises.

        The variables of the model are as they were, whether this succeeds or fails.
    """
    layers, others = _measurable(model)
    check_kernels(model)
    reading.check(data, steps)
    accumulators = {path: MomentAccumulator(layer) for path, layer in layers.items()}
    measure(model, accumulators, data, steps, verbose)
    reasons = {path: _why_not(one) for path, one in accumulators.items()}
    measured = {path: one for path, one in accumulators.items() if reasons[path] is None}
    reasons |= others
    order = [*batch_norms(model), *others]
    left = {path: why for path in order if (why := reasons[path]) is not None}
    if not measured:
        lines = [f"{path}: {reason}" for path, reason in left.items()]
        raise ValueError(
            f"None of the batch norms of {model.name!r} could be measured. {join_some(lines, '; ')}. "
            "Pass more data, or call the model as training does."
        )
    lacking = [path for path in accumulators if left.get(path) not in (None, AT_INFERENCE, NOT_CALLED)]
    if lacking:
        lines = [f"{path} ({left[path]})" for path in lacking]
        warnings.warn(f"These batch norms were not measured: {join_some(lines)}.", stacklevel=2)
    return Measurement(
        {path: PopulationStatistics(*one.read()) for path, one in measured.items()},
        left,
        {path: _moving_statistics(layers[path]) for path in measured},
    )


def recalibrate(
    model: keras.Model, data: Any, steps: int | None = None, verbose: int | str = "auto"
) -> Measurement:
    """Replace the moving statistics of a model's batch norms by population statistics.

    Measures as `population_statistics` does (see there for the arguments, the convention, which batch
    norms are left out, and the errors) and then assigns each mean and variance. When anything fails,
    the model is exactly as it was.

    Returns:
        What was assigned, as `population_statistics` returns it: `print` shows each batch norm before
        and after, or why it was left.
    """
    measured = population_statistics(model, data, steps, verbose)
    layers = batch_norms(model)
    assignments = []
    for path, statistics in measured.items():
        layer = layers[path]
        values = [
            (layer.moving_mean, statistics.mean),
            (layer.moving_variance, statistics.variance),
        ]
        if (stddev := getattr(layer, "moving_stddev", None)) is not None:
            # Batch renormalisation derives the moving variance from it at the next training step.
            values.append((stddev, np.sqrt(statistics.variance + layer.epsilon)))
        for variable, value in values:
            cast = tf.cast(value, variable.dtype)
            if not np.isfinite(cast.numpy().astype("float64")).all():
                raise ValueError(
                    f"The population statistics of {path!r} do not fit its {variable.dtype} weights: "
                    f"{value}. Scale the data, or build the layer with dtype='float32'. The "
                    "model was not changed."
                )
            assignments.append((variable, cast))
    for variable, value in assignments:
        variable.assign(value)
    return measured


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


def _why_not(accumulator: MomentAccumulator) -> str | None:
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
    mean, variance = (tf.cast(one, tf.float64) for one in (layer.moving_mean, layer.moving_variance))
    return mean.numpy(), variance.numpy()
