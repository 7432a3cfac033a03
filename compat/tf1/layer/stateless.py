"""`stateless_call`: TF1 code, which reads and assigns variables, as a function of their values."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import tensorflow as tf


def with_values(
    run: Callable[..., list[tf.Tensor]],
    tensors: Sequence[tf.Tensor],
    variables: Sequence[tf.Variable],
    values: Sequence[Any],
) -> tuple[list[tf.Tensor], list[tf.Tensor]]:
    """What `run` gives where the variables have other values, and their values afterwards.

    The variables themselves are as they were. Gradients reach the values, once: not their gradients.
    """
    count = len(tensors)

    @tf.custom_gradient
    def computed(*given: tf.Tensor) -> tuple[list[tf.Tensor], Callable[..., Any]]:
        before = [tf.identity(variable) for variable in variables]
        _assign(variables, given[count:])
        with tf.GradientTape() as tape:
            tape.watch(given[:count])
            tape.watch(list(variables))
            results = list(run(*given[:count]))
        after = [tf.identity(variable) for variable in variables]
        _assign(variables, before)

        def gradients(*slopes: tf.Tensor, variables: Any = ()) -> Any:
            sources = [*given[:count], *watched]
            found = tape.gradient(results, sources, output_gradients=list(slopes[: len(results)]))
            return found, [None] * len(variables)

        return [*results, *after], gradients

    watched = list(variables)
    outputs = computed(*tensors, *map(tf.convert_to_tensor, values))
    return outputs[: -len(variables)], outputs[-len(variables) :]


def _assign(variables: Sequence[tf.Variable], values: Sequence[tf.Tensor]) -> None:
    for variable, value in zip(variables, values, strict=True):
        variable.assign(tf.cast(value, variable.dtype))
