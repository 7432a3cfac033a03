"""tfbn.fold: Dense layers and convolutions take up the batch norm of their output."""

import itertools

import keras
import numpy as np
import pytest

import reference
import tfbn
from folds import check
from networks import FLOAT32, chain, outputs, randomize, relative_difference
from tfbn.folding.core.affine import Affine
from tfbn.folding.core.targets import PendingFold
from tfbn.folding.keras.tables import FOLD_TARGETS

L = keras.layers
KINDS = [tfbn.BatchNorm, L.BatchNormalization]


def linear_layers():
    """(name, layer factory, input shape, channel axis) of every rule in every variant."""
    image = {1: (10, 4), 2: (9, 8, 4), 3: (6, 5, 7, 4)}
    convolutions = [
        (f"{kind}{rank}D{suffix}", getattr(L, f"{kind}{rank}D{suffix}"), rank)
        for kind, suffix, ranks in (
            ("Conv", "", (1, 2, 3)),
            ("Conv", "Transpose", (1, 2, 3)),
            ("DepthwiseConv", "", (1, 2)),
            ("SeparableConv", "", (1, 2)),
        )
        for rank in ranks
    ]
    for (name, kind, rank), bias in itertools.product(convolutions, (True, False)):
        arguments = {"use_bias": bias, "padding": "same", "strides": 2}
        if "Depthwise" in name:
            variants = [{"depth_multiplier": 1}, {"depth_multiplier": 3}]
        elif "Separable" in name:
            variants = [{"filters": 5, "depth_multiplier": 2}]
        elif "Transpose" in name:
            variants = [{"filters": 5}]
        else:
            variants = [{"filters": 6}, {"filters": 6, "groups": 2}]
        for variant in variants:
            label = f"{name}-{'bias' if bias else 'no_bias'}-{variant}"
            yield (
                label,
                lambda k=kind, v={**arguments, **variant}: k(kernel_size=3, **v),
                image[rank],
                -1,
            )
    for bias, shape in itertools.product((True, False), ((4,), (3, 4), (2, 3, 4))):
        yield f"Dense-{bias}-{shape}", lambda b=bias: L.Dense(5, use_bias=b), shape, -1


LINEAR = {label: rest for label, *rest in linear_layers()}


def test_every_rule_is_tested():
    elsewhere = {L.EinsumDense, L.Rescaling, L.Normalization, *KINDS}  # in test_normalizing, test_einsum
    elsewhere |= {L.SimpleRNN, L.LSTM, L.GRU, L.RNN, L.Bidirectional, L.Embedding}  # in test_sequences
    elsewhere |= {L.MultiHeadAttention, L.GroupQueryAttention}  # in test_attention
    assert {type(make()) for make, *_ in LINEAR.values()} | elsewhere == FOLD_TARGETS.keys()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("label", LINEAR)
def test_linear_layers_take_up_a_batch_norm(label, kind):
    make, shape, axis = LINEAR[label]
    model = chain(shape, make(), kind(axis=axis, epsilon=1e-2), L.Activation("tanh"), L.Flatten())
    _, report = check(model, folded=1, x=reference.data((3, *shape)))
    assert report.entries[0].into == (model.layers[1].name,)
    assert report.entries[0].kind == kind.__name__


@pytest.mark.parametrize(
    "flags", [{"center": False}, {"scale": False}, {"center": False, "scale": False}]
)
@pytest.mark.parametrize("kind", KINDS)
def test_without_beta_or_gamma(kind, flags):
    model = chain(
        (6, 6, 4), L.Conv2D(5, 3), kind(**flags), L.Conv2D(3, 2, use_bias=False), kind(**flags)
    )
    check(model, folded=2, x=reference.data((3, 6, 6, 4)))


CHANNELS_FIRST = {
    "Conv1D": lambda: L.Conv1D(6, 3, data_format="channels_first", groups=2),
    "Conv2D": lambda: L.Conv2D(6, 3, data_format="channels_first", use_bias=False),
    "Conv2DTranspose": lambda: L.Conv2DTranspose(6, 3, data_format="channels_first"),
    "DepthwiseConv2D": lambda: L.DepthwiseConv2D(3, depth_multiplier=2, data_format="channels_first"),
    "SeparableConv2D": lambda: L.SeparableConv2D(6, 3, data_format="channels_first"),
}


@pytest.mark.parametrize("name", CHANNELS_FIRST)
def test_channels_first(name):
    first = CHANNELS_FIRST[name]()
    shape = (4, 9) if name.endswith("1D") else (4, 8, 7)  # outputs not as long as their 6 channels
    inputs = keras.Input(shape)
    model = randomize(keras.Model(inputs, tfbn.BatchNorm(axis=1)(first(inputs))))
    new, report = tfbn.fold(model)
    assert len(report.folded) == 1
    assert new.layers[-1].data_format == "channels_first"
    x = reference.data((3, *shape), 1)
    assert relative_difference(outputs(new, x)[0], outputs(model, x)[0]) < FLOAT32


def test_grouped_kernels_scale_the_right_axes():
    # Output channel o is of group o // 3, and its input i is channel 2 · group + i.
    layer = L.Conv1D(6, 1, groups=2)
    layer.build((None, 5, 4))
    before = Affine(np.arange(1.0, 5), np.array([2.0, -1, 3, 5]))
    after = Affine(np.arange(1.0, 7), np.arange(6.0))
    weights = FOLD_TARGETS[L.Conv1D].write(layer, PendingFold(before, after)).weights
    got, kernel = weights["kernel"].round_to("float32"), layer.kernel.numpy()
    bias = np.zeros(6)
    for out, place in itertools.product(range(6), range(2)):
        channel = 2 * (out // 3) + place
        scale = before.scale[channel] * after.scale[out]
        np.testing.assert_allclose(got[0, place, out], kernel[0, place, out] * scale, rtol=1e-6)
        bias[out] += kernel[0, place, out] * before.offset[channel]
    np.testing.assert_allclose(weights["bias"], after.scale * bias + after.offset, rtol=1e-6)


def test_depthwise_kernels_scale_the_right_axis():
    # The oracle applies each output channel's kernel slice by hand: no convolution code shared.
    layer = L.DepthwiseConv2D(1, depth_multiplier=3)
    layer.build((None, 2, 2, 2))
    scale, offset = np.arange(1.0, 7), np.arange(6.0)
    rule = FOLD_TARGETS[L.DepthwiseConv2D]
    weights = dict(rule.write(layer, PendingFold(output_map=Affine(scale, offset))).weights)
    weights["kernel"] = weights["kernel"].round_to("float32")
    kernel = layer.kernel.numpy()
    for channel, multiple in itertools.product(range(2), range(3)):
        np.testing.assert_allclose(
            weights["kernel"][0, 0, channel, multiple],
            kernel[0, 0, channel, multiple] * scale[3 * channel + multiple],
            rtol=1e-7,
        )
    np.testing.assert_array_equal(weights["bias"], offset)


def test_mixed_precision():
    keras.config.set_dtype_policy("mixed_float16")
    model = chain((8, 8, 4), L.Conv2D(4, 3), tfbn.BatchNorm(), L.ReLU())
    x = reference.data((3, 8, 8, 4))
    new, report = tfbn.fold(model)
    assert len(report.folded) == 1
    # The batch norm's input is no longer rounded to float16: 2^-11 relative to a sum of 36 products.
    assert relative_difference(new(x), model(x)) < 5e-3


def test_tiny_variances_and_negative_gammas():
    model = chain((6, 6, 4), L.Conv2D(5, 3, use_bias=False), L.BatchNormalization(name="bn"))
    model.get_layer("bn").moving_variance.assign([1e-36, 1e-12, 1e-6, 1e4, 1e8])
    check(model, folded=1, x=reference.data((3, 6, 6, 4)))


def test_the_folded_model_saves_and_loads_without_tfbn(tmp_path):
    model = chain((6, 6, 4), L.Conv2D(5, 3), tfbn.BatchNorm())
    new, _ = tfbn.fold(model)
    new.save(tmp_path / "folded.keras")
    x = reference.data((3, 6, 6, 4))
    assert b"tfbn" not in new.to_json().replace("tfbn_probe", "").encode()
    np.testing.assert_array_equal(keras.models.load_model(tmp_path / "folded.keras")(x), new(x))


@pytest.mark.parametrize("make", [L.Conv2D, L.SeparableConv2D])
def test_a_folded_layer_keeps_its_configuration(make, monkeypatch):
    names = [name for name in make(5, 3).get_config() if name.endswith("_initializer")]
    given = {name: keras.initializers.Constant(number) for number, name in enumerate(names)}
    model = chain((6, 6, 4), make(5, 3, **given), tfbn.BatchNorm())
    monkeypatch.setattr(keras.initializers.Constant, "__call__", None)  # its numbers are not needed
    _, folded = tfbn.fold(model)[0].layers
    assert folded.get_config() == model.layers[1].get_config()
