"""What a source serves, whatever it was: functions of named tensors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import tensorflow as tf

PREDICT = "tensorflow/serving/predict"


@dataclass(frozen=True)
class Signatures:
    """Functions of named tensors, by the names of their signatures.

    Attributes:
        name: what messages call the source.
        functions: concrete functions that take named tensors and return a dictionary.
        holder: what has their tables and files.
        methods: the method names that TensorFlow Serving finds them by, where they are not `PREDICT`.
    """

    name: str
    functions: Mapping[str, Any]
    holder: Any = None
    methods: Mapping[str, str] = field(default_factory=dict)

    def method(self, name: str) -> str:
        """The method name of a signature."""
        return self.methods.get(name) or PREDICT


def chosen(signatures: Signatures, names: Sequence[str] | None) -> Signatures:
    """Some of the functions; all of them without `names`.

    Raises:
        ValueError: there is none of a name.
    """
    if names is None:
        return signatures
    if missing := [name for name in names if name not in signatures.functions]:
        raise ValueError(
            f"{signatures.name} has no signature {', '.join(map(repr, missing))}; it has "
            f"{', '.join(map(repr, signatures.functions))}."
        )
    return replace(signatures, functions={name: signatures.functions[name] for name in names})


def inputs_of(function: Any) -> dict[str, tf.TensorSpec]:
    """The named inputs of a function of `Signatures`, each under the name that it is called by."""
    named = function.structured_input_signature[1]
    return {name: tf.TensorSpec(spec.shape, spec.dtype, name) for name, spec in named.items()}


def of_named(function: Any, specs: Mapping[str, tf.TensorSpec]) -> Any:
    """A Python function of named tensors, traced; `specs` have their names, too."""

    def serve(**named: tf.Tensor) -> dict[str, tf.Tensor]:
        # TensorFlow calls it by other names where those, `image/encoded`, are none for Python.
        told = (tensor.op.get_attr("_user_specified_name").decode() for tensor in named.values())
        outputs: dict[str, tf.Tensor] = function(**dict(zip(told, named.values(), strict=True)))
        return outputs

    return tf.function(serve, autograph=False).get_concrete_function(**specs)
