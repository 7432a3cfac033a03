"""Whether moving statistics were ever updated, and the warning that says they were not."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from .batch_norms import AnyBatchNorm
from .messages import join_some


def never_updated(mean: Any, variance: Any, beta: Any = None, gamma: Any = None) -> bool:
    """Whether a batch norm was trained and its moving statistics were not.

    That is so where the moving statistics still are exactly 0 and 1, and beta or gamma no longer are:
    the update operations of TF1 code were not run, or a custom training loop left out `training=True`.

    Args:
        mean, variance, beta, gamma: per channel; `None` where there is no beta or gamma.
    """
    untouched = not np.any(mean) and np.all(np.equal(variance, 1))
    trained = (beta is not None and np.any(beta)) or (
        gamma is not None and not np.all(np.equal(gamma, 1))
    )
    return bool(untouched and trained)


def warn_if_never_updated(layers: Mapping[str, AnyBatchNorm], stacklevel: int = 2) -> bool:
    """Warn of the batch norms for which `never_updated` holds; return whether there are any.

    Args:
        layers: batch norms by path.
        stacklevel: that of the warning, counted from the caller.
    """
    found = [
        path
        for path, layer in layers.items()
        if never_updated(layer.moving_mean, layer.moving_variance, layer.beta, layer.gamma)
    ]
    if found:
        warn_never_updated(found, stacklevel + 1)
    return bool(found)


def warn_never_updated(paths: Sequence[str], stacklevel: int) -> None:
    warnings.warn(
        f"The batch norms {join_some(paths)} were trained, but their moving statistics are still 0 and "
        "1, and at inference nothing is normalised: the operations in TF1's UPDATE_OPS were not run, or "
        "the model was called without training=True. Run them with each training step, or call "
        "tfbn.recalibrate(model, data).",
        stacklevel=stacklevel + 1,
    )
