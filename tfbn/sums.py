"""Sums that keep their digits, however many values there are."""

from __future__ import annotations

import tensorflow as tf

BLOCK = 128  # values added up in their own type before float64 takes over


def blocked_sum(x: tf.Tensor, axes: tuple[int, ...]) -> tf.Tensor:
    """Sum over `axes`: a block of the innermost in `x`'s type, the blocks and the rest in float64.

    TensorFlow adds a column of 100 000 float32 values one after the other, and errs by 1e-5 to 1e-4;
    XLA does so over several axes at once, but does not join sums of different types. This way the
    error is that of one block, 1e-7, at the price of the one sum.
    """
    dtype = x.dtype
    for number, one in enumerate(sorted(axes, reverse=True)):
        x = tf.reduce_sum(x, one) if number else _sum_blocks(x, one)
    return tf.cast(x, dtype)


def _sum_blocks(x: tf.Tensor, axis: int) -> tf.Tensor:
    """Sum over one axis, as float64: of its blocks where it is longer than one."""
    size = x.shape.as_list()[axis]
    if size is not None and size <= BLOCK:
        return tf.cast(tf.reduce_sum(x, axis), tf.float64)
    shape = tf.shape(x)
    before, after = shape[:axis], shape[axis + 1 :]
    full = shape[axis] // BLOCK
    head, tail = tf.split(x, [full * BLOCK, shape[axis] - full * BLOCK], axis, num=2)
    blocks = tf.reshape(head, tf.concat([before, [full, BLOCK], after], 0))
    sums = tf.cast(tf.reduce_sum(blocks, axis + 1), tf.float64)
    return tf.reduce_sum(sums, axis) + tf.cast(tf.reduce_sum(tail, axis), tf.float64)
