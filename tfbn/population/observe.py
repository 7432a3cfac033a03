"""Whether moving statistics are those of the data that a model is used on."""

from __future__ import annotations

import warnings
from typing import Any

import keras
import numpy as np

from ..batch_norms import batch_norms
from ..messages import join_some
from .accumulator import MomentAccumulator, listening, standing_in
from .drift import MeanAndVariance, shift, variance_ratio
from .untouched import functions_run_eagerly, has_functions, untouched

# Wider than `diagnosis`' limits: samples are few here, and each layer sees the drift of all before it.
FAR = 10.0  # times too large or too small a variance, or deviations off
ENOUGH = 8  # values of a channel


def running_in_training(model: keras.Model, inputs: Any) -> list[str]:
    """The batch norms that use the batch's statistics when the model is called without `training`.

    Keras hands `training=True` on to the layers behind one that is called so.
    """
    accumulators = {path: MomentAccumulator(layer) for path, layer in batch_norms(model).items()}
    with listening(accumulators.values()):
        _call(model, accumulators, inputs, training=None)
    return [path for path, accumulator in accumulators.items() if any(accumulator.in_training or [])]


def _call(
    model: keras.Model, accumulators: dict[str, MomentAccumulator], inputs: Any, training: bool | None
) -> None:
    """One call of a model, of which only the accumulators keep something."""
    eagerly = functions_run_eagerly(has_functions(model))
    with untouched(model), eagerly, standing_in(model, accumulators):
        model(inputs, training=training)


def warn_if_far(model: keras.Model, inputs: Any, stacklevel: int = 2) -> None:
    """Warn of batch norms whose moving statistics are far from those of their inputs at inference.

    Args:
        model: built.
        inputs: one batch, structured as the model takes it, on which it runs.
        stacklevel: of the warning, counted from the caller.
    """
    layers = batch_norms(model)
    if not layers:
        return
    accumulators = {path: MomentAccumulator(layer, observes=True) for path, layer in layers.items()}
    _call(model, accumulators, inputs, training=False)
    found = []
    for path, accumulator in accumulators.items():
        if accumulator.count < ENOUGH:
            continue
        mean, variance, _ = accumulator.read()
        layer = accumulator.layer
        moving = (np.asarray(value, "float64") for value in (layer.moving_mean, layer.moving_variance))
        both = MeanAndVariance(mean, variance), MeanAndVariance(*moving), layer.epsilon
        ratio = float(np.median(variance_ratio(*both)))
        off = float(np.median(np.abs(shift(*both))))
        if not 1 / FAR < ratio < FAR:
            found.append(f"{path} ({ratio:.2g} times the variance)")
        elif off > FAR:
            found.append(f"{path} ({off:.2g} deviations off)")
    if found:
        warnings.warn(
            "The inputs of these batch norms are far from their moving statistics on the samples: "
            f"{join_some(found)}. If the samples are what the model was trained for, "
            "its moving statistics are not up to date, or were lost: call tfbn.recalibrate(model, "
            "data). tfbn.diagnose(model, data) says what it is.",
            stacklevel=stacklevel + 1,
        )
