"""Every layer of Keras 1 against a float64 oracle of what it computed."""

import numpy as np
import pytest
import tensorflow as tf

import legacy_cases
import legacy_files as files
from tfbn import compat
from tfbn.compat.model_files.layers import keras1_table
from tfbn.data_format import channels_first

# With cases of their own: in test_legacy_models and test_legacy_statistics.
ELSEWHERE = {"Merge", "Bidirectional", "TimeDistributed", "BatchNormalization"}


def loaded(tmp_path, class_name, config, x, weights, **known):
    layer = files.layer(class_name, "the_layer", **config)
    model = files.sequential(layer, shape=x.shape[1:])
    names = [(f"the_layer_w{number}", array) for number, array in enumerate(weights)]
    path = files.write(tmp_path / "model.h5", model, [("the_layer", names)])
    return compat.load_model(path, **known)


@pytest.mark.parametrize(
    ("class_name", "config", "x", "weights", "answer", "backend"),
    [case[1:] for case in legacy_cases.CASES],
    ids=[case[0] for case in legacy_cases.CASES],
)
def test_it_computes_what_keras1_did(tmp_path, class_name, config, x, weights, answer, backend):
    model = loaded(tmp_path, class_name, config, x, weights, backend=backend)
    assert not channels_first(model)
    wanted = answer(x, *weights)
    x = np.asarray(x, "float32" if x.dtype.kind == "f" else "int32")
    found = [model(x, training=False)]
    if config.get("dim_ordering") == "th":
        kept = loaded(
            tmp_path, class_name, config, x, weights, backend=backend, data_format="channels_first"
        )
        # Which runs it on every processor.
        found.append(tf.function(kept, jit_compile=True)(x, training=False))
    for output in found:
        assert tuple(output.shape) == wanted.shape
        # float32 sums of at most 40 products of size 1, and five steps of recurrence
        np.testing.assert_allclose(output, wanted, rtol=1e-5, atol=1e-5)
    assert "the_layer" in [layer.name for layer in model.layers]


def test_every_row_has_a_case():
    assert {case[1] for case in legacy_cases.CASES} | ELSEWHERE == keras1_table.TABLE.keys()
