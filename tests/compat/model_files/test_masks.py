"""Masks of Keras 2 models, which a recurrent layer at their end makes visible."""

import keras
import numpy as np
import pytest
import tf_keras

from draws import RANDOM
from tfbn import compat

L = tf_keras.layers
CLOSE = {"rtol": 1e-5, "atol": 1e-6}  # float32 computations in the same order, but for fused ones
MERGES = [L.Add, L.Subtract, L.Multiply, L.Average, L.Maximum, L.Minimum]


def embedding():
    return L.Embedding(4, 3, mask_zero=True)


def saved(tmp_path, inputs, outputs, *values):
    """The file of a model, and what the model predicts."""
    model = tf_keras.Model(inputs, outputs)
    model.set_weights([RANDOM.normal(0, 1, weight.shape) for weight in model.weights])
    model.save(tmp_path / "m.h5", save_format="h5")
    return tmp_path / "m.h5", model(list(values)).numpy()


@pytest.mark.filterwarnings("ignore:You are saving your model as an HDF5 file")
@pytest.mark.parametrize(
    "merge",
    [
        *(kind() for kind in MERGES),
        L.Concatenate(name="concatenate"),  # as an operation of Keras 3 is called
        L.Concatenate(axis=1),
    ],
    ids=lambda layer: layer.name,
)
def test_merged_masks(tmp_path, merge):
    """Of two masked inputs, and of one and a plain one; Keras 3 alone merges them otherwise."""
    words, others, plain = L.Input((6,)), L.Input((6,)), L.Input((6, 3))
    merged = [merge([embedding()(words), embedding()(others)])]
    if getattr(merge, "axis", -1) == -1:  # tf_keras fails to join a mask and none along the steps
        merged.append(type(merge)()([embedding()(words), plain]))
    outputs = L.Add()([L.LSTM(2)(tensor) for tensor in (*merged, plain)])
    values = [
        RANDOM.integers(0, 4, (3, 6)),
        RANDOM.integers(0, 4, (3, 6)),
        RANDOM.normal(0, 1, (3, 6, 3)),
    ]
    values = [np.float32(value) for value in values]
    path, wanted = saved(tmp_path, [words, others, plain], outputs, *values)
    model = compat.load_model(path)
    np.testing.assert_allclose(model(values), wanted, **CLOSE)
    model.save(tmp_path / "m.keras")
    np.testing.assert_allclose(keras.models.load_model(tmp_path / "m.keras")(values), wanted, **CLOSE)


@pytest.mark.filterwarnings("ignore:You are saving your model as an HDF5 file")
def test_masks_at_each_step_are_refused(tmp_path):
    """A model in TimeDistributed may make masks, where it ends in one vector."""
    letters, x = L.Input((5,)), L.Input((3, 5))
    word = tf_keras.Model(letters, L.LSTM(2)(embedding()(letters)))
    values = RANDOM.integers(0, 4, (2, 3, 5))
    path, wanted = saved(tmp_path, x, L.LSTM(2)(L.TimeDistributed(word)(x)), values)
    np.testing.assert_allclose(compat.load_model(path)(values), wanted, **CLOSE)
    each = L.TimeDistributed(L.LSTM(2))(L.TimeDistributed(embedding())(x))
    path, _ = saved(tmp_path, x, each, values)
    with pytest.raises(compat.UnsupportedLayerError, match="makes a mask at each step"):
        compat.load_model(path)
