"""Population statistics: Algorithm 2, lines 7 to 10, of Ioffe & Szegedy (arXiv 1502.03167v3)."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from . import functional
from .batch_norms import Batchnorm, batch_norms
from .functional import Moments

_NO_BATCH = "data holds no batch. Pass at least one batch of the model's inputs."


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
        data: what `keras.Model.fit` takes: a `tf.data.Dataset`, a `PyDataset`, a generator, an
            iterator or a list of batches `x`, `(x, y)` or `(x, y, sample_weight)` (in a list, as
            tuples), or arrays: one, a list or dictionary of them for a model of several inputs, or a
            tuple `(x, y[, sample_weight])`. Arrays are cut in batches of 32. Targets and sample
            weights are ignored.
        steps: number of batches to use; all of them if `None`.
        verbose: 0 for silence, 1 or "auto" for a progress bar, 2 for a line, as in Keras.

    Returns:
        `PopulationStatistics` by layer path (`"block/bn"` for the layer `bn` in `block`).

    Raises:
        TypeError: `model` is not a Keras model.
        ValueError: nothing to measure; no data, less than `steps`, or endless data without `steps`;
            fewer than two values a channel; statistics that are not finite; a batch norm that the
            data never reached.
        Exception: whatever the data or the model raises.

        The model is exactly as it was, whether this succeeds or fails.
    """
    layers = _measurable(model)
    _check_length(data, steps)
    gauges = {path: _Gauge(layer) for path, layer in layers.items()}
    watch = _Watch(gauges)
    pass_over_data = _Pass(model)
    pass_over_data.compile(run_eagerly=bool(getattr(model, "run_eagerly", False)), jit_compile=False)
    with _gauged(layers, gauges), warnings.catch_warnings():
        # Data that ends by itself is welcome here; too little of it is an error below.
        warnings.filterwarnings("ignore", message="Your input ran out of data")
        pass_over_data.evaluate(_readable(data), steps=steps, verbose=verbose, callbacks=[watch])
    if watch.batches == 0:
        raise ValueError(_NO_BATCH)
    if steps is not None and watch.batches < steps:
        raise ValueError(
            f"data ended after {watch.batches} of steps={steps} batches. Pass more data, repeat it "
            "(tf.data.Dataset.repeat), or lower steps."
        )
    return {path: gauge.read(path) for path, gauge in gauges.items()}


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
        for variable, value in (
            (layer.moving_mean, statistics.mean),
            (layer.moving_variance, statistics.variance),
        ):
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


class _Gauge:
    """Stands in for a batch norm's `call` during the pass and sums up what goes through it.

    The sums are variables, so that they work inside tf.function, loops and conditionals.
    """

    def __init__(self, layer: Batchnorm) -> None:
        self.layer = layer
        self.moments: Moments | None = None

    def call(
        self, inputs: tf.Tensor, training: bool | None = None, mask: tf.Tensor | None = None
    ) -> tf.Tensor:
        layer, wide = self.layer, tf.cast(inputs, tf.float64)
        if mask is None:
            batch = functional.batch_moments(wide, layer.axis)
        else:
            batch = functional.weighted_moments(wide, mask, layer.axis)
        self._add(batch)
        outputs = functional.normalize(
            inputs,
            batch.mean,
            batch.variance,
            layer.beta,
            layer.gamma,
            layer.epsilon,
            layer.axis,
        )
        return tf.cast(outputs, layer.compute_dtype)

    def _add(self, batch: Moments) -> None:
        with tf.init_scope():
            if self.moments is None:
                shape = self.layer.moving_mean.shape
                self.moments = Moments(*(tf.Variable(tf.zeros(shape, tf.float64)) for _ in range(3)))
        batch = batch._replace(count=tf.broadcast_to(batch.count, tf.shape(batch.mean)))
        pairs = (tf.stack([old, new]) for old, new in zip(self.moments, batch, strict=True))
        for variable, value in zip(
            self.moments, functional.combine_moments(Moments(*pairs)), strict=True
        ):
            variable.assign(value)

    def is_finite(self) -> bool:
        return self.moments is None or all(np.isfinite(v.numpy()).all() for v in self.moments)

    def read(self, path: str) -> PopulationStatistics:
        if self.moments is None or not self.moments.count.numpy().any():
            raise ValueError(
                f"No value of the data reached the batch norm {path!r}. Is it used when the model is "
                "called, and not masked throughout? Freeze it (trainable = False) to leave it out."
            )
        count = int(self.moments.count.numpy().min())
        if count < 2:
            raise ValueError(
                f"{path!r} saw {count} value in a channel, and a variance needs two. Pass more data."
            )
        variance = functional.unbiased_variance(self.moments)
        return PopulationStatistics(self.moments.mean.numpy(), variance.numpy(), count)


class _Watch(keras.callbacks.Callback):
    """Counts the batches, and stops at the first one that brings NaN or infinity."""

    def __init__(self, gauges: Mapping[str, _Gauge]) -> None:
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
        super().__init__()
        self.model = model
        self.samples = tf.Variable(0, dtype=tf.int64)

    def test_step(self, data: Any) -> dict[str, Any]:
        x, _, _ = keras.utils.unpack_x_y_sample_weight(data)
        self.model(x, training=False)
        self.samples.assign_add(tf.shape(tf.nest.flatten(x)[0], tf.int64)[0])
        return {"samples": self.samples.read_value()}


@contextmanager
def _gauged(layers: Mapping[str, Batchnorm], gauges: Mapping[str, _Gauge]) -> Iterator[None]:
    """Each layer's `call` replaced by its gauge's, on the instance, and put back at the end."""
    try:
        for path, layer in layers.items():
            layer.__dict__["call"] = gauges[path].call
        yield
    finally:
        for layer in layers.values():
            layer.__dict__.pop("call", None)


def _measurable(model: keras.Model) -> dict[str, Batchnorm]:
    if not isinstance(model, keras.Model):
        raise TypeError(f"model must be a keras.Model, received {type(model).__name__}: {model!r}.")
    found = batch_norms(model)
    trainable = {path: layer for path, layer in found.items() if layer.trainable}
    if not trainable:
        what = f"its {len(found)} are all frozen" if found else "it has none"
        raise ValueError(
            f"The model {model.name!r} has no batch norm to measure: {what}. Unfreeze those to be "
            "measured (layer.trainable = True)."
        )
    return trainable


def _readable(data: Any) -> Any:
    """The data as Keras reads it: `x` of a tuple, and any iterator or list of batches as a generator."""
    if isinstance(data, tuple):
        return keras.utils.unpack_x_y_sample_weight(data)[0]
    if isinstance(data, list) and all(isinstance(batch, tuple) for batch in data):
        data = iter(data)
    if not isinstance(data, Iterator):
        return data
    try:
        first = next(data)
    except StopIteration:
        raise ValueError(_NO_BATCH) from None
    return (batch for batch in chain([first], data))


def _check_length(data: Any, steps: int | None) -> None:
    if steps is not None and (isinstance(steps, bool) or not isinstance(steps, int) or steps < 1):
        raise ValueError(f"steps must be a positive number of batches or None, received {steps!r}.")
    if steps is None:
        endless = (
            isinstance(data, tf.data.Dataset) and data.cardinality() == tf.data.INFINITE_CARDINALITY
        )
        endless |= isinstance(data, keras.utils.PyDataset) and data.num_batches is None
        if endless:
            raise ValueError(
                f"This {type(data).__name__} never ends. Say how many batches to use: steps=100."
            )
    if (
        data is None
        or isinstance(data, (str, bytes))
        or not (hasattr(data, "__array__") or isinstance(data, (Iterable, keras.utils.PyDataset)))
    ):
        raise ValueError(
            f"data must be arrays or batches of the model's inputs, received {data!r}. Pass what "
            "keras.Model.fit takes: an array, a tf.data.Dataset, a PyDataset or a generator."
        )
