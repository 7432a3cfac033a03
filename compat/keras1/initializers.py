"""Keras 1's names for initialisers and regularisers, as Keras 3 objects (Keras 1.0 to 1.2.2)."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

# Those whose spread depends on the shape: the distribution, and c of sqrt(c / fan).
_SPREADS = {
    "lecun_uniform": ("uniform", 3),
    "glorot_uniform": ("uniform", 3),
    "he_uniform": ("uniform", 6),
    "glorot_normal": ("normal", 1),
    "he_normal": ("normal", 2),
}
_PLAIN: dict[str, Callable[[], keras.initializers.Initializer]] = {
    "zero": keras.initializers.Zeros,
    "one": keras.initializers.Ones,
    "uniform": lambda: keras.initializers.RandomUniform(-0.05, 0.05),
    "normal": lambda: keras.initializers.RandomNormal(0.0, 0.05),
}
_OF_MATRICES = ("identity", "orthogonal")
INITIALIZERS = (*_PLAIN, *_SPREADS)

# What a name stands for when nothing is said of l1 and l2. Releases differ in the class's name.
_REGULARIZERS = {
    "WeightRegularizer": (0.0, 0.0),
    "L1L2Regularizer": (0.0, 0.0),
    "l1": (0.01, 0.0),
    "l2": (0.0, 0.01),
    "l1l2": (0.01, 0.01),
}
_OF_ACTIVITIES = ("ActivityRegularizer", "activity_l1", "activity_l2", "activity_l1l2")


@keras.saving.register_keras_serializable(package="tfbn")
class VectorInitializer(keras.initializers.Initializer):
    """Keras 1's random initialisers by fan, on a vector.

    Of a vector of n numbers Keras 1 took fan_in and fan_out to be sqrt(n), where Keras 3 takes n, and
    its normal ones were not truncated.

    Args:
        name: "lecun_uniform", "glorot_uniform", "he_uniform", "glorot_normal" or "he_normal".
    """

    def __init__(self, name: str) -> None:
        self.name = name

    def __call__(self, shape: Sequence[int], dtype: Any = None) -> Any:
        distribution, c = _SPREADS[self.name]
        spread = math.sqrt(c / math.sqrt(max(math.prod(shape), 1)))
        if distribution == "uniform":
            return keras.initializers.RandomUniform(-spread, spread)(shape, dtype=dtype)
        return keras.initializers.RandomNormal(0.0, spread)(shape, dtype=dtype)

    def get_config(self) -> dict[str, Any]:
        return {"name": self.name}


def initializer(argument: str, value: Any, weight: str) -> Callable[..., Any]:
    """What Keras 1 accepted as the initialiser of a vector, as one of Keras 3.

    Args:
        argument: its name, for messages.
        value: a name of Keras 1; a function f(shape, name=None) as in Keras 1, f(shape, dtype=None) as
            in Keras 3, or f(shape); a Keras initialiser or its configuration.
        weight: the name that a function of Keras 1 is given for the weight.

    Raises:
        TypeError: none of these.
        ValueError: an unknown name, or one that only makes matrices.
    """
    if isinstance(value, str):
        if value in _OF_MATRICES:
            raise ValueError(
                f"{argument}={value!r} makes matrices, and gamma and beta are vectors. "
                f"Use one of {', '.join(INITIALIZERS)}."
            )
        if value not in INITIALIZERS:
            raise ValueError(
                f"{argument}={value!r} is no initialiser of Keras 1. Use one of "
                f"{', '.join(INITIALIZERS)}, or pass a function or a Keras initialiser."
            )
        return _PLAIN[value]() if value in _PLAIN else VectorInitializer(value)
    if isinstance(value, dict):
        return keras.initializers.get(value)
    if not callable(value):
        raise TypeError(
            f"{argument} must be the name of an initialiser or a function of a shape, "
            f"received {value!r}. Use one of {', '.join(INITIALIZERS)}."
        )
    made = keras.initializers.get(value)
    return made if isinstance(made, keras.Initializer) else _of_function(argument, made, weight)


def _of_function(argument: str, function: Callable[..., Any], weight: str) -> Callable[..., Any]:
    """A user's function as an initialiser: called as its parameters tell, its result checked."""
    try:
        parameters = set(inspect.signature(function).parameters)
    except (TypeError, ValueError):  # some functions written in C
        parameters = set()

    def initialize(shape: Sequence[int], dtype: Any = None) -> tf.Tensor:
        if "dtype" in parameters:
            made = function(shape, dtype=dtype)
        else:
            made = function(shape, name=weight) if "name" in parameters else function(shape)
        made = keras.ops.convert_to_tensor(made)
        if tuple(made.shape) != tuple(shape):
            raise ValueError(
                f"{argument} made values of shape {tuple(made.shape)} for {weight!r}, which has shape "
                f"{tuple(shape)}. Return a value for each channel."
            )
        return tf.cast(made, dtype or keras.config.floatx())

    return initialize


def written_initializer(value: Any) -> Any:
    """What of `initializer`'s argument goes into a configuration; `None` where nothing can.

    Keras 1 wrote nothing, so that a loaded layer had its weights and the default initialisers. A
    function cannot be found again from a file, and is left out in that way.
    """
    if isinstance(value, (str, dict)):
        return value
    made = keras.initializers.get(value)
    return keras.initializers.serialize(made) if isinstance(made, keras.Initializer) else None


def regularizer(argument: str, value: Any) -> Any:
    """What Keras 1 accepted as the regulariser of a weight, as one of Keras 3.

    Args:
        argument: its name, for messages.
        value: `None`, a name ("l1", "l2", "l1l2", "WeightRegularizer"), Keras 1's configuration
            `{"name": "WeightRegularizer", "l1": …, "l2": …}`, or a Keras regulariser or its
            configuration.

    Raises:
        ValueError: what has no meaning for a weight: an unknown name, a regulariser of activities or
            of eigenvalues, an object of Keras 1's first releases.
    """
    legacy = isinstance(value, dict) and "class_name" not in value
    name = value.get("name") if legacy else value
    if isinstance(name, str) and name in _OF_ACTIVITIES:
        raise ValueError(
            f"{argument}={value!r} is a regulariser of activities, not of weights. "
            "Use {'name': 'WeightRegularizer', 'l1': …, 'l2': …}, or activity_regularizer=."
        )
    if legacy or isinstance(name, str):
        if not isinstance(name, str) or name not in _REGULARIZERS:
            raise ValueError(
                f"{argument}={value!r} is no regulariser of a vector in Keras 1. Use one of "
                f"{', '.join(_REGULARIZERS)}, or pass a Keras regulariser."
            )
        l1, l2 = _REGULARIZERS[name]
        given = value if legacy else {}
        return keras.regularizers.L1L2(float(given.get("l1", l1)), float(given.get("l2", l2)))
    if hasattr(value, "set_param"):
        raise ValueError(
            f"{argument}={value!r} has a set_param(), as the regularisers of early Keras 1, which "
            "added themselves to a loss. Make it a keras.regularizers.Regularizer, that returns one."
        )
    return keras.regularizers.get(value)


def written_regularizer(value: Any) -> Any:
    """A Keras regulariser as a configuration: Keras 1's where it has one."""
    if type(value) in (keras.regularizers.L1, keras.regularizers.L2, keras.regularizers.L1L2):
        l1, l2 = (float(np.asarray(getattr(value, name, 0.0))) for name in ("l1", "l2"))
        return {"name": "WeightRegularizer", "l1": l1, "l2": l2}
    return keras.regularizers.serialize(value)
