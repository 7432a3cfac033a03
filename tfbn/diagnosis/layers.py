"""A model's batch norms as plain numbers: what their reports and checks are about."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np

from ..batch_norms import AnyBatchNorm, batch_norms, layer_paths
from ..messages import no_model, one_line

ZERO_AND_ONE = (0.0, 1.0)


@dataclass(frozen=True, eq=False)
class LayerNumbers:
    """One batch norm: its settings, and its weights per channel in float64.

    Attributes:
        path: as in `tfbn.population_statistics`.
        kind: the name of its class.
        axis: its channel axes; `None` where they are not known.
        decay: weight of the old value in a moving average; `None` where TF1 code decides it.
        epsilon: added to the variance.
        frozen_by: the layer whose `trainable = False` froze it, by path (the model's name for the model
            itself, its own path for its own flag); `None` if it trains.
        gamma, beta: `None` where there is none.
        moving_mean, moving_variance: per channel.
        initial: the numbers that its moving mean and variance started from.
        position: its place among the model's batch norms.
        shape: of the layer's own statistics, which have an axis for each channel axis.
    """

    path: str
    kind: str
    axis: Any
    decay: float | None
    epsilon: float
    frozen_by: str | None
    gamma: np.ndarray | None
    beta: np.ndarray | None
    moving_mean: np.ndarray
    moving_variance: np.ndarray
    initial: tuple[float, float] = ZERO_AND_ONE
    position: int = 0
    shape: tuple[int, ...] = (-1,)

    @property
    def channels(self) -> int:
        return self.moving_mean.size

    @property
    def scales(self) -> np.ndarray:
        """`gamma / sqrt(variance + epsilon)`, the factor at inference; NaN where that is no number."""
        gamma = np.ones_like(self.moving_mean) if self.gamma is None else self.gamma
        with np.errstate(invalid="ignore", divide="ignore"):
            return gamma / np.sqrt(self.moving_variance + self.epsilon)

    @property
    def settings(self) -> dict[str, Any]:
        """What is set, by name, as reports list it."""
        return {
            "path": self.path,
            "class": self.kind,
            "channels": self.channels,
            "axis": self.axis,
            "decay": self.decay,
            "epsilon": self.epsilon,
            "center": self.beta is not None,
            "scale": self.gamma is not None,
            "frozen by": self.frozen_by,
        }

    @property
    def at_initial_values(self) -> bool:
        """Whether no channel's moving statistics have moved."""
        mean, variance = self.initial
        return bool(np.all(self.moving_mean == mean) and np.all(self.moving_variance == variance))


def loaded(model: Any, function: str) -> keras.Model:
    """The model, or the one in a `.keras` file, built.

    Raises:
        TypeError: neither of them.
        ValueError: a file that Keras cannot load; a model, or a batch norm in it, that is not built.
    """
    path = os.fsdecode(model) if isinstance(model, (str, os.PathLike)) else ""
    if path.endswith(".keras") and os.path.exists(path):
        try:
            model = keras.models.load_model(path)
        except Exception as error:
            raise ValueError(
                f"{path} cannot be loaded as a Keras model. If Keras 1 or 2 wrote it, load it with "
                f"tfbn.compat.load_model({path!r}). Keras says: {one_line(error)}"
            ) from error
    if not isinstance(model, keras.Model):
        raise TypeError(
            f"{function} takes a keras.Model or the path of a .keras file, {no_model(model)}"
        )
    unbuilt = [path for path, layer in batch_norms(model).items() if _is_unbuilt(layer)]
    if not model.built or unbuilt:
        which = f"its batch norm {unbuilt[0]!r}" if model.built else "it"
        raise ValueError(
            f"The model {model.name!r} cannot be looked into: {which} is not built, and has no weights. "
            "Call the model on a batch, or start it with keras.Input."
        )
    return model


def _is_unbuilt(layer: AnyBatchNorm) -> bool:
    return getattr(layer, "moving_mean", None) is None


def numbers_of(model: keras.Model) -> dict[str, LayerNumbers]:
    """Every batch norm of a model by its path; in nested models, wrappers and TF1 code, too."""
    frozen = [path for path, layer in layer_paths(model).items() if not layer.trainable]
    return {
        path: _numbers(path, layer, _frozen_by(model, path, layer, frozen), position)
        for position, (path, layer) in enumerate(batch_norms(model).items())
    }


def _frozen_by(model: keras.Model, path: str, layer: AnyBatchNorm, frozen: list[str]) -> str | None:
    if layer.trainable:
        return None
    if not model.trainable:
        return model.name
    around = [outer for outer in frozen if path.startswith(f"{outer}/")]
    return min(around, key=len, default=path)


def _numbers(path: str, layer: Any, frozen_by: str | None, position: int) -> LayerNumbers:
    def array(variable: Any) -> np.ndarray | None:
        return None if variable is None else np.asarray(keras.ops.cast(variable, "float64")).ravel()

    axis = getattr(layer, "axis", None)
    decay = getattr(layer, "decay", getattr(layer, "momentum", None))
    mean, variance = array(layer.moving_mean), array(layer.moving_variance)
    assert mean is not None
    assert variance is not None
    return LayerNumbers(
        path=path,
        kind=type(layer).__name__,
        axis=tuple(axis) if isinstance(axis, (list, tuple)) else axis,
        decay=None if decay is None else float(decay),
        epsilon=float(layer.epsilon),
        frozen_by=frozen_by,
        gamma=array(layer.gamma),
        beta=array(layer.beta),
        moving_mean=mean,
        moving_variance=variance,
        initial=_initial(layer),
        position=position,
        shape=tuple(layer.moving_mean.shape),
    )


def _initial(layer: Any) -> tuple[float, float]:
    """What the moving statistics start from, by the initialisers; 0 and 1 where these are random."""

    def value(initializer: Any, default: float) -> float:
        constants = (keras.initializers.Zeros, keras.initializers.Ones, keras.initializers.Constant)
        if not isinstance(initializer, constants):
            return default
        return float(np.asarray(initializer((), dtype="float32")))

    names = ("moving_mean_initializer", "moving_variance_initializer")
    mean, variance = (
        value(getattr(layer, name, None), default)
        for name, default in zip(names, ZERO_AND_ONE, strict=True)
    )
    return mean, variance
