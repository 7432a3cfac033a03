"""tfbn.fold on random graphs: whatever is built, the folded model is the same function."""

import keras
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import reference
import tfbn
from networks import outputs, relative_difference
from random_graphs import Builder, drawn, randomize_as_drawn
from random_layers import batch_norms_in_chains
from sweeps import some
from tfbn.batch_norms import batch_norms

# Folding is exact but for rounding, which a graph may make larger by cancelling: in float64 a wrong rule
# stands out at 1e-8 whatever the graph. float16 has 11 bits: there ten layers' rounding is compared.
TOLERANCES = {"float64": 1e-8, "mixed_float16": 0.1}


# What is drawn, the policy, whether channels come first, how many graphs. Many and small, so that both
# workers have some to the end. Of channels that come first XLA compiles each convolution, which takes
# four times as long.
FIRST = range(1, 10, 2)
SHARDS = [(shard, "float64", shard in FIRST, 15 if shard in FIRST else 50) for shard in range(10)]
SHARDS += [(shard, "mixed_float16", False, 50) for shard in range(10, 15)]
SHARDS += [(shard, "float64", True, 50) for shard in FIRST]
SHARDS = some(SHARDS, [*SHARDS[:2], SHARDS[10]])


CUSTOM = [(15, "float64"), (16, "mixed_float16")]


def check_folded(model, policy):
    """Fold a model, compare it with what comes out, and return the report."""
    folded, report = tfbn.fold(model)
    x = reference.data((3, *model.inputs[0].shape[1:]))
    for got, want in zip(outputs(folded, x), outputs(model, x), strict=True):
        if np.abs(want).max() > 0:
            assert relative_difference(got, want) < TOLERANCES[policy], str(report)
        else:
            np.testing.assert_array_equal(got, want)
    assert len(batch_norms(folded)) == len(report.kept)
    assert [entry.path for entry in report.entries] == list(batch_norms(model))
    return report


@pytest.mark.parametrize("case", SHARDS)
def test_random_graphs_fold_to_the_same_function(case):
    shard, policy, first, examples = case
    found = {"folded": 0, "all": 0}

    @drawn(examples, shard)
    @given(st.data(), st.integers(0, 3))
    def run(data, number):
        keras.config.set_dtype_policy(policy)
        model = randomize_as_drawn(Builder(data, first).model(), number)
        report = check_folded(model, policy)
        found["folded"] += len(report.folded)
        found["all"] += len(report.entries)

    run()
    assert found["folded"] > found["all"] / 4  # else the graphs would show nothing


@pytest.mark.parametrize("case", some(CUSTOM, CUSTOM[:1]))
def test_random_graphs_with_custom_layers_fold_to_the_same_function(case):
    shard, policy = case
    found = {"folded": 0, "all": 0}

    @drawn(30, shard)
    @given(st.data(), st.integers(0, 3))
    def run(data, number):
        keras.config.set_dtype_policy(policy)
        model = randomize_as_drawn(Builder(data, first=False, custom=True).model(), number)
        report = check_folded(model, policy)
        inside = batch_norms_in_chains(model)
        found["folded"] += sum(entry.path in inside for entry in report.folded)
        found["all"] += len(inside)

    run()
    assert found["folded"] > found["all"] / 4, found
