"""One pass over data that tells what is wrong with a model's batch norms."""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf

from ..batch_norms import batch_norms, excluded_batch_norms
from ..data_format import check_kernels
from ..messages import no_model
from ..population import Measurement
from ..population import data as reading
from ..population.data_pass import pass_over
from ..population.drift import MeanAndVariance
from ..population.measure import unmeasured_because
from .diagnosis import Diagnosis, LayerDiagnosis, worst_first
from .effect import effect
from .evidence import Evidence
from .layers import numbers_of
from .scatter import ScatterAccumulator
from .verdicts import judge


def diagnose(
    model: keras.Model, data: Any, steps: int | None = None, verbose: int | str = "auto"
) -> Diagnosis:
    """Tell what is wrong with a model's batch norms, and what to do, from one pass over data.

    Measures as `tfbn.population_statistics` does, frozen batch norms too, and compares the moving
    statistics with what it finds. The drift of a layer is how far its normalised values are from
    what the data's own statistics would make them: the root of the mean square, 1 being their own
    deviation. Up to 1/3 is fine, and more where samples are few. Otherwise the verdict says why:

    - `"lagging"`: the moving statistics are those of the data and a share of their initial values, which
      a decay so near 1 has not forgotten in so many steps of the optimizer.
    - `"never updated"`: they are exactly at their initial values.
    - `"other data"`: none of the others explains the drift.
    - `"small batches"`: a channel has fewer than six independent values in a batch, by how much the
      batches' means scatter; or the moving variance is that within such small batches. Pass data in the
      batches of training, where these were small.
    - `"frozen"`: it does not train, and its statistics are not the data's.
    - `"diverged"`: NaN, infinity, negative variances or huge numbers.

    The limits and their reasons are in `tfbn/diagnosis/verdicts.py`. Where the data can be read again,
    the first 32 batches also tell what recalibration would do to the outputs, and to loss and metrics if
    the model is compiled and the data has targets.

    Args:
        model: a Keras model that contains batch norms.
        data: the training data, shuffled, as in `tfbn.population_statistics`; arrays with targets as
            `(x, y)`.
        steps: number of batches to use; all of them if `None`.
        verbose: 0 for silence, 1 or "auto" for a progress bar, 2 for a line, as in Keras.

    Returns:
        A `Diagnosis`: `print` shows a table, worst first, `layers[path].verdict` and `.remedy` one batch
        norm's, `summary` is a sentence for the model, `rows()` suits pandas.

    Raises:
        TypeError: `model` is not a Keras model.
        ValueError: no batch norm; data as in `tfbn.population_statistics`.

        The variables of the model are as they were, whether this succeeds or fails.

    >>> import numpy as np, tfbn
    >>> model = keras.Sequential([keras.Input((2,)), tfbn.BatchNorm(name="bn")])
    >>> report = tfbn.diagnose(model, np.arange(512.0).reshape(256, 2), verbose=0)
    >>> report.layers["bn"].verdict
    'never updated'
    """
    seen, left = examine(model, data, steps, verbose)
    found = {path: LayerDiagnosis.of(each, judge(each)) for path, each in seen.items()}
    changes = None
    if not any(layer.verdict == "diverged" for layer in found.values()):
        changes = effect(model, data, steps, _recalibration(found))
    return Diagnosis(model.name, worst_first(found), left, changes)


def examine(
    model: keras.Model, data: Any, steps: int | None, verbose: int | str
) -> tuple[dict[str, Evidence], dict[str, str]]:
    """What `diagnose` judges, by path, and why other batch norms are not measured; see there."""
    if not isinstance(model, keras.Model):
        raise TypeError(f"model must be a keras.Model, {no_model(model)}")
    layers = batch_norms(model)
    unlike = {path: why for path, (_, why) in excluded_batch_norms(model).items()}
    if not layers:
        what = "; ".join(f"{path}: {why}" for path, why in unlike.items()) or "it has none"
        raise ValueError(f"The model {model.name!r} has no batch norm to diagnose: {what}.")
    check_kernels(model)
    reading.check(data, steps)
    accumulators = {path: ScatterAccumulator(layer) for path, layer in layers.items()}
    pass_over(model, accumulators, data, steps, verbose)
    left = {
        path: why
        for path, accumulator in accumulators.items()
        if (why := unmeasured_because(accumulator.unused_because, accumulator.count)) is not None
    }
    measured = {path: each for path, each in accumulators.items() if path not in left}
    return _evidence(model, measured), left | unlike


def _evidence(model: keras.Model, accumulators: dict[str, ScatterAccumulator]) -> dict[str, Evidence]:
    numbers, steps = numbers_of(model), _steps(model)
    seen = {}
    for path, accumulator in accumulators.items():
        mean, variance, count = accumulator.read()
        between = accumulator.between_batches()
        seen[path] = Evidence(
            numbers[path],
            MeanAndVariance(mean.ravel(), variance.ravel()),
            count,
            accumulator.samples,
            accumulator.batches,
            None if between is None else between.ravel(),
            steps,
            stddev=getattr(accumulator.layer, "moving_stddev", None) is not None,
        )
    return seen


def _steps(model: keras.Model) -> int | None:
    """The steps that the model's optimizer has taken; `None` where there is none, or it took none."""
    optimizer = getattr(model, "optimizer", None)
    iterations = getattr(optimizer, "iterations", None)
    # Under tf.distribute it has a value on each device.
    steps = 0 if iterations is None else int(tf.cast(iterations, tf.int64))
    return steps or None


def _recalibration(found: dict[str, LayerDiagnosis]) -> Measurement:
    """What `tfbn.recalibrate` would assign: the statistics of what is not frozen."""
    trains = {path: each for path, each in found.items() if each.evidence.numbers.frozen_by is None}
    numbers = {path: each.evidence.numbers for path, each in trains.items()}
    before = {path: (each.moving_mean, each.moving_variance) for path, each in numbers.items()}
    return Measurement({path: each.population for path, each in trains.items()}, {}, before)
