"""Shapes as TensorFlow 1 had them, `x.shape[1].value`, while its code is traced."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import tensorflow as tf


@contextmanager
def sizes_as_dimensions(wanted: bool, layer: str) -> Iterator[None]:
    """In the block the sizes of shapes are `Dimension`s, if wanted.

    Raises:
        ValueError: the code in the layer wants them, and they are plain numbers.
    """
    plain = isinstance(tf.TensorShape([1])[0], int)
    if wanted and plain:
        tf.compat.v1.disable_v2_tensorshape()
    try:
        yield
    except AttributeError as error:
        if plain and not wanted and str(error).endswith("object has no attribute 'value'"):
            raise ValueError(
                f"The code in {layer!r} reads sizes of shapes as TensorFlow 1 had them, "
                "x.shape[1].value. Pass v1_shapes=True to VariableScopeLayer."
            ) from error
        raise
    finally:
        if wanted and plain:
            tf.compat.v1.enable_v2_tensorshape()
