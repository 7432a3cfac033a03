"""How many layers and shapes have code of their own in a graph."""

from __future__ import annotations

from collections.abc import Hashable
from weakref import WeakKeyDictionary

import tensorflow as tf

from . import runtime

ROOM = 6

_taken: WeakKeyDictionary[tf.Graph, set[Hashable]] = WeakKeyDictionary()


def finds_room(what: Hashable | None = None) -> bool:
    """Whether the graph that is being built has room for that beside others; then it takes room.

    A graph has room for the first ones, which in most networks are those of the largest images, where
    most is gained. Each takes 0.3 to 0.5 s in the first step. A function that TensorFlow traced in
    another graph stays as it is in this one.

    Args:
        what: what asks again with the same has its room already; `None` for one that is no other's.
    """
    what = object() if what is None else what
    taken = _taken.setdefault(runtime.outermost_graph(), set())
    if len(taken) < ROOM:
        taken.add(what)
    return what in taken
