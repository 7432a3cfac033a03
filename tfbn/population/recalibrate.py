"""Measured statistics put in place of the moving ones."""

from __future__ import annotations

import os
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from ..batch_norms import AnyBatchNorm, batch_norms
from .measure import measurement
from .report import Measurement, PopulationStatistics


def recalibrate(
    model: keras.Model,
    data: Any,
    steps: int | None = None,
    verbose: int | str = "auto",
    checkpoint: str | os.PathLike[str] | None = None,
) -> Measurement:
    """Replace the moving statistics of a model's batch norms by population statistics.

    Measures as `population_statistics` does (see there for the arguments, the convention, which batch
    norms are left out, and the errors) and then assigns each mean and variance. When anything fails,
    the model is exactly as it was.

    Returns:
        What was assigned, as `population_statistics` returns it: `print` shows each batch norm before
        and after, or why it was left.

    >>> import tfbn
    >>> model = keras.Sequential([keras.Input((1,)), tfbn.BatchNorm(name="bn")])
    >>> _ = tfbn.recalibrate(model, np.arange(64.0)[:, None], verbose=0)
    >>> print(model.get_layer("bn").moving_mean.numpy())
    [31.5]
    """
    measured = measurement(model, data, steps, verbose, checkpoint)
    assign(model, measured)
    return measured


def assign(model: keras.Model, measurement: Measurement) -> None:
    """Assign what was measured of a model's batch norms to their moving statistics, all or nothing.

    Raises:
        ValueError: statistics that do not fit the type of the weights.
    """
    layers = batch_norms(model)
    assignments = []
    for path, statistics in measurement.items():
        for variable, value in _new_values(layers[path], statistics):
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


def _new_values(
    layer: AnyBatchNorm, statistics: PopulationStatistics
) -> list[tuple[keras.Variable, np.ndarray]]:
    values = [(layer.moving_mean, statistics.mean), (layer.moving_variance, statistics.variance)]
    if (stddev := getattr(layer, "moving_stddev", None)) is not None:
        # Batch renormalisation derives the moving variance from it at the next training step.
        values.append((stddev, np.sqrt(statistics.variance + layer.epsilon)))
    return values
