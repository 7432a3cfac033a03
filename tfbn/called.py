"""A kind as two functions for all layers, whatever their shapes, which TensorFlow calls.

Inlined, some are hundreds of operations a layer, which TensorFlow optimises in the first step, at 3000 a
second. A call takes 0.05 to 0.2 ms, at each step.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import tensorflow as tf

from .flat import Kind, shaped_as, values_of

NOT_INLINED = {"_noinline": True}
CHANNELS = tf.TensorSpec([None])


class Called:
    """A `flat.Kind` of tensors whose channels are last.

    Args:
        kind: makes what is called for an epsilon and a channel axis; of tensors of unknown shapes.
    """

    def __init__(self, kind: Callable[[float, int], Kind], epsilon: float) -> None:
        self._made_by = kind, epsilon

    def forward(self, x: tf.Tensor, beta: tf.Tensor, gamma: tf.Tensor) -> tuple[tf.Tensor, ...]:
        y, mean, variance, *known = _forward(*self._made_by, x.dtype)(values_of(x), beta, gamma)
        return shaped_as(y, x), _of_channels(mean, x), _of_channels(variance, x), *known

    def backward(
        self, x: tf.Tensor, gamma: tf.Tensor, dy: tf.Tensor, *upstream_and_known: tf.Tensor | None
    ) -> tuple[tf.Tensor, ...]:
        given = [tensor for tensor in upstream_and_known if tensor is not None]
        backward = _backward(*self._made_by, x.dtype, len(given) == len(upstream_and_known))
        dx, dbeta, dgamma = backward(values_of(x), gamma, values_of(dy), *given)
        return shaped_as(dx, x), _of_channels(dbeta, x), _of_channels(dgamma, x)


@cache
def _forward(kind: Callable[[float, int], Kind], epsilon: float, dtype: tf.DType) -> Any:
    return _function(kind(epsilon, 1).forward, [_spec_of_values(dtype), CHANNELS, CHANNELS])


@cache
def _backward(
    kind: Callable[[float, int], Kind], epsilon: float, dtype: tf.DType, of_moments: bool
) -> Any:
    """Of the moments' slopes, too, or without them."""
    forward = _forward(kind, epsilon, dtype).get_concrete_function()
    known = [tf.TensorSpec(each.shape, each.dtype) for each in forward.structured_outputs[3:]]
    none, slopes = ([], [CHANNELS] * 2) if of_moments else ([None] * 2, [])

    def backward(x: tf.Tensor, gamma: tf.Tensor, dy: tf.Tensor, *given: tf.Tensor) -> tuple[Any, ...]:
        return kind(epsilon, 1).backward(x, gamma, dy, *none, *given)

    values = _spec_of_values(dtype)
    return _function(backward, [values, CHANNELS, values, *slopes, *known])


def _function(function: Callable[..., Any], signature: list[tf.TensorSpec]) -> Any:
    return tf.function(
        function, input_signature=signature, autograph=False, experimental_attributes=NOT_INLINED
    )


def _spec_of_values(dtype: tf.DType) -> tf.TensorSpec:
    return tf.TensorSpec([None, None], dtype)


def _of_channels(values: tf.Tensor, x: tf.Tensor) -> tf.Tensor:
    """With their number, which the function does not know."""
    values.set_shape(x.shape[-1:])
    return values
