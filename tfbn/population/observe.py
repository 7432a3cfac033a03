"""Whether moving statistics are those of the data that a model is used on."""

from __future__ import annotations

import warnings
from typing import Any

import keras
import numpy as np

from ..batch_norms import batch_norms, some
from .accumulator import MomentAccumulator
from .measure import measure

FAR = 10.0  # times too large or too small
ENOUGH = 8  # values of a channel


def warn_if_far(model: keras.Model, inputs: Any, stacklevel: int = 2) -> None:
    """Warn of batch norms whose moving variances are far from those of their inputs at inference.

    Args:
        model: built.
        inputs: one batch, structured as the model takes it.
        stacklevel: of the warning, counted from the caller.
    """
    layers = batch_norms(model)
    if not layers:
        return
    accumulators = {path: MomentAccumulator(layer, observes=True) for path, layer in layers.items()}
    measure(model, accumulators, [(inputs,)], None, 0)
    found = []
    for path, accumulator in accumulators.items():
        if accumulator.count < ENOUGH:
            continue
        _, variance, _ = accumulator.read()
        layer = accumulator.layer
        moving = np.asarray(layer.moving_variance, "float64")
        ratio = float(np.median((variance + layer.epsilon) / (moving + layer.epsilon)))
        if not 1 / FAR < ratio < FAR:
            found.append(f"{path} ({ratio:.2g} times)")
    if found:
        warnings.warn(
            f"The inputs of these batch norms vary {FAR:g} times more or less on the samples than their "
            f"moving variances say: {some(found)}. If the samples are what the model was trained for, "
            "its moving statistics are not up to date, or were lost: call tfbn.recalibrate(model, "
            "data).",
            stacklevel=stacklevel + 1,
        )
