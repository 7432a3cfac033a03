"""tfbn.fold: a batch norm that cannot be folded is kept, with its reason."""

import keras
import pytest
import tensorflow as tf

import reference
import tfbn
from folds import check, two_branches
from networks import FLOAT32, chain, outputs, randomize, relative_difference

L = keras.layers


def kept_cases():
    def fan_out():
        inputs, conv = two_branches()
        return keras.Model(inputs, tfbn.BatchNorm(name="bn")(conv) + conv)

    def also_an_output():
        inputs, conv = two_branches()
        return keras.Model(inputs, [tfbn.BatchNorm(name="bn")(conv), conv])

    def shared_layer():
        inputs = keras.Input((8, 8, 4))
        conv = L.Conv2D(4, 3, name="conv")
        return keras.Model(inputs, tfbn.BatchNorm(name="bn")(conv(conv(inputs))))

    def training_true():
        inputs, conv = two_branches()
        return keras.Model(inputs, tfbn.BatchNorm(name="bn")(conv, training=True))

    def on_the_input():
        inputs = keras.Input((8, 8, 4))
        return keras.Model(inputs, tfbn.BatchNorm(name="bn")(inputs))

    def shared_across_models():
        conv, bn = L.Conv2D(4, 3, padding="same", name="conv"), tfbn.BatchNorm(name="bn")
        first = keras.Sequential([keras.Input((8, 8, 4)), conv, bn], name="one")
        two = keras.Sequential([keras.Input((8, 8, 4)), conv, L.ReLU()], name="two")
        inputs = keras.Input((8, 8, 4))
        return keras.Model(inputs, two(first(inputs)))

    def twice_to_one_layer():
        inputs, conv = two_branches()
        return keras.Model(inputs, L.Add()([tfbn.BatchNorm(name="bn")(conv), L.ReLU()(conv)]))

    def chained(*layers):
        return lambda: chain((8, 8, 4), *(make() for make in layers))

    def bn(**arguments):
        return lambda: tfbn.BatchNorm(name="bn", **arguments)

    conv = lambda **a: lambda: L.Conv2D(4, 3, padding="same", name="conv", **a)  # noqa: E731
    return {
        "fan-out": (fan_out, "the output of 'conv' is used by more than this batch norm"),
        "output": (also_an_output, "the output of 'conv' is used by more than this batch norm"),
        "two consumers": (
            twice_to_one_layer,
            "the output of 'conv' is used by more than this batch norm",
        ),
        "shared layer": (shared_layer, "'conv' is shared: the model calls it more than once"),
        "across models": (shared_across_models, "'conv' is shared: the model calls it more than once"),
        "training": (
            training_true,
            "it is called with training=True and uses each batch's own statistics",
        ),
        "input": (on_the_input, "it normalises an input of the model, with no layer before it"),
        "activation": (
            chained(conv(activation="relu"), bn()),
            "'conv' applies its own activation (relu)",
        ),
        "ReLU": (
            chained(conv(), lambda: L.ReLU(name="relu"), bn()),
            "an offset does not pass 'relu' (ReLU), only a scale does",
        ),
        "axis": (
            chained(conv(), bn(axis=1)),
            "it varies along axis 1, which is not the channel axis 3 of 'conv'",
        ),
        "axes": (
            chained(conv(), bn(axis=[1, 3])),
            "it varies along axis 1, which is not the channel axis 3 of 'conv'",
        ),
        "dtype": (
            chained(conv(dtype="mixed_float16"), bn(dtype="float32")),
            "it computes in float32 and",
            "(Cast) can neither take it up nor let it pass",
        ),
    }


KEPT = kept_cases()


@pytest.mark.parametrize("name", KEPT)
def test_what_cannot_fold_is_kept_with_the_reason(name, unchanged):
    make, *reasons = KEPT[name]  # several where Keras' versions build different graphs
    model = randomize(make())
    x = reference.data((3, *model.inputs[0].shape[1:]))
    with unchanged(model):
        new, report = tfbn.fold(model)
        assert [(entry.path.split("/")[-1], entry.into) for entry in report.entries] == [("bn", ())]
        assert any(reason in report.entries[0].reason for reason in reasons), str(report)
        assert report.entries[0].reason in str(report)
        got, want = new(x, training=False), model(x, training=False)
        for tensor, expected in zip(keras.tree.flatten(got), keras.tree.flatten(want), strict=True):
            assert relative_difference(tensor, expected) < 1e-6


def test_a_subclass_of_a_linear_layer_is_left_alone():
    class Squared(L.Dense):
        def call(self, inputs):
            return super().call(inputs) ** 2

    model = chain((4,), Squared(3), tfbn.BatchNorm())
    _, report = check(model, folded=0, x=reference.data((5, 4)))
    assert "(Squared) can neither take it up nor let it pass" in report.entries[0].reason


def test_a_batch_norm_inside_an_opaque_layer_is_named_and_kept():
    class Block(L.Layer):
        def __init__(self, **kwargs):
            super().__init__(**kwargs)
            self.dense, self.bn = L.Dense(4), tfbn.BatchNorm(name="hidden")

        def call(self, x):
            return self.bn(self.dense(tf.abs(x)))  # which takes no symbolic tensor of Keras

    model = chain((4,), Block(name="block"), L.Dense(3), tfbn.BatchNorm(name="bn"))
    _, report = check(model, folded=1, x=reference.data((5, 4)))
    (kept,) = report.kept
    assert kept.path == "block/hidden"
    assert kept.reason.startswith("it is inside 'block' (Block), which does not run on symbolic tensors")


def test_lora_weights_are_left_alone(unchanged):
    dense = L.Dense(4)
    model = chain((4,), dense, tfbn.BatchNorm())
    dense.enable_lora(2)
    with unchanged(model):
        _, report = tfbn.fold(model)
    assert "quantized or adapted by LoRA" in report.entries[0].reason


def test_weights_that_would_overflow_are_left_alone(unchanged):
    keras.config.set_dtype_policy("float16")
    model = chain((4,), L.Dense(3, name="dense"), tfbn.BatchNorm(name="bn"), dtype="float16")
    bn = model.get_layer("bn")
    bn.moving_variance.assign([0.0, 1, 1])
    bn.gamma.assign([3e4] * 3)
    with unchanged(model):
        _, report = tfbn.fold(model)
    assert "the folded kernel of 'dense' is not finite in float16" in report.entries[0].reason


def test_a_model_called_with_training_keeps_its_batch_norms():
    innermost = keras.Sequential([keras.Input((4,)), L.Dense(4), tfbn.BatchNorm(name="b")], name="n")
    inputs = keras.Input((4,))
    inner = keras.Model(inputs, innermost(inputs), name="inner")
    inputs = keras.Input((4,))
    model = randomize(keras.Model(inputs, inner(inputs, training=True)))
    new, report = tfbn.fold(model)
    assert "it is called with training=True" in report.entries[0].reason
    x = reference.data((5, 4))
    assert relative_difference(new(x), model(x)) < FLOAT32


@pytest.mark.parametrize(("size", "folds"), [(6, 0), (7, 1)])
@pytest.mark.parametrize("kind", [L.Conv1D, L.Conv2D, L.Conv2DTranspose, L.SeparableConv2D])
def test_channels_first_outputs_as_long_as_their_channels_keep_their_batch_norm(kind, size, folds):
    """Keras 3.15 adds a channels-first bias along the last axis if that has as many elements."""
    layer = kind(4, 3, use_bias=False, data_format="channels_first")
    size -= 4 * (kind is L.Conv2DTranspose)  # which adds 2 where the others take 2
    shape = (3, size) if kind is L.Conv1D else (3, size, size)
    model = chain(shape, layer, tfbn.BatchNorm(axis=1))
    folded, report = tfbn.fold(model)
    assert len(report.folded) == folds
    x = reference.data((8, *shape), 1)
    assert relative_difference(outputs(folded, x)[0], outputs(model, x)[0]) < 1e-5


def test_the_report_is_a_table():
    model = keras.Sequential(
        [
            keras.Input((4,)),
            L.Dense(3, name="dense"),
            tfbn.BatchNorm(name="bn"),
            L.Activation("tanh", name="tanh"),
            L.BatchNormalization(name="last_bn"),
        ]
    )
    assert str(tfbn.fold(randomize(model))[1]).splitlines() == [
        "1 of 2 batch norms folded",
        "  bn      -> dense",
        "  last_bn stays: backwards, 'tanh' (Activation) can neither take it up nor let it pass; "
        "forwards, its result is an output of the model",
    ]
