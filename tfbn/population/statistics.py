"""One pass over the data, and what it measured assigned."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from ..batch_norms import Batchnorm, batch_norms, some, unlike_batch_norms
from ..data_format import check_kernels, explained
from . import data as reading
from .gauge import Gauge, gauged


@dataclass(frozen=True, eq=False)
class PopulationStatistics:
    """E[x] and Var[x] of a batch norm's input over a data set.

    Attributes:
        mean: float64, per channel.
        variance: float64, per channel, unbiased: m/(m−1) times the mean squared deviation.
        count: m, the number of values behind a channel (samples times positions, without masked
            ones); the smallest, should channels differ.
    """

    mean: np.ndarray
    variance: np.ndarray
    count: int


def population_statistics(
    model: keras.Model, data: Any, steps: int | None = None, verbose: int | str = "auto"
) -> dict[str, PopulationStatistics]:
    """Measure the population statistics of every batch norm of a model in one pass over `data`.

    The batch norms (ours and Keras' own) normalise with the statistics of each batch, as in
    training; every other layer runs as at inference, without dropout. Frozen batch norms
    (`trainable = False`) run as at inference too, and are not measured.

    All batches together count as one sample of m values: they are combined by (count, mean, squared
    deviations) in float64, so batches of unequal size weigh by their size, and the variance
    is corrected once by m/(m−1). With one batch that is line 10 to the letter; with several it
    adds what line 10 leaves out, the variance of the batches' means, and so for the first batch norm
    equals the variance of the whole data. Memory: three floats a channel.

    Args:
        model: a built or buildable Keras model that contains batch norms.
        data: what `keras.Model.fit` takes and more: a `tf.data.Dataset`, a `PyDataset`, a generator
            or other iterable of batches `x`, `(x, y)` or `(x, y, sample_weight)` (in a list, each
            a tuple), or arrays: one, a list or dictionary of them for a model of several inputs, or a
            tuple `(x, y[, sample_weight])`. Arrays are cut in batches of 32; for another size pass
            batches. Targets and sample weights are ignored.
        steps: number of batches to use; all of them if `None`.
        verbose: 0 for silence, 1 or "auto" for a progress bar, 2 for a line, as in Keras.

    Returns:
        `PopulationStatistics` by layer path (`"block/bn"` for the layer `bn` in `block`).

    Raises:
        TypeError: `model` is not a Keras model.
        ValueError: nothing to measure; no data, less than `steps`, or endless data without `steps`;
            fewer than two values a channel; statistics that are not finite; a batch norm that the
            data never reached.
        RuntimeError: a channels-first model that TensorFlow cannot run on this machine.
        Exception: whatever the data or the model raises.

        The model is exactly as it was, whether this succeeds or fails.
    """
    gauges = {path: Gauge(layer) for path, layer in _measurable(model).items()}
    check_kernels(model)
    reading.check(data, steps)
    batches, batch_size = reading.readable(model, data)
    watch = _Watch(gauges)
    measuring = _Pass(model)
    measuring.compile(run_eagerly=bool(getattr(model, "run_eagerly", False)), jit_compile=False)
    with gauged(model, gauges), warnings.catch_warnings():
        # Data that ends by itself is welcome here; too little of it is an error below.
        warnings.filterwarnings("ignore", message="Your input ran out of data")
        warnings.filterwarnings("ignore", message="Even though the `tf.config.experimental_run_func")
        arguments = {"batch_size": batch_size, "steps": steps, "verbose": verbose}
        try:
            measuring.evaluate(batches, callbacks=[watch], **arguments)
        except tf.errors.OpError as error:
            if (lacking := explained(error)) is not None:
                raise RuntimeError(lacking) from error
            raise
    if watch.batches == 0:
        raise ValueError(reading.NO_BATCH)
    if steps is not None and watch.batches < steps:
        raise ValueError(
            f"data ended after {watch.batches} of steps={steps} batches. Pass more data, repeat it "
            "(tf.data.Dataset.repeat), or lower steps."
        )
    return {path: PopulationStatistics(*gauge.read(path)) for path, gauge in gauges.items()}


def recalibrate(
    model: keras.Model, data: Any, steps: int | None = None, verbose: int | str = "auto"
) -> dict[str, PopulationStatistics]:
    """Replace the moving statistics of a model's batch norms by population statistics.

    Measures as `population_statistics` does (see there for the arguments, the convention and the
    errors) and then assigns each mean and variance. Frozen batch norms stay as they are. When
    anything fails, the model is exactly as it was.

    Returns:
        What was assigned, as `population_statistics` returns it.
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


class _Watch(keras.callbacks.Callback):
    """Counts the batches, and stops at the first one that brings NaN or infinity."""

    def __init__(self, gauges: Mapping[str, Gauge]) -> None:
        super().__init__()
        self.gauges = gauges
        self.batches = 0

    def on_test_batch_end(self, batch: int, logs: Mapping[str, Any] | None = None) -> None:
        self.batches += 1
        for path, gauge in self.gauges.items():
            if not gauge.is_finite():
                raise ValueError(
                    f"Batch {self.batches} gives the batch norm {path!r} NaN or infinite statistics. "
                    "Look for NaN or very large values in that batch and in the weights of the "
                    "layers before it. The model was not changed."
                )


class _Pass(keras.Model):
    """Lets Keras' own `evaluate` read the data and draw the progress bar, for any kind of data."""

    def __init__(self, model: keras.Model) -> None:
        super().__init__(name="population_pass")  # Keras derives an invalid scope name from _Pass
        self.model = model
        self.built = True  # under a strategy Keras would build it by a call that it does not have
        self.samples = tf.Variable(0, dtype=tf.int64)

    def test_step(self, data: Any) -> dict[str, Any]:
        x, _, _ = keras.utils.unpack_x_y_sample_weight(data)
        self.model(x, training=False)
        self.samples.assign_add(tf.shape(tf.nest.flatten(x)[0], tf.int64)[0])
        return {"samples": self.samples.read_value()}


def _measurable(model: keras.Model) -> dict[str, Batchnorm]:
    if not isinstance(model, keras.Model):
        raise TypeError(f"model must be a keras.Model, received {type(model).__name__}: {model!r}.")
    found = batch_norms(model)
    trainable = {path: layer for path, layer in found.items() if layer.trainable}
    if not trainable:
        count, unlike = len(found), unlike_batch_norms(model)
        if found:
            what = f"its {count} are all frozen. Unfreeze those to be measured (layer.trainable = True)."
        elif unlike:
            reasons = [f"{path} ({layer.unlike_batch_norm})" for path, layer in unlike.items()]
            what = f"{some(reasons)} needs no statistics."
        else:
            what = "it has none. Were they folded away? Measure before folding."
        raise ValueError(f"The model {model.name!r} has no batch norm to measure: {what}")
    return trainable
