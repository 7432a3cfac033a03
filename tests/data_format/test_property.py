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
from tfbn.batch_norms import layer_paths

# Rounding of ten layers in float64: a wrong axis stands out.
TOLERANCE = 1e-11


@pytest.mark.once
def test_random_graphs_turn_to_the_same_function():
    permutes = []

    @drawn(40)
    @given(st.data(), st.integers(0, 3))
    def run(data, seed):
        keras.config.set_dtype_policy("float64")
        model = randomize_as_drawn(Builder(data, True).model(), seed)
        turned = tfbn.convert(model, data_format="channels_last")
        folded, report = tfbn.fold(turned)
        x = reference.data((3, *model.inputs[0].shape[1:]))
        # All by XLA, which runs channels first everywhere: its tanh is another one than TensorFlow's.
        wanted, *found = (
            keras.tree.flatten(tf.function(one, jit_compile=True)(x)) for one in (model, turned, folded)
        )
        for got in found:
            for one, other in zip(got, wanted, strict=True):
                assert one.shape == other.shape
                if np.abs(other).max() > 0:
                    assert relative_difference(one, other) < TOLERANCE, str(report)
        permutes.append(
            sum(isinstance(one, keras.layers.Permute) for one in layer_paths(turned).values())
        )

    run()
    assert np.median(permutes) <= 4  # at the borders, and where a graph transposes by itself
