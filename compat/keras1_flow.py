"""Whether two Keras tensors are one data flow: the same computation of the same inputs of a model."""

from __future__ import annotations

import keras


def same_flow(one: keras.KerasTensor, other: keras.KerasTensor) -> bool:
    """Whether the same layers made two Keras tensors, on the same way from the same inputs.

    A Sequential model calls all its layers again each time that one is added: what they make then is
    another tensor, and the same flow.

    Private Keras API, used here only: which call made a Keras tensor has no public name
    (`keras.utils.get_source_inputs` takes time exponential in the number of branches).
    `tests/compat/keras1/test_layer.py` fails by name when it moves.
    """
    todo, seen = [(one, other)], set()
    while todo:
        pair = todo.pop()
        if pair[0] is pair[1] or (key := (id(pair[0]), id(pair[1]))) in seen:
            continue
        seen.add(key)
        (layer, call, output), (other_layer, other_call, other_output) = (
            tensor._keras_history for tensor in pair
        )
        if layer is not other_layer or output != other_output:
            return False
        sources, other_sources = (
            layer._inbound_nodes[number].input_tensors for number in (call, other_call)
        )
        if len(sources) != len(other_sources):
            return False
        todo += zip(sources, other_sources, strict=True)
    return True
