"""Channels-first random graphs turned to channels last: the same function, and it folds."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given
from hypothesis import strategies as st

import reference
import tfbn
from networks import relative_difference
from random_graphs import Builder, drawn, randomize_as_drawn
from sweeps import some
from tfbn.batch_norms import layer_paths

# Rounding of ten layers in float64: a wrong axis stands out.
TOLERANCE = 1e-11


@pytest.mark.parametrize("shard", some(range(4), [0]))
def test_random_graphs_turn_to_the_same_function(shard):
    permutes = []

    @drawn(10, shard)
    @given(st.data(), st.integers(0, 3))
    def run(data, number):
        keras.config.set_dtype_policy("float64")
        model = randomize_as_drawn(Builder(data, True).model(), number)
        turned = tfbn.convert(model, data_format="channels_last")
        folded, report = tfbn.fold(turned)
        x = reference.data((3, *model.inputs[0].shape[1:]))
        # All by XLA, which runs channels first everywhere: its tanh is another one than TensorFlow's.
        wanted, *found = (
            keras.tree.flatten(tf.function(network, jit_compile=True)(x))
            for network in (model, turned, folded)
        )
        for got in found:
            for array, expected in zip(got, wanted, strict=True):
                assert array.shape == expected.shape
                if np.abs(expected).max() > 0:
                    assert relative_difference(array, expected) < TOLERANCE, str(report)
        permutes.append(
            sum(isinstance(layer, keras.layers.Permute) for layer in layer_paths(turned).values())
        )

    run()
    assert np.median(permutes) <= 4  # at the borders, and where a graph transposes by itself
