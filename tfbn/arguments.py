"""Checks of the layers' arguments; each error names the argument, what was received and the remedy."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from inspect import Parameter, signature
from typing import Any, TypedDict

import numpy as np


class LayerArguments(TypedDict, total=False):
    """What every Keras layer takes, for type checkers, which then refuse `momentum=`."""

    name: str | None
    trainable: bool
    dtype: Any
    autocast: bool
    activity_regularizer: Any
    input_shape: Sequence[int | None]
    input_dim: int


# Arguments of Keras' layer that have another name here or belong to another layer, and the remedy.
KERAS_ARGUMENTS = {
    "momentum": "what Keras calls momentum is called decay here. Write {name}(decay={value!r}).",
    "renorm": "batch renormalisation is a layer of its own. Write tfbn.BatchRenorm().",
    "renorm_clipping": "write tfbn.BatchRenorm(rmin=, rmax=, dmax=).",
    "renorm_momentum": "write tfbn.BatchRenorm(renorm_decay={value!r}).",
    "eps": "it is called epsilon. Write {name}(epsilon={value!r}).",
    "axes": "it is called axis, and may be a list. Write {name}(axis={value!r}).",
    "is_training": "pass training= in the call, and trainable=False to freeze the layer.",
    "virtual_batch_size": "a batch is normalised whole. Pass smaller batches.",
    "fused": "the fastest kernel is taken by itself. Leave it out.",
}


def refuse_keras_arguments(name: str, arguments: Mapping[str, Any]) -> None:
    """Raise TypeError for an argument of Keras' layer that the class `name` does not have."""
    for argument, remedy in KERAS_ARGUMENTS.items():
        if argument in arguments:
            value = arguments[argument]
            raise TypeError(
                f"{name} has no argument {argument!r} (received {value!r}): "
                f"{remedy.format(name=name, value=value)}"
            )


def name_what_is_meant(layer: type, arguments: Mapping[str, Any]) -> None:
    """Raise TypeError for the first of the arguments that nearly is one of the layer's class.

    For those of which one was refused: another class that the layer's inherits may take them.
    """
    kinds = (Parameter.POSITIONAL_OR_KEYWORD, Parameter.KEYWORD_ONLY)
    makers = [vars(base)["__init__"] for base in layer.__mro__ if "__init__" in vars(base)]
    parameters = [each for maker in makers for each in signature(maker).parameters.values()]
    known = {parameter.name for parameter in parameters if parameter.kind in kinds} - {"self"}
    for argument, value in arguments.items():
        for meant in [] if argument in known else get_close_matches(argument, sorted(known), 1):
            raise TypeError(
                f"{layer.__name__} has no argument {argument!r} (received {value!r}). "
                f"Write {meant}=, if that is meant."
            ) from None


def valid_axis(axis: Any) -> int | list[int]:
    def is_integer(value: Any) -> bool:
        return hasattr(value, "__index__") and not isinstance(value, bool)

    if isinstance(axis, np.ndarray):
        axis = axis.tolist()
    if is_integer(axis):
        return int(axis)
    if isinstance(axis, Sequence) and axis and all(map(is_integer, axis)):
        return [int(number) for number in axis]
    raise TypeError(
        f"axis must be an integer or a sequence of integers, received {axis!r}. Pass -1 for "
        "channels last, 1 for channels first."
    )


def valid_number(name: str, value: Any, low: float = 0.0, high: float = math.inf) -> float:
    """`value` as a float between `low` and `high`, or an error that names it."""
    bounds = f"between {low:g} and {high:g}" if high < math.inf else f"at least {low:g}"
    if isinstance(value, (bool, str)) or not hasattr(value, "__float__"):
        raise TypeError(f"{name} must be a number {bounds}, received {value!r}.")
    number = float(value)
    if not low <= number <= high or math.isinf(number):
        raise ValueError(f"{name} must be a number {bounds}, received {value!r}.")
    return number


def valid_flag(name: str, value: Any) -> bool:
    if not isinstance(value, (bool, np.bool_)):
        raise TypeError(f"{name} must be True or False, received {value!r}.")
    return bool(value)
