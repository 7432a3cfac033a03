"""How many layers and shapes have code of their own in a graph."""

from __future__ import annotations

from collections.abc import Hashable
from weakref import WeakKeyDictionary

import tensorflow as tf

from . import runtime

ROOM = 6
SHARE_OF_SMALL = 1 / 2

_taken: WeakKeyDictionary[tf.Graph, set[Hashable]] = WeakKeyDictionary()


def finds_room(what: Hashable | None = None, small: bool = False) -> bool:
    """Whether the graph that is being built has room for that beside others; then it takes room.

    A graph has room for the first ones, which in most networks are those of the largest images, where
    most is gained. Each takes 0.2 to 0.5 s in the first step, which of small images takes few seconds.
    A function that TensorFlow traced in another graph stays as it is in this one.

    Args:
        what: what asks again with the same has its room already; `None` for one that is no other's.
        small: whether samples are, for which there is less room, beside large ones and others.
    """
    what = object() if what is None else what
    taken = _taken_here()
    if has_room(small):
        taken.add(what)
    return what in taken


def has_room(small: bool = False) -> bool:
    """Whether another one would find room, for what takes next to none."""
    return len(_taken_here()) < (SHARE_OF_SMALL if small else 1) * ROOM


def _taken_here() -> set[Hashable]:
    """In the graph that is being built."""
    return _taken.setdefault(runtime.outermost_graph(), set())
