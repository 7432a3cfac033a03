"""Masks in models that are turned to channels last."""

import keras
import pytest

import reference
import tfbn
from networks import FLOAT32, randomize, relative_difference
from turning import FIRST, by_xla, check, conv

L = keras.layers


def test_masks_of_steps_are_kept(tmp_path):
    """The model behind the convolutions sees the steps that it saw, after loading too."""
    inputs = keras.Input((4, 18))
    x = L.TimeDistributed(L.Reshape((3, 3, 2)))(L.Masking()(inputs))
    x = L.TimeDistributed(conv())(x)
    x = L.TimeDistributed(tfbn.BatchNorm(axis=1))(x)
    model = randomize(keras.Model(inputs, L.LSTM(3)(L.TimeDistributed(L.Flatten())(x))))
    turned = tfbn.convert(model, data_format="channels_last")
    x = reference.data((3, 4, 18)).astype("float32")
    x[0, 1:] = x[1, 2:] = 0
    wanted = by_xla(model, x)
    assert relative_difference(wanted, by_xla(model, x + (x == 0))) > 0.1
    turned.save(tmp_path / "m.keras")
    for loaded in (turned, keras.models.load_model(tmp_path / "m.keras")):
        assert relative_difference(loaded(x), wanted) < FLOAT32


@pytest.mark.filterwarnings("ignore:Layer .* was passed an input with a mask:UserWarning")
def test_a_mask_that_a_permute_loses_stays_lost():
    inputs = keras.Input((2, 4, 3))
    x = L.Permute((1, 3, 2))(L.Masking()(inputs))
    x = L.TimeDistributed(L.Conv1D(2, 2, **FIRST))(x)
    check(keras.Model(inputs, L.LSTM(3)(L.TimeDistributed(L.Flatten())(x))))


@pytest.mark.filterwarnings("ignore:Layer .* was passed an input with a mask:UserWarning")
def test_a_mask_along_an_axis_that_moves_is_refused():
    inputs = keras.Input((4, 6))
    model = keras.Model(inputs, L.Conv1D(2, 2, **FIRST)(L.Masking()(inputs)))
    with pytest.raises(ValueError, match=r"'masking\S*' has a mask along an axis that would move"):
        tfbn.convert(model, data_format="channels_last")


def with_mask(layer):
    """A mask that is made of the images, and so laid out as they are."""
    inputs = keras.Input((3, 4, 4))
    x = conv(use_bias=False)(inputs)
    return keras.Model(inputs, layer(x, mask=keras.ops.cast(L.ReLU()(x), "bool")))


def test_a_mask_of_the_images_has_the_layout_that_it_had():
    check(with_mask(L.Softmax(axis=1)))
