"""What many layers compute alike, traced once and called in each graph.

To trace the operations of a batch norm takes Python 50 to 150 ms, a call of a traced function some 10: a
network has a hundred layers of a dozen shapes. TensorFlow inlines the calls.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any

import tensorflow as tf

from .flat import Kind

MOST_SHAPES = 2**9  # kept, the last used


class TracedOnce:
    """A `flat.Kind` that is traced once for each shape.

    Args:
        kind: makes it for an epsilon and a channel axis.
    """

    def __init__(self, kind: Callable[[float, int], Kind], epsilon: float, channel: int) -> None:
        self._made_by = kind, epsilon, channel

    def forward(self, x: tf.Tensor, beta: tf.Tensor, gamma: tf.Tensor) -> tuple[tf.Tensor, ...]:
        return self._functions(x)[0](x, beta, gamma)

    def backward(
        self, x: tf.Tensor, gamma: tf.Tensor, dy: tf.Tensor, *upstream_and_known: tf.Tensor | None
    ) -> tuple[tf.Tensor, ...]:
        return self._functions(x)[1](x, gamma, dy, *upstream_and_known)

    def _functions(self, x: tf.Tensor) -> tuple[Callable[..., Any], Callable[..., Any]]:
        return _functions(*self._made_by, tuple(x.shape.as_list()), x.dtype)


@lru_cache(MOST_SHAPES)
def _functions(
    kind: Callable[[float, int], Kind], epsilon: float, channel: int, *shape_and_dtype: Any
) -> tuple[Callable[..., Any], Callable[..., Any]]:
    """Of one shape: TensorFlow warns of functions that it traces for one shape after the other."""
    del shape_and_dtype
    return functions_of(kind(epsilon, channel))


def functions_of(
    kind: Kind, jit_compile: bool | None = None
) -> tuple[Callable[..., Any], Callable[..., Any]]:
    """Forward and backward as functions that are traced when first called."""
    forward, backward = (
        tf.function(method, jit_compile=jit_compile, autograph=False)
        for method in (kind.forward, kind.backward)
    )
    return forward, backward
