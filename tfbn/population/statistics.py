"""Measured statistics for whoever wants to see or use them; the model keeps its own."""

from __future__ import annotations

import os
from typing import Any

import keras

from .measure import measurement
from .report import Measurement


def population_statistics(
    model: keras.Model,
    data: Any,
    steps: int | None = None,
    verbose: int | str = "auto",
    checkpoint: str | os.PathLike[str] | None = None,
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
            Targets and sample weights are ignored. A KerasHub task preprocesses what it is given. Or
            `tfbn.Statistics`, measured before.
        steps: number of batches to use; all of them if `None`.
        verbose: 0 for silence, 1 or "auto" for a progress bar, 2 for a line, as in Keras.
        checkpoint: a file, `"stats.npz"`, that holds what was measured so far, written every 30 seconds
            and at the end. If it is there already, as after the process was killed, its batches are read
            and left out: pass the same data in the same order, and delete the file to begin anew. It
            holds `tfbn.Statistics`.

    Returns:
        A dictionary of `PopulationStatistics` by layer path (`"block/bn"` for the layer `bn` in
        `block`), which says in `left` why the other batch norms were not measured.

    Warns:
        UserWarning: fewer than two values reached a batch norm, and it was left out.

    Raises:
        TypeError: `model` is not a Keras model.
        ValueError: nothing to measure; no data, less than `steps`, or endless data without `steps`;
            batches of another size than the model declares; fewer than two values a channel in every
            batch norm; statistics that are not finite; a checkpoint, or statistics, of other weights.
        RuntimeError: a channels-first model that TensorFlow cannot run on this machine.
        Exception: whatever the data or the model raises.

        The variables of the model are as they were, whether this succeeds or fails.

    >>> import numpy as np, tfbn
    >>> model = keras.Sequential([keras.Input((1,)), tfbn.BatchNorm(name="bn")])
    >>> measured = tfbn.population_statistics(model, np.arange(64.0)[:, None], verbose=0)
    >>> print(measured["bn"].mean, model.get_layer("bn").moving_mean.numpy())
    [31.5] [0.]
    """
    return measurement(model, data, steps, verbose, checkpoint)
