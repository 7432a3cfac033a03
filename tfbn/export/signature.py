"""Names, shapes and types of what the SavedModel takes and returns."""

from __future__ import annotations

import keyword
import re
from collections.abc import Mapping, Sequence
from typing import Any

import keras
import tensorflow as tf

from ..cloning import AUTOMATIC_NAME, declared_inputs, has_readable_graph
from .report import Specification

NAME = "serving_default"
NAME_OF_INPUT = re.compile("(?!self$)[A-Za-z][A-Za-z0-9_]*")


def specification(model: keras.Model, inputs: Any, chosen: Sequence[str] | None = None) -> Any:
    """The signature's inputs: named, with a free batch size, structured as the model's.

    Args:
        chosen: their names, in the model's order.

    Raises:
        ValueError: other numbers of names than of inputs, or names that TensorFlow cannot have.
    """
    tensors = declared_inputs(model) if has_readable_graph(model) else inputs
    several = len(tf.nest.flatten(tensors)) > 1
    names: list[str] = []
    if chosen is not None:
        _check_names(chosen, len(tf.nest.flatten(tensors)))
        ready = iter(chosen)
        return tf.nest.map_structure(
            lambda one: tf.TensorSpec((None, *one.shape[1:]), one.dtype, name=next(ready)), tensors
        )

    def specify(tensor: Any) -> tf.TensorSpec:
        name = getattr(tensor, "name", None)
        if name is None or AUTOMATIC_NAME.fullmatch(name):
            name = f"inputs_{len(names)}" if several else "inputs"
        # TensorFlow makes them Python arguments, and compares them without regard to case.
        name = re.sub(r"\W", "_", name, flags=re.ASCII)
        if not re.match("[A-Za-z]", name) or keyword.iskeyword(name) or name == "self":
            name = f"input_{name}"
        while name.lower() in map(str.lower, names):
            name = f"{name}_{len(names)}"
        names.append(name)
        return tf.TensorSpec((None, *tensor.shape[1:]), tensor.dtype, name=name)

    return tf.nest.map_structure(specify, tensors)


def _check_names(names: Sequence[str], inputs: int) -> None:
    texts = not isinstance(names, str) and all(isinstance(one, str) for one in names)
    if not texts or len(names) != inputs:
        raise ValueError(
            f"input_names must be {inputs} name{'s' * (inputs > 1)}, one for each input of the model, "
            f"received {names!r}."
        )
    bad = [one for one in names if not NAME_OF_INPUT.fullmatch(one) or keyword.iskeyword(one)]
    if bad or len({one.lower() for one in names}) < len(names):
        raise ValueError(
            "input_names must be distinct without regard to case, of letters, digits and _, and no "
            f"words of Python's own, received {list(names)!r}."
        )


def flat(outputs: Any, name: str = "") -> dict[str, tf.Tensor]:
    """Outputs by name, as Keras and TensorFlow name them; deeper ones by their path, `y_0`."""
    if isinstance(outputs, Mapping):
        parts = [(f"{name}_{key}" if name else str(key), one) for key, one in outputs.items()]
    elif isinstance(outputs, (list, tuple)):
        parts = [(f"{name or 'output'}_{number}", one) for number, one in enumerate(outputs)]
    else:
        return {name or "output_0": outputs}
    return {path: leaf for key, one in parts for path, leaf in flat(one, key).items()}


def described(tensors: dict[str, tf.TensorSpec]) -> Specification:
    """Shape and type by name."""
    return {name: (tuple(one.shape), one.dtype.name) for name, one in sorted(tensors.items())}
