"""Random Keras models by both front ends: the same function, and in graphs no more batch norms stay."""

import re

import keras
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given
from hypothesis import strategies as st

import reference
import tfbn
from frozen_graphs import frozen, kinds, run
from networks import outputs, relative_difference
from random_graphs import Builder, drawn, randomize_as_drawn
from sweeps import some
from tfbn.folding.graphdef import fold_graph

# As in test_property: a wrong rule stands out whatever the graph cancels.
TOLERANCES = {"float64": 1e-8, "float32": 1e-3}


def both(model, dtype="float64"):
    """Both front ends' reports, once what they make is compared with what the graph was."""
    x = reference.data((3, *model.inputs[0].shape[1:]), dtype=dtype)
    call = lambda given: tf.nest.flatten(model(given, training=False))  # noqa: E731
    graph = frozen(call, tf.TensorSpec((None, *x.shape[1:]), dtype))
    new, in_graph = fold_graph(*graph)
    folded, in_keras = tfbn.fold(model)
    wanted, got = (run(definition, *graph[1:], [x]) for definition in (graph[0], new))
    for found, other, want in zip(got, outputs(folded, x), wanted, strict=True):
        assert found.dtype == want.dtype
        if np.abs(want).max() > 0:
            assert relative_difference(found, want) < TOLERANCES[dtype], str(in_graph)
            assert relative_difference(found, other) < TOLERANCES[dtype], f"{in_graph}\n{in_keras}"
        else:
            np.testing.assert_array_equal(found, want)
    # Keras compiles grouped convolutions apart, by a call that is not inlined.
    opaque = any("PartitionedCall" in op for op in kinds(graph[0]).values())
    return in_graph, in_keras, opaque


def layers_left(in_graph, in_keras):
    """The layers whose batch norms stay: one called twice is in the graph twice, two in a row once.

    Keras' scopes are the layers' names and the number of the call.
    """
    layers = {entry.path.split("/")[-1] for entry in in_keras.entries}
    scopes = [entry.path.split("/") for entry in in_graph.kept]
    found = [{re.sub(r"_\d+$", "", scope) for scope in path} & layers for path in scopes]
    assert all(len(names) == 1 for names in found), scopes
    return set().union(*found)


# float64's batch norms are chains of products and sums; float32's are fused.
SHARDS = [(0, "float64"), (1, "float64"), (2, "float32")]


@pytest.mark.parametrize("case", some(SHARDS, SHARDS[1:]))
def test_random_graphs_are_the_same_function_by_both_front_ends(case):
    shard, dtype = case
    found = {"folded": 0, "all": 0, "compared": 0}

    @drawn(25, shard + 100)
    @given(st.data(), st.integers(0, 3))
    def run_one(data, number):
        keras.config.set_dtype_policy(dtype)
        model = randomize_as_drawn(Builder(data, first=False).model(), number)
        in_graph, in_keras, opaque = both(model, dtype)
        found["folded"] += len(in_graph.folded)
        found["all"] += len(in_graph.entries)
        if not opaque:
            found["compared"] += 1
            left = layers_left(in_graph, in_keras)
            assert len(left) <= len(in_keras.kept), f"{in_graph}\n{in_keras}"

    run_one()
    assert found["folded"] > found["all"] / 4
    assert found["compared"] >= 12
