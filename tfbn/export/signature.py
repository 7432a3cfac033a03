"""Names, shapes and types of what an exported model takes and returns."""

from __future__ import annotations

import keyword
import re
from collections.abc import Mapping, Sequence
from typing import Any

import tensorflow as tf

from ..declared_graph import AUTOMATIC_NAME
from .report import SpecsByName

NAME_OF_INPUT = re.compile("(?!self$)[A-Za-z][A-Za-z0-9_]*")


def input_specs(tensors: Any, chosen: Sequence[str] | None = None) -> Any:
    """A named `tf.TensorSpec` with a free batch size for each input, structured as the inputs are.

    Args:
        tensors: the inputs: what a model declares, or arrays that it takes.
        chosen: their names, in the order of `tensors`; by default those that they have themselves.

    Raises:
        ValueError: other numbers of names than of inputs, or names that TensorFlow cannot have.
    """
    inputs = tf.nest.flatten(tensors)
    if chosen is None:
        names = own_names(inputs)
    else:
        _check_names(chosen, len(inputs))
        names = list(chosen)
    specs = [
        tf.TensorSpec((None, *tensor.shape[1:]), tensor.dtype, name=name)
        for tensor, name in zip(inputs, names, strict=True)
    ]
    return tf.nest.pack_sequence_as(tensors, specs)


def own_names(inputs: Sequence[Any]) -> list[str]:
    """The names of tensors as those of inputs.

    TensorFlow makes them Python arguments, and compares them without regard to case.
    """
    names: list[str] = []
    for tensor in inputs:
        name = getattr(tensor, "name", None)
        if name is None or AUTOMATIC_NAME.fullmatch(name):
            name = f"inputs_{len(names)}" if len(inputs) > 1 else "inputs"
        name = re.sub(r"\W", "_", name, flags=re.ASCII)
        if not re.match("[A-Za-z]", name) or keyword.iskeyword(name) or name == "self":
            name = f"input_{name}"
        while name.lower() in map(str.lower, names):
            name = f"{name}_{len(names)}"
        names.append(name)
    return names


def _check_names(names: Sequence[str], inputs: int) -> None:
    texts = not isinstance(names, str) and all(isinstance(name, str) for name in names)
    if not texts or len(names) != inputs:
        raise ValueError(
            f"input_names must be {inputs} name{'s' * (inputs > 1)}, one for each input of the model, "
            f"received {names!r}."
        )
    bad = [name for name in names if not NAME_OF_INPUT.fullmatch(name) or keyword.iskeyword(name)]
    if bad or len({name.lower() for name in names}) < len(names):
        raise ValueError(
            "input_names must be distinct without regard to case, of letters, digits and _, and no "
            f"words of Python's own, received {list(names)!r}."
        )


def outputs_by_name(outputs: Any, name: str = "") -> dict[str, tf.Tensor]:
    """Outputs as Keras and TensorFlow name them; deeper ones by their path, `y_0`."""
    if isinstance(outputs, Mapping):
        parts = [(f"{name}_{key}" if name else str(key), part) for key, part in outputs.items()]
    elif isinstance(outputs, (list, tuple)):
        parts = [(f"{name or 'output'}_{number}", part) for number, part in enumerate(outputs)]
    else:
        return {name or "output_0": outputs}
    return {path: leaf for key, part in parts for path, leaf in outputs_by_name(part, key).items()}


def specs_by_name(tensors: dict[str, tf.TensorSpec]) -> SpecsByName:
    """Shape and type by name; of an unknown rank `(None,)`."""
    return {
        name: (tuple(spec.shape) if spec.shape.rank is not None else (None,), spec.dtype.name)
        for name, spec in sorted(tensors.items())
    }
