"""The values in a layer's configuration: each read as what it must be, or refused.

Every reader takes the value and returns it as Keras 3 wants it, or raises `ValueError` or `TypeError`.
Names are looked up in the tables here: nothing in a file can make Keras import or unpack anything.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from keras import activations, constraints, initializers, regularizers

from ...keras1.initializers import INITIALIZERS as KERAS1_INITIALIZERS
from ...keras1.initializers import regularizer as keras1_regularizer
from ..reading.architecture import MOST
from .legacy_layers import legacy_hard_sigmoid

Reader = Callable[[Any], Any]

# hard_sigmoid had the slope 0.2 in Keras 1 and 2, and has 1/6 in Keras 3.
ACTIVATIONS: dict[str, Callable[..., Any]] = {
    **{
        name: getattr(activations, name) for name in ("linear", "relu", "elu", "selu", "tanh", "sigmoid")
    },
    **{
        name: getattr(activations, name)
        for name in ("softmax", "softplus", "softsign", "exponential", "gelu")
    },
    **{
        "swish": activations.silu,
        "silu": activations.silu,
        "relu6": activations.relu6,
        "hard_sigmoid": legacy_hard_sigmoid,
    },
}


def flag(value: Any) -> bool:
    if not isinstance(value, bool):
        raise TypeError("must be true or false")
    return value


def size(value: Any) -> int:
    """A positive integer; Keras wrote some as 3.0."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or value != value // 1:
        raise TypeError("must be an integer")
    if not 1 <= value <= MOST:
        raise ValueError(f"must be between 1 and {MOST}")
    return int(value)


def offset(value: Any) -> int:
    """An integer that may be zero."""
    return 0 if value == 0 and type(value) is int else size(value)


def integer(value: Any) -> int:
    """An integer that may be negative, as an axis is; a list of one, too."""
    if isinstance(value, list) and len(value) == 1:
        value = value[0]
    if type(value) is not int or abs(value) > MOST:
        raise TypeError("must be an integer")
    return value


def axes(value: Any) -> Any:
    """An axis, or a list of several."""
    return (
        [integer(axis) for axis in value]
        if isinstance(value, list) and len(value) > 1
        else integer(value)
    )


def number(value: Any) -> float:
    """A finite number; Keras wrote some as {"type": "ndarray", "value": 0.3}."""
    if isinstance(value, dict) and "value" in value:
        value = value["value"]
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        raise TypeError("must be a finite number")
    return float(value)


def clipping(value: Any) -> dict[str, float]:
    """Bounds of batch renormalisation by name."""
    if not isinstance(value, dict) or not value.keys() <= {"rmin", "rmax", "dmax"}:
        raise TypeError("must be an object of rmin, rmax and dmax")
    return {name: number(bound) for name, bound in value.items() if bound is not None}


def maybe(read: Reader) -> Reader:
    """A reader that lets `None` through."""
    return lambda value: None if value is None else read(value)


def sizes(rank: int, read: Reader = size) -> Reader:
    """A list of `rank` sizes, or one for all."""

    def reader(value: Any) -> tuple[int, ...]:
        if not isinstance(value, list):
            return (read(value),) * rank
        if len(value) != rank:
            raise ValueError(f"must be {rank} integers")
        return tuple(read(item) for item in value)

    return reader


def margins(rank: int) -> Reader:
    """Paddings or croppings: one for all sides, one for each axis, or two for each."""

    def reader(value: Any) -> Any:
        if isinstance(value, dict):  # Keras 1.2's {"left_pad": 1, "right_pad": 2}
            sides = [f"{end}_pad" for end in ("left", "right", "top", "bottom")]
            order = sides[:2] if rank == 1 else [sides[2], sides[3], sides[0], sides[1]]
            if rank > 2 or not value.keys() <= set(order):
                raise ValueError(f"must have the keys {order}")
            value = [value.get(side, 0) for side in order]
        if not isinstance(value, list):
            pairs = [(offset(value),) * 2] * rank
        elif len(value) == 2 * rank and not any(isinstance(item, list) for item in value):
            flat = [offset(item) for item in value]
            pairs = list(zip(flat[::2], flat[1::2], strict=True))
        elif len(value) == rank:
            pairs = [sizes(2, offset)(item) for item in value]
        else:
            raise ValueError(f"must be margins of {rank} axes")
        return pairs[0] if rank == 1 else tuple(pairs)

    return reader


def choice(*allowed: Any) -> Reader:
    def reader(value: Any) -> Any:
        if not any(type(value) is type(option) and value == option for option in allowed):
            raise ValueError(f"must be one of {', '.join(map(repr, allowed))}")
        return value

    return reader


def renamed(names: dict[str, str]) -> Reader:
    """A choice that Keras 3 calls otherwise."""
    return lambda value: names[choice(*names)(value)]


def shape(value: Any) -> tuple[int, ...]:
    """The target of a Reshape: sizes, one of them maybe -1."""
    if not isinstance(value, list) or len(value) > 32:
        raise TypeError("must be a list of sizes")
    return tuple(-1 if type(item) is int and item == -1 else size(item) for item in value)


def batch_shape(value: Any) -> tuple[int | None, ...]:
    """The shape of an input with its batch axis."""
    if not isinstance(value, list) or not 1 <= len(value) <= 32:
        raise TypeError("must be a list of sizes")
    return tuple(maybe(size)(item) for item in value)


def dtype(value: Any) -> str:
    """A type or a policy of mixed precision."""
    if isinstance(value, dict):
        value = (
            (value.get("config") or {}).get("name") if isinstance(value.get("config"), dict) else None
        )
    kinds = [f"{kind}{bits}" for kind in ("int", "uint", "float") for bits in (8, 16, 32, 64)]
    return choice(*kinds[:8], *kinds[9:], "bool", "bfloat16", "mixed_float16", "mixed_bfloat16")(value)


def activation(value: Any) -> Callable[..., Any]:
    if value is None:
        return activations.linear
    if not isinstance(value, str) or value not in ACTIVATIONS:
        raise ValueError(f"is no activation of Keras 1 and 2 but {value!r}; pass it in custom_objects")
    return ACTIVATIONS[value]


def _scaling(scale: float, mode: str, distribution: str) -> Callable[[], Any]:
    return lambda: initializers.VarianceScaling(scale, mode, distribution)


_KERAS1_MATRICES: dict[str, Callable[[], Any]] = {
    "zero": initializers.Zeros,
    "one": initializers.Ones,
    "uniform": lambda: initializers.RandomUniform(-0.05, 0.05),
    "normal": lambda: initializers.RandomNormal(0.0, 0.05),
    "lecun_uniform": _scaling(1.0, "fan_in", "uniform"),
    "glorot_uniform": _scaling(1.0, "fan_avg", "uniform"),
    "glorot_normal": _scaling(1.0, "fan_avg", "untruncated_normal"),
    "he_uniform": _scaling(2.0, "fan_in", "uniform"),
    "he_normal": _scaling(2.0, "fan_in", "untruncated_normal"),
    "orthogonal": lambda: initializers.Orthogonal(1.1),
    "identity": initializers.Identity,
}


def initializer1(value: Any) -> Any:
    """An initialiser of Keras 1, by name."""
    if not isinstance(value, str) or value not in _KERAS1_MATRICES:
        raise ValueError(f"is no initialiser of Keras 1: one of {', '.join(_KERAS1_MATRICES)}")
    return _KERAS1_MATRICES[value]()


def vector_initializer1(value: Any) -> str:
    """An initialiser of a vector in Keras 1, which `compat.BatchNormalization` takes by name."""
    return choice(*KERAS1_INITIALIZERS)(value)


def regularizer1(value: Any) -> Any:
    """A regulariser of Keras 1 for weights."""
    return keras1_regularizer("regularizer", value) if isinstance(value, (dict, str)) else _none(value)


def activity1(value: Any) -> Any:
    """A regulariser of Keras 1 for activities."""
    if isinstance(value, dict) and value.get("name") in ("ActivityRegularizer", "L1L2Regularizer"):
        return regularizers.L1L2(number(value.get("l1", 0.0)), number(value.get("l2", 0.0)))
    return _none(value)


def constraint1(value: Any) -> Any:
    """A constraint of Keras 1: {"name": "MaxNorm", "m": 2, "axis": 0}, or the name alone."""
    found = {"name": value} if isinstance(value, str) else value
    if not isinstance(found, dict):
        return _none(value)
    name, axis = str(found.get("name")).lower(), integer(found.get("axis", 0))
    if name == "nonneg":
        return constraints.NonNeg()
    if name == "unitnorm":
        return constraints.UnitNorm(axis)
    if name == "maxnorm":
        return constraints.MaxNorm(number(found.get("m", 2)), axis)
    raise ValueError(f"is no constraint of Keras 1 but {value!r}")


def _none(value: Any) -> None:
    if value is not None:
        raise ValueError("is not known")


def _of_class(classes: dict[str, Callable[..., Any]], allowed: tuple[str, ...]) -> Reader:
    """An object of Keras 2: {"class_name": …, "config": …}, or its name alone."""

    def reader(value: Any) -> Any:
        if value is None:
            return None
        found = {"class_name": value, "config": {}} if isinstance(value, str) else value
        if not isinstance(found, dict):
            raise TypeError("must be an object or a name")
        name, config = found.get("class_name"), found.get("config")
        if not isinstance(name, str) or name not in classes or not isinstance(config, dict | None):
            raise ValueError(f"is none that Keras 2 had: {name!r}"[:100])
        settings = {
            key: setting for key, setting in (config or {}).items() if key not in ("dtype", "seed")
        }
        if strange := settings.keys() - set(allowed):
            raise ValueError(f"has the unknown settings {sorted(strange)}")
        for key, setting in settings.items():
            if isinstance(setting, (list, dict)) and key not in ("value", "axis"):
                raise TypeError(f"{key} must be a number or a text")
        if settings.get("distribution") == "normal":
            settings["distribution"] = "truncated_normal"
        return classes[name](**settings)

    return reader


def _both_names(module: Any, names: str, **other: Callable[..., Any]) -> dict[str, Callable[..., Any]]:
    """Classes of Keras 3 by both names that files have: GlorotUniform, glorot_uniform."""
    found: dict[str, Callable[..., Any]] = dict(other)
    for name in names.split():
        snake = "".join(f"_{letter.lower()}" if letter.isupper() else letter for letter in name).strip(
            "_"
        )
        found |= {name: getattr(module, name), snake: getattr(module, name)}
    return found


initializer2 = _of_class(
    _both_names(
        initializers,
        "Zeros Ones Constant RandomNormal RandomUniform TruncatedNormal VarianceScaling Orthogonal "
        "Identity GlorotUniform GlorotNormal HeUniform HeNormal LecunUniform LecunNormal",
    ),
    ("value", "mean", "stddev", "minval", "maxval", "scale", "mode", "distribution", "gain"),
)
regularizer2 = _of_class(_both_names(regularizers, "L1 L2 L1L2", l1_l2=regularizers.L1L2), ("l1", "l2"))
constraint2 = _of_class(
    _both_names(constraints, "MaxNorm NonNeg UnitNorm MinMaxNorm"),
    ("max_value", "min_value", "rate", "axis"),
)
