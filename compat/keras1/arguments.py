"""Arguments of Keras 1's layers that Keras 3 has otherwise."""

from __future__ import annotations

from typing import Any

import numpy as np


def valid_weights(weights: Any) -> tuple[np.ndarray, ...]:
    """The initial weights as arrays; none of them for `None`."""
    if weights is None:
        return ()
    if not isinstance(weights, (list, tuple)) or len(weights) not in (2, 4):
        raise ValueError(
            "weights must be a list [gamma, beta] or [gamma, beta, running_mean, running_std], received "
            f"{weights!r}."
        )
    return tuple(np.asarray(array) for array in weights)


def input_arguments(kwargs: dict[str, Any]) -> tuple[tuple[int | None, ...] | None, Any]:
    """Keras 1's arguments for a first layer, taken out: the shape with the batch axis, and the type."""
    names = ("batch_input_shape", "input_shape", "input_dim", "input_dtype")
    whole, shape, size, dtype = (kwargs.pop(name, None) for name in names)
    for name, value in zip(names, (whole, shape), strict=False):
        if value is not None and not isinstance(value, (list, tuple)):
            raise TypeError(
                f"{name} must be a tuple of integers, received {value!r}. Write ({value!r},)."
            )
    if whole is None and shape is None and size is not None:
        shape = (size,)
    if whole is None and shape is not None:
        whole = (None, *shape)
    return None if whole is None else tuple(whole), dtype
