"""tfbn.fold: what a batch norm moves across, and what it does not."""

import keras
import numpy as np
import pytest

import tfbn
from folds import IMAGE, bn, check, functional, weigh
from propagations import ACROSS, ANY, shape_for
from tfbn.batch_norms import batch_norms
from tfbn.folding.keras.tables import PROPAGATION_RULES, Step

L = keras.layers


@pytest.mark.parametrize("name", ACROSS)
def test_a_batch_norm_crosses(name):
    make, need = ACROSS[name]
    shape = shape_for(name)
    conv = getattr(L, f"Conv{len(shape) - 1}D")
    backwards = functional(shape, conv(4, 2, name="conv"), make(), bn(), L.Activation("tanh"))
    if "reshape" not in name:  # which is made for one size
        check(weigh(backwards, **need), folded=1, into=["conv"])
    forwards = functional(shape, L.Activation("tanh"), bn(), make(), L.Dense(3, name="dense"))
    check(weigh(forwards, **need), folded=1, into=["dense"])


@pytest.mark.parametrize("name", [name for name, (_, need) in ACROSS.items() if need is not ANY])
def test_a_batch_norm_does_not_cross(name):
    make, need = ACROSS[name]
    shape = shape_for(name)
    conv = getattr(L, f"Conv{len(shape) - 1}D")
    for less in need:  # one condition at a time is not met
        given = {name: value for name, value in need.items() if name != less}
        reason = "a negative scale does not pass" if less == "positive" else "an offset does not pass"
        for steps in (
            (conv(4, 2), make(), bn(), L.Activation("tanh")),
            (L.Activation("tanh"), bn(), make(), L.Dense(3)),
        ):
            check(weigh(functional(shape, *steps), **given), folded=0, reason=reason)


def test_every_crossing_is_tested():
    tested = {type(make()) for make, _ in ACROSS.values()}
    elsewhere = {L.Add, L.Subtract, L.Average, L.Maximum, L.Minimum, L.Multiply, L.Concatenate}
    # Steps of TimeDistributed are crossed in test_steps.
    assert PROPAGATION_RULES.keys() - tested - elsewhere == {L.Flatten, L.RepeatVector, Step}


@pytest.mark.parametrize("zero", [-1, 1])
def test_a_scale_of_zero_crosses_what_needs_no_negative_one(zero):
    model = weigh(functional(IMAGE, L.Conv2D(4, 2), L.MaxPooling2D(), bn()), positive=True)
    layer = model.layers[-1]
    layer.gamma.assign([0.0, 1, 2, zero])
    check(model, folded=int(zero > 0))


REFUSED = {
    "ReLU with a ceiling": (lambda: L.ReLU(6.0), "(ReLU) can neither take it up"),
    "ReLU with a threshold": (lambda: L.ReLU(threshold=0.5), "(ReLU) can neither take it up"),
    "another activation": (lambda: L.Activation("sigmoid"), "(Activation) can neither take it up"),
    "bicubic": (lambda: L.UpSampling2D(interpolation="bicubic"), "interpolates by 'bicubic'"),
    "number / x": (lambda: lambda x: 2.0 / (x + 100.0), "is not affine"),
    "x * 0": (lambda: lambda x: x * np.array([0, 1, 2, 3], "float32"), "multiplies by 0"),
    "larger": (lambda: lambda x: x[..., :1] * np.ones(4, "float32"), "makes its input larger"),
    "maximum with a number": (lambda: lambda x: keras.ops.maximum(x, 0.5), "takes a constant"),
    "unknown": (L.LayerNormalization, "(LayerNormalization) can neither take it up"),
    "Masking": (L.Masking, "finds by its input's values what is to be masked"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_not_crossed(name):
    make, reason = REFUSED[name]
    model = functional(IMAGE, L.Conv2D(4, 2), make(), bn())
    check(weigh(model, positive=True, offset=False), folded=0, reason=reason)


def test_a_subclass_is_not_crossed():
    class Pool(L.AveragePooling2D):
        def call(self, inputs):
            return super().call(inputs) ** 2

    check(weigh(functional(IMAGE, L.Conv2D(4, 2), Pool(2), bn())), folded=0, reason="'pool' (Pool) can")


@pytest.mark.parametrize("used", [0, 1])
def test_several_tensors_at_once_are_not_crossed(used):
    a, b = keras.Input((4,)), keras.Input((4,))
    both = L.Identity()([bn()(L.Activation("tanh")(a)), L.Activation("tanh")(b)])
    model = keras.Model([a, b], L.Dense(3)(both[used]))  # the other output is not in the graph
    check(weigh(model), folded=0, reason="(Identity) is called on several tensors at once")
    both = L.Identity()([L.Dense(4)(a), L.Dense(4)(b)])
    model = keras.Model([a, b], bn()(both[used]))
    check(weigh(model), folded=0, reason="is called on several tensors at once")


def test_dropout_that_drops_is_not_crossed():
    drop = L.GaussianNoise(1e-9)  # so little that the outputs can be compared
    model = functional(IMAGE, L.Conv2D(4, 2), lambda x: drop(x, training=True), bn())
    check(weigh(model), folded=0, reason="drops values at random")


@pytest.mark.parametrize("data_format", ["channels_last", "channels_first"])
@pytest.mark.parametrize("keepdims", [True, False])
@pytest.mark.parametrize("pool", [L.GlobalAveragePooling2D, L.GlobalMaxPooling2D])
def test_global_pooling_and_flatten(pool, keepdims, data_format):
    axis = -1 if data_format == "channels_last" else 1
    own = {"data_format": data_format}
    steps = (pool(keepdims=keepdims, **own), L.Flatten(**own), L.Dense(3, name="dense"))
    forwards = functional(IMAGE, L.Activation("tanh"), bn(axis=axis), *steps)
    check(weigh(forwards, positive=True), folded=1, into=["dense"])
    conv = L.Conv2D(5, 2, name="conv", use_bias=False, **own)
    backwards = functional(IMAGE, conv, *steps[:2], bn(), L.Activation("tanh"))
    check(weigh(backwards, positive=True), folded=1, into=["conv"])


@pytest.mark.parametrize("data_format", ["channels_last", "channels_first"])
def test_flatten_spreads_channels_over_features(data_format):
    flatten = L.Flatten(data_format=data_format)
    axis = -1 if data_format == "channels_last" else 1
    model = functional(IMAGE, L.Activation("tanh"), bn(axis=axis), flatten, L.Dense(3))
    check(weigh(model), folded=1)
    # Backwards each feature has a scale of its own, which no convolution has.
    model = functional(IMAGE, L.Conv2D(4, 2), L.Flatten(), bn(), L.Activation("tanh"))
    check(weigh(model), folded=0, reason="which is not the channel axis 3")


def test_unknown_sizes():
    fixed = functional((None, None, 4), L.Conv2D(4, 2), L.AveragePooling2D(2), bn(), L.ReLU())
    assert len(tfbn.fold(weigh(fixed))[1].folded) == 1
    steps = (L.Activation("tanh"), bn(), L.Reshape((-1, 2)), L.Dense(3))
    model = weigh(functional((None, 4), *steps))
    assert "or its sizes are not known" in tfbn.fold(model)[1].kept[0].reason


def test_a_reshape_that_mixes_samples():
    steps = (L.Activation("tanh"), bn(), lambda x: keras.ops.reshape(x, (-1, 2)), L.Dense(3))
    model = weigh(functional((4,), *steps))
    check(model, folded=0, reason="puts other values together")
    (layer,) = batch_norms(model).values()  # alike in all channels, it does not matter
    layer.set_weights([np.full(4, value) for value in (-2.0, 1.0, 0.5, 3.0)])
    check(model, folded=1)


def test_permute_takes_the_channels_along():
    model = functional(IMAGE, L.Conv2D(4, 2), L.Permute((3, 1, 2)), bn(axis=1), L.Activation("tanh"))
    check(weigh(model), folded=1)
    model = functional(
        IMAGE, L.Activation("tanh"), bn(axis=2), L.Permute((3, 1, 2)), L.Flatten(), L.Dense(3)
    )
    check(weigh(model), folded=1)


def test_repeat_vector():
    model = functional((4,), L.Dense(5), L.RepeatVector(3), bn(), L.Activation("tanh"))
    check(weigh(model), folded=1)
    model = functional((4,), L.Activation("tanh"), bn(), L.RepeatVector(3), L.Dense(2))
    check(weigh(model), folded=1)
    model = functional((4,), L.Dense(5), L.RepeatVector(3), bn(axis=1), L.Activation("tanh"))
    check(weigh(model), folded=0, reason="repeats")


@pytest.mark.parametrize(
    "layer", [lambda: L.AveragePooling2D(2), L.UpSampling2D, L.Cropping2D, L.GlobalAveragePooling2D]
)
def test_what_mixes_an_axis_does_not_let_it_vary(layer):
    def model(between):
        steps = (L.Activation("tanh"), bn(axis=1), between, L.Flatten(), L.Dense(3))
        return weigh(functional(IMAGE, *steps))

    check(model(layer()), folded=0, reason="mixes what lies along axis 1")
    check(model(L.Identity()), folded=1)
