"""Sums that keep their digits, however many values there are."""

from __future__ import annotations

import math
from collections.abc import Sequence

import tensorflow as tf

from . import runtime
from .axes import known_shape

BLOCK = 128  # values added up in their own type before float64 takes over
XLA_BLOCK = 1024  # the same of long sums where XLA compiles
PARTS = 8  # of an axis, added up first where XLA compiles
LONG = 2**11  # values of a sum; eight times as many that are alike XLA adds up with an error of 5e-5


def exact_sum(x: tf.Tensor, axes: tuple[int, ...], dtype: tf.DType | None = None) -> tf.Tensor:
    """Sum over `axes`, in `x`'s type unless `dtype` is another, and with its digits.

    TensorFlow adds a column of 100 000 float32 values one after the other, on a CPU, with a relative
    error of 1e-5 to 1e-4. Here parts are summed in `x`'s type, and the parts' sums in float64:

    * blocks of the last axis as a rule, with an error of 1e-7, at the cost of one sum;
    * where XLA surely compiles, all axes but the first unless they are long, with an error of 1e-6, for
      it would make two loops with strides of blocks. It merges consecutive sums into one, with the loss,
      unless their types differ.

    A GPU adds up pairs of pairs, and float64 is slow there.
    """
    xla = runtime.surely_inside_xla()
    if runtime.has_gpu():
        return tf.cast(tf.reduce_sum(x, axes), dtype or x.dtype)
    if not xla:
        total = _sum_by_blocks(x, axes, BLOCK)
    elif len(axes) > 1:
        first, *others = sorted(axes)
        total = tf.reduce_sum(sum_each(x, others), first)
    else:
        total = sum_each(x, axes)
    return tf.cast(total, dtype or x.dtype)


def sum_each(x: tf.Tensor, axes: Sequence[int]) -> tf.Tensor:
    """Sum over all axes of a sample, where XLA compiles, as float64.

    Where XLA's code for a CPU computes values in the loop that sums them, it takes one after another, a
    stride apart. A sum of tensors it vectorises. So the parts of an axis are added up first, in a third
    of the time; fewer or more than eight are slower.
    """
    if not axes:
        return tf.cast(x, tf.float64)
    longest = max(axes, key=lambda axis: x.shape.as_list()[axis] or 0)
    parts = [_sum_wide(part, axes) for part in _added_parts(x, longest)]
    return tf.add_n(parts) if len(parts) > 1 else parts[0]


def _sum_wide(x: tf.Tensor, axes: Sequence[int]) -> tf.Tensor:
    sizes = [x.shape.as_list()[axis] for axis in axes]
    if None in sizes or math.prod(sizes) > LONG:
        return _sum_by_blocks(x, axes, XLA_BLOCK)
    return tf.cast(tf.reduce_sum(x, axes), tf.float64)


def _added_parts(x: tf.Tensor, axis: int) -> list[tf.Tensor]:
    """The sum of `PARTS` parts of an axis and, if anything is left over, that."""
    size = x.shape.as_list()[axis]
    if size is not None and size < PARTS // 2:
        return [x]
    if size is None:
        size, number = tf.shape(x)[axis], PARTS
    else:
        number = next((n for n in range(PARTS, PARTS // 2, -1) if size % n == 0), min(PARTS, size))
    length = size // number
    *parts, rest = tf.split(x, [*[length] * number, size - length * number], axis)
    return [tf.add_n(parts), *([rest] if rest.shape.as_list()[axis] != 0 else [])]


def _sum_by_blocks(x: tf.Tensor, axes: Sequence[int], block: int) -> tf.Tensor:
    for number, axis in enumerate(sorted(axes, reverse=True)):
        x = tf.reduce_sum(x, axis) if number else _sum_blocks(x, axis, block)
    return x


def _sum_blocks(x: tf.Tensor, axis: int, block: int) -> tf.Tensor:
    """Sum over one axis, as float64; block by block where the axis is longer than a block."""
    size = x.shape.as_list()[axis]
    if size is not None and size <= block:
        return tf.cast(tf.reduce_sum(x, axis), tf.float64)
    alike = None if size is None else _length_of_equal_blocks(size, block)
    if alike is not None:
        return _sum_equal_blocks(x, axis, alike)
    full = tf.shape(x)[axis] // block * block
    head, tail = tf.split(x, [full, tf.shape(x)[axis] - full], axis, num=2)  # copies both
    return _sum_equal_blocks(head, axis, block) + tf.cast(tf.reduce_sum(tail, axis), tf.float64)


def _length_of_equal_blocks(size: int, most: int) -> int | None:
    """The greatest that divides the size of an axis and is no shorter than a quarter of `most`."""
    return next((length for length in range(most, most // 4 - 1, -1) if size % length == 0), None)


def _sum_equal_blocks(x: tf.Tensor, axis: int, length: int) -> tf.Tensor:
    sizes = x.shape.as_list()
    blocks = None if sizes[axis] is None else sizes[axis] // length
    parts = known_shape([*sizes[:axis], blocks, length, *sizes[axis + 1 :]])
    if parts is None:
        shape = tf.shape(x)
        parts = tf.concat([shape[:axis], [shape[axis] // length, length], shape[axis + 1 :]], 0)
    return tf.reduce_sum(tf.cast(tf.reduce_sum(tf.reshape(x, parts), axis + 1), tf.float64), axis)
