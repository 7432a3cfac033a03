"""What a graph has room for: the first ones."""

import pytest
import tensorflow as tf

from tfbn import room

pytestmark = pytest.mark.both


def found(*asked, small=False):
    """What is found, in a graph of its own."""
    answers = []

    @tf.function(autograph=False)
    def build():
        answers.extend(room.finds_room(what, small) for what in asked)

    build.get_concrete_function()
    return answers


def test_the_first_ones_find_room(monkeypatch):
    """One that asks again is no other; graphs have rooms of their own."""
    monkeypatch.setattr(room, "ROOM", 2)
    assert found("a", "b", "a", "c", "b") == [True, True, True, False, True]
    assert found("c", "a") == [True, True]


def test_what_has_no_name_is_no_other_s(monkeypatch):
    monkeypatch.setattr(room, "ROOM", 3)
    assert found(None, "a", None, None, "a", "b") == [True, True, True, False, True, False]


def test_functions_that_are_traced_inside_share_the_graph_s_room(monkeypatch):
    monkeypatch.setattr(room, "ROOM", 1)
    answers = []

    @tf.function(autograph=False)
    def build(x):
        answers.append(room.finds_room("a"))
        return tf.cond(x > 0, lambda: (answers.append(room.finds_room("b")), x)[1], lambda: x)

    build.get_concrete_function(tf.TensorSpec([]))
    assert answers == [True, False]


def test_small_ones_find_less(monkeypatch):
    """They leave half to others, and what asks whether there is any takes none."""
    monkeypatch.setattr(room, "ROOM", 4)
    answers = []

    @tf.function(autograph=False)
    def build():
        answers.append(room.has_room(small=True))
        answers.extend(room.finds_room(what, small=True) for what in "abca")
        answers.append(room.has_room(small=True))
        answers.extend(room.finds_room(what) for what in "cde")

    build.get_concrete_function()
    assert answers == [True, True, True, False, True, False, True, True, False]
    assert found("a", "b", "c", small=True) == [True, True, False]
