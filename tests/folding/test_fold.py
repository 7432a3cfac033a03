"""tfbn.fold: the same function without the batch norms, or the batch norm kept with its reason."""

import itertools

import keras
import numpy as np
import pytest

import reference
import tfbn
from networks import FLOAT32, chain, outputs, randomize, relative_difference
from tfbn.batch_norms import batch_norms
from tfbn.folding.affine import Affine
from tfbn.folding.graph import Graph
from tfbn.folding.rules import FOLD_TARGETS
from tfbn.folding.targets import PendingFold

L = keras.layers
KINDS = [tfbn.BatchNorm, L.BatchNormalization]


def check(model, x, unchanged, folded, tolerance=FLOAT32):
    """Fold, compare with the original, and return the report."""
    with unchanged(model):
        new, report = tfbn.fold(model)
        for given in (x, x[:1]):
            (got,), (want,) = (outputs(one, given, training=False) for one in (new, model))
            assert relative_difference(got, want) < tolerance
    assert len(report.folded) == folded, str(report)
    assert len(batch_norms(new)) == len(report.kept) == len(batch_norms(model)) - folded
    assert {entry.path for entry in report.entries} == batch_norms(model).keys()
    assert {id(v) for v in new.variables}.isdisjoint({id(v) for v in model.variables})
    return report


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
    elsewhere = {L.EinsumDense, L.Rescaling, L.Normalization, *KINDS}  # in test_folding_rules, _einsum
    assert {type(make()) for make, *_ in LINEAR.values()} | elsewhere == FOLD_TARGETS.keys()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("label", LINEAR)
def test_linear_layers_take_up_a_batch_norm(label, kind, unchanged):
    make, shape, axis = LINEAR[label]
    model = chain(shape, make(), kind(axis=axis, epsilon=1e-2), L.Activation("tanh"), L.Flatten())
    report = check(model, reference.data((3, *shape)), unchanged, folded=1)
    assert report.entries[0].into == (model.layers[1].name,)
    assert report.entries[0].kind == kind.__name__


@pytest.mark.parametrize(
    "flags", [{"center": False}, {"scale": False}, {"center": False, "scale": False}]
)
@pytest.mark.parametrize("kind", KINDS)
def test_without_beta_or_gamma(kind, flags, unchanged):
    model = chain(
        (6, 6, 4), L.Conv2D(5, 3), kind(**flags), L.Conv2D(3, 2, use_bias=False), kind(**flags)
    )
    check(model, reference.data((3, 6, 6, 4)), unchanged, folded=2)


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


def two_branches():
    inputs = keras.Input((8, 8, 4))
    conv = L.Conv2D(4, 3, padding="same", name="conv")(inputs)
    return inputs, conv


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
        one = keras.Sequential([keras.Input((8, 8, 4)), conv, bn], name="one")
        two = keras.Sequential([keras.Input((8, 8, 4)), conv, L.ReLU()], name="two")
        inputs = keras.Input((8, 8, 4))
        return keras.Model(inputs, two(one(inputs)))

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
        for one, other in zip(keras.tree.flatten(got), keras.tree.flatten(want), strict=True):
            assert relative_difference(one, other) < 1e-6


def test_a_subclass_of_a_linear_layer_is_left_alone(unchanged):
    class Squared(L.Dense):
        def call(self, inputs):
            return super().call(inputs) ** 2

    model = chain((4,), Squared(3), tfbn.BatchNorm())
    report = check(model, reference.data((5, 4)), unchanged, folded=0)
    assert "(Squared) can neither take it up nor let it pass" in report.entries[0].reason


def test_a_batch_norm_inside_an_opaque_layer_is_named_and_kept(unchanged):
    class Block(L.Layer):
        def __init__(self, **kwargs):
            super().__init__(**kwargs)
            self.dense, self.bn = L.Dense(4), tfbn.BatchNorm(name="hidden")

        def call(self, x):
            return self.bn(self.dense(x))

    model = chain((4,), Block(name="block"), L.Dense(3), tfbn.BatchNorm(name="bn"))
    report = check(model, reference.data((5, 4)), unchanged, folded=1)
    (kept,) = report.kept
    assert kept.path == "block/hidden"
    assert kept.reason == "it is inside a layer whose graph Keras does not show"


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


def test_sequential(unchanged):
    model = keras.Sequential(
        [keras.Input((8, 8, 3)), L.Conv2D(4, 3), tfbn.BatchNorm(), L.ReLU(), L.Flatten(), L.Dense(2)]
    )
    check(randomize(model), reference.data((3, 8, 8, 3)), unchanged, folded=1)
    assert isinstance(tfbn.fold(model)[0], keras.Sequential)


def test_nested_models_called_twice(unchanged):
    innermost = keras.Sequential(
        [keras.Input((4,)), L.Dense(4), L.BatchNormalization(name="b")], name="n"
    )
    inputs = keras.Input((4,))
    inner = keras.Model(inputs, tfbn.BatchNorm(name="b")(L.Dense(4)(innermost(inputs))), name="inner")
    inputs = keras.Input((4,))
    model = randomize(keras.Model(inputs, inner(keras.ops.tanh(inner(inputs)))))
    report = check(model, reference.data((5, 4)), unchanged, folded=2)
    assert {entry.path for entry in report.folded} == {"inner/b", "inner/n/b"}
    assert all(entry.into[0].startswith("inner/") for entry in report.folded)


def test_a_nested_functional_model_may_be_an_output_and_an_input():
    inputs = keras.Input((4,))
    inner = keras.Model(inputs, tfbn.BatchNorm(name="b")(L.Dense(4)(inputs)), name="inner")
    inputs = keras.Input((4,))
    once, twice = inner(inputs), inner(inner(inputs))
    model = keras.Model(inputs, [once, twice, L.Dense(2, name="last")(once)])
    graph = Graph(model)
    outputs = [call.outputs[0] for call in graph.of(inner.get_layer("b"))]
    users = [{user.layer.name if user else "model" for user in one.users} for one in outputs]
    dense = inner.layers[1].name
    assert sorted(map(sorted, users)) == [[dense], ["last", "model"], ["model"]]


def test_structured_inputs_and_outputs_with_operations():
    a, b = keras.Input((6, 4), name="a"), keras.Input((4,), name="b")
    x = tfbn.BatchNorm()(L.Conv1D(4, 3)(a)) * 2.0
    y = tfbn.BatchNorm()(L.Dense(4)(b)) - keras.ops.mean(x, axis=1)
    model = randomize(
        keras.Model({"a": a, "b": b}, {"x": x, "y": [y, keras.ops.reshape(y, (-1, 2, 2))]})
    )
    new, report = tfbn.fold(model)
    assert len(report.folded) == 2
    data = {"a": reference.data((5, 6, 4)), "b": reference.data((5, 4))}
    for got, want in zip(keras.tree.flatten(new(data)), keras.tree.flatten(model(data)), strict=True):
        assert relative_difference(got, want) < FLOAT32


def test_a_batch_norm_that_hands_a_mask_on_is_kept(unchanged):
    tokens = keras.Input((7,), dtype="int32")
    x = L.Embedding(9, 4, mask_zero=True)(tokens)
    model = randomize(keras.Model(tokens, L.LSTM(3)(tfbn.BatchNorm()(L.Dense(4)(x)))))
    data = np.random.default_rng(0).integers(0, 9, (6, 7))
    data[:, 4:] = 0
    report = check(model, data, unchanged, folded=0)
    assert "it is called with a mask, and hands it on" in report.entries[0].reason


@pytest.mark.parametrize("by_name", [True, False])
def test_an_explicit_mask_is_not_lost(by_name):
    x, mask = keras.Input((5, 4)), keras.Input((5,), dtype="bool")
    dense = L.Dense(4)(x)
    y = tfbn.BatchNorm()(mask=mask, inputs=dense) if by_name else tfbn.BatchNorm()(dense, None, mask)
    model = randomize(keras.Model([x, mask], L.GRU(3)(y, training=False)))
    new, report = tfbn.fold(model)
    assert "it is called with a mask" in report.entries[0].reason
    data = [reference.data((3, 5, 4)), np.array([[1, 1, 0, 0, 0]] * 3, bool)]
    assert relative_difference(new(data), model(data)) < FLOAT32


@pytest.mark.parametrize("masked", [True, False])
def test_what_is_called_with_a_mask_is_not_crossed(masked, unchanged):
    tokens = keras.Input((7,), dtype="int32")
    x = L.Dense(4)(L.Embedding(9, 4, mask_zero=masked)(tokens))
    model = randomize(keras.Model(tokens, tfbn.BatchNorm()(L.GlobalAveragePooling1D(name="pool")(x))))
    data = np.random.default_rng(0).integers(1, 9, (6, 7))
    data[:, 4:] = 0
    report = check(model, data, unchanged, folded=int(not masked))
    assert not masked or "'pool' is called with a mask" in report.entries[0].reason


def test_inputs_passed_by_name(unchanged):
    inputs = keras.Input((4,))
    model = randomize(keras.Model(inputs, tfbn.BatchNorm()(inputs=L.Dense(3)(inputs=inputs))))
    check(model, reference.data((5, 4)), unchanged, folded=1)


def test_the_rank_is_that_of_this_call(unchanged):
    dense = L.Dense(7)
    dense(keras.Input((4,)))  # an earlier call, at another rank
    model = chain((7, 4), dense, tfbn.BatchNorm(axis=1))
    report = check(model, reference.data((3, 7, 4)), unchanged, folded=0)
    assert "it varies along axis 1, which is not the channel axis 2" in report.entries[0].reason


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


def test_optional_and_sparse_inputs_stay_so():
    given = keras.Input((4,), name="x")
    optional = keras.Input((4,), optional=True, name="o")

    outputs = tfbn.BatchNorm()(L.Dense(3)(L.Add()([given, optional])))
    new, _ = tfbn.fold(keras.Model([given, optional], outputs))
    inputs = {layer.name: layer for layer in new.layers if isinstance(layer, L.InputLayer)}
    assert (inputs["x"].optional, inputs["o"].optional) == (False, True)
    sparse = keras.Sequential([keras.Input((4,), sparse=True), L.Dense(3), tfbn.BatchNorm()])
    assert tfbn.fold(sparse)[0].inputs[0].sparse


def test_layers_without_a_configuration_are_an_error_that_says_so():
    class NoConfig(L.Layer):
        def __init__(self, thing):
            super().__init__()
            self.thing = thing

        def call(self, x):
            return x

    model = chain((4,), NoConfig(object()), L.Dense(3), tfbn.BatchNorm())
    with pytest.raises(
        ValueError, match=r"(?s)cannot be read, because a layer in it has no conf.*NoConfig"
    ):
        tfbn.fold(model)


def test_mixed_precision():
    keras.config.set_dtype_policy("mixed_float16")
    model = chain((8, 8, 4), L.Conv2D(4, 3), tfbn.BatchNorm(), L.ReLU())
    x = reference.data((3, 8, 8, 4))
    new, report = tfbn.fold(model)
    assert len(report.folded) == 1
    # The batch norm's input is no longer rounded to float16: 2^-11 relative to a sum of 36 products.
    assert relative_difference(new(x), model(x)) < 5e-3


def test_tiny_variances_and_negative_gammas(unchanged):
    model = chain((6, 6, 4), L.Conv2D(5, 3, use_bias=False), L.BatchNormalization(name="bn"))
    model.get_layer("bn").moving_variance.assign([1e-36, 1e-12, 1e-6, 1e4, 1e8])
    check(model, reference.data((3, 6, 6, 4)), unchanged, folded=1)


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


def test_graphs_show_calls_uses_and_outputs():
    inputs, conv = two_branches()
    model = keras.Model(inputs, [L.Add(name="add")([L.ReLU(name="relu")(conv), conv]), conv])
    by_name = {call.layer.name: call for call in Graph(model).calls}
    (conv,) = by_name["conv"].outputs
    assert by_name["relu"].inputs == [conv]
    assert [user and user.layer.name for user in conv.users] == ["relu", "add", None]
    assert by_name["conv"].inputs[0].source is None
    assert (conv.shape, conv.dtype) == ((None, 8, 8, 4), "float32")


def test_models_that_cannot_be_read():
    class Subclassed(keras.Model):
        def call(self, x):
            return x

    with pytest.raises(TypeError, match="^fold needs a keras.Model, received str: 'model'"):
        tfbn.fold("model")
    with pytest.raises(
        ValueError, match=r"is not built, so it has no weights to fold\. Call it on a batch"
    ):
        tfbn.fold(keras.Sequential([L.Dense(2)]))
    two = [keras.Input((4,)), keras.Input((4,))]
    undeclared = keras.Sequential([keras.Model(two, L.Add()(two)), L.Dense(3), tfbn.BatchNorm()])
    undeclared([np.ones((2, 4)), np.ones((2, 4))])
    with pytest.raises(TypeError, match=r"^The graph of the model .* \(Sequential\) cannot be read"):
        tfbn.fold(undeclared)
    model = Subclassed()
    model(np.ones((2, 3), "float32"))
    with pytest.raises(
        TypeError, match=r"\(Subclassed\) cannot be read: .* with fold=False and samples="
    ):
        tfbn.fold(model)


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
