"""tfbn.fold: what a batch norm moves across and what takes it up, each where it must and must not."""

import inspect

import keras
import numpy as np
import pytest

import reference
import tfbn
from folds import IMAGE, alike, bn, check, functional, weigh
from networks import FLOAT32, randomize, relative_difference
from tfbn.batch_norms import batch_norms
from tfbn.cloning import cast_before_layers, operation_class
from tfbn.folding.graph import Step
from tfbn.folding.rules import PROPAGATION_RULES, _operations

L = keras.layers

# What a map must be to cross: a scale of any sign and an offset, or less.
ANY, POSITIVE, PURE, STRAIGHT = (
    {},
    {"positive": True},
    {"offset": False},
    {"positive": True, "offset": False},
)

ACROSS = {
    "Identity": (L.Identity, ANY),
    "Dropout": (lambda: L.Dropout(0.5), ANY),
    "SpatialDropout1D": (lambda: L.SpatialDropout1D(0.5), ANY),
    "SpatialDropout2D": (lambda: L.SpatialDropout2D(0.5), ANY),
    "SpatialDropout3D": (lambda: L.SpatialDropout3D(0.5), ANY),
    "AlphaDropout": (lambda: L.AlphaDropout(0.5), ANY),
    "GaussianDropout": (lambda: L.GaussianDropout(0.5), ANY),
    "GaussianNoise": (lambda: L.GaussianNoise(0.5), ANY),
    "linear": (lambda: L.Activation("linear"), ANY),
    "relu": (lambda: L.Activation("relu"), STRAIGHT),
    "ReLU": (lambda: L.ReLU(negative_slope=0.1), STRAIGHT),
    "LeakyReLU": (L.LeakyReLU, STRAIGHT),
    "PReLU": (lambda: L.PReLU(shared_axes=[1]), STRAIGHT),
    "ops.relu": (lambda: keras.ops.relu, STRAIGHT),
    "UpSampling1D": (L.UpSampling1D, ANY),
    "UpSampling2D": (L.UpSampling2D, ANY),
    "UpSampling2D bilinear": (lambda: L.UpSampling2D((2, 3), interpolation="bilinear"), ANY),
    "UpSampling3D": (L.UpSampling3D, ANY),
    "Permute": (lambda: L.Permute((2, 1, 3)), ANY),
    "Reshape": (lambda: L.Reshape((-1, 4)), ANY),
    "ops.reshape": (lambda: lambda x: keras.ops.reshape(x, (-1, 72, 4)), ANY),
    "GlobalAveragePooling2D keepdims": (lambda: L.GlobalAveragePooling2D(keepdims=True), ANY),
    "x + 2": (lambda: lambda x: x + 2.0, ANY),
    "vector - x": (lambda: lambda x: keras.ops.subtract(np.arange(4, dtype="float32"), x), ANY),
    "x - number": (lambda: lambda x: keras.ops.subtract(x, 0.5), ANY),
    "x * vector": (lambda: lambda x: x * np.array([[2, -3, 1, 0.5]], "float32"), ANY),
    "x / 4": (lambda: lambda x: x / 4.0, ANY),
    "divide": (lambda: lambda x: keras.ops.divide(x, 4.0), ANY),
    "true_divide": (lambda: lambda x: keras.ops.true_divide(x, 4.0), ANY),
}
for rank in (1, 2, 3):
    ACROSS |= {
        f"{name}{rank}D {label}".strip(): (
            lambda kind=f"{name}{rank}D", given=arguments: getattr(L, kind)(**given),
            need,
        )
        for name, label, arguments, need in (
            ("AveragePooling", "valid", {"pool_size": 2}, ANY),
            ("AveragePooling", "same", {"pool_size": 3, "strides": 2, "padding": "same"}, ANY),
            ("MaxPooling", "valid", {}, POSITIVE),
            ("MaxPooling", "same", {"pool_size": 3, "strides": 2, "padding": "same"}, POSITIVE),
            ("GlobalAveragePooling", "", {}, ANY),
            ("GlobalMaxPooling", "", {}, POSITIVE),
            ("Cropping", "", {}, ANY),
            ("ZeroPadding", "", {}, PURE),
        )
    }  # fmt: skip
SHAPES = {"1D": (9, 4), "3D": (5, 6, 5, 4)}


def shape_for(name):
    return next((shape for rank, shape in SHAPES.items() if rank in name), IMAGE)


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
        given = {one: value for one, value in need.items() if one != less}
        reason = "a negative scale does not pass" if less == "positive" else "an offset does not pass"
        for steps in (
            (conv(4, 2), make(), bn(), L.Activation("tanh")),
            (L.Activation("tanh"), bn(), make(), L.Dense(3)),
        ):
            check(weigh(functional(shape, *steps), **given), folded=0, reason=reason)


def test_every_crossing_is_tested():
    tested = {type(make()) for make, _ in ACROSS.values()}
    elsewhere = {L.Add, L.Subtract, L.Average, L.Maximum, L.Minimum, L.Multiply, L.Concatenate}
    # Steps of TimeDistributed are crossed in test_folding_steps.
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
    "Masking": (L.Masking, "it is called with a mask"),
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
    steps = (L.Activation("tanh"), bn(), L.Reshape((-1, 4)), L.Dense(3))
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


# Several inputs.


def branches(combine, *steps, axis=-1):
    """Two convolutions `a` and `b`, something behind each, put together, and a batch norm."""
    inputs = keras.Input(IMAGE)
    a, b = (L.Conv2D(4, 2, name=name)(inputs) for name in "ab")
    for tensors, after in ((a, steps[0]), (b, steps[1])):
        a, b = (after(tensors), b) if tensors is a else (a, after(tensors))
    return keras.Model(inputs, L.Activation("tanh")(bn(axis=axis)(combine([a, b]))))


PLAIN = (lambda x: x, lambda x: x)
PADDED_A, PADDED_B = (L.ZeroPadding2D(), L.UpSampling2D()), (L.UpSampling2D(), L.ZeroPadding2D())
COMBINED = {
    "Add": (L.Add, ANY),
    "x + y": (lambda: lambda x: x[0] + x[1], ANY),
    "Subtract": (L.Subtract, ANY),
    "x - y": (lambda: lambda x: x[0] - x[1], ANY),
    "Average": (L.Average, ANY),
    "Maximum": (L.Maximum, POSITIVE),
    "Minimum": (L.Minimum, POSITIVE),
    "maximum": (lambda: lambda x: keras.ops.maximum(*x), POSITIVE),
    "minimum": (lambda: lambda x: keras.ops.minimum(*x), POSITIVE),
    "Concatenate": (L.Concatenate, ANY),
    "concatenate": (lambda: lambda x: keras.ops.concatenate(x, -1), ANY),
    "Concatenate along another axis": (lambda: L.Concatenate(axis=1), ANY),
}


def test_every_operation_is_tested():
    """By the classes of the operations that the models of these tests are made of."""
    models = [functional(shape_for(name), make()) for name, (make, _) in ACROSS.items()]
    models += [branches(make(), *PLAIN) for make, _ in COMBINED.values()]
    tested = {type(operation) for model in models for operation in model.operations}
    products = {operation_class(x := keras.Input((1,)), x * x)}  # in test_products
    assert _operations().keys() - products <= tested


@pytest.mark.parametrize("name", COMBINED)
def test_into_every_branch(name):
    make, need = COMBINED[name]
    check(weigh(branches(make(), *PLAIN), **need), folded=1, into="ab")
    one_sided = branches(make(), lambda x: x, L.Activation("sigmoid"))
    check(weigh(one_sided, **need), folded=0, reason="can neither take it up")
    if need is POSITIVE:
        check(weigh(branches(make(), *PLAIN)), folded=0, reason="a negative scale does not pass")


@pytest.mark.parametrize("layer", [L.Add, L.Subtract])
@pytest.mark.parametrize("open_branch", [0, 1])
def test_the_offset_of_a_sum_goes_where_it_can(layer, open_branch):
    # A ReLU lets no offset pass, so the other branch has to take it.
    steps = [L.ReLU(), L.ReLU()]
    steps[open_branch] = lambda x: x
    check(weigh(branches(layer(), *steps), positive=True), folded=1, into="ab")
    blocked = branches(layer(), L.ReLU(), L.ReLU())
    check(weigh(blocked, positive=True), folded=0, reason="an offset does not pass")
    check(weigh(blocked, positive=True, offset=False), folded=1, into="ab")


def test_the_offset_of_sums_of_sums():
    inputs = keras.Input(IMAGE)
    a, b, c, d = (L.Conv2D(4, 2, name=name)(inputs) for name in "abcd")
    total = L.Add()([L.Add()([L.ReLU()(a), L.ReLU()(b)]), L.Add()([L.ReLU()(c), d])])
    model = keras.Model(inputs, bn()(total))
    check(weigh(model, positive=True), folded=1, into="abcd")


@pytest.mark.parametrize("combine", [L.Add, L.Concatenate])
def test_one_tensor_is_not_mapped_in_two_ways(combine):
    inputs = keras.Input(IMAGE)
    x = L.Conv2D(4, 2)(inputs)
    model = keras.Model(inputs, bn()(combine()([x, x])))
    check(weigh(model), folded=0, reason="map one tensor in two ways")


def test_a_product_takes_the_scale_into_one_factor():
    model = branches(L.Multiply(), L.Activation("sigmoid"), lambda x: x)
    check(weigh(model, offset=False), folded=1, into="b")
    check(weigh(model), folded=0, reason="an offset does not pass 'multiply")
    inputs = keras.Input(IMAGE)
    x = L.Conv2D(4, 2)(inputs)
    check(weigh(keras.Model(inputs, bn()(x * x)), offset=False), folded=0, reason="twice")


def test_a_product_takes_the_scale_into_the_factor_that_nothing_else_reads():
    inputs = keras.Input(IMAGE)
    x = L.Conv2D(4, 1)(inputs)
    gate = L.Conv2D(4, 1, name="gate")(L.GlobalAveragePooling2D(keepdims=True)(x))
    model = keras.Model(inputs, bn()(L.Multiply()([x, gate])))
    check(weigh(model, offset=False), folded=1, into=["gate"])


def test_a_gate_is_no_branch_that_varies_along_the_image():
    inputs = keras.Input(IMAGE)
    x = L.Conv2D(4, 1, name="x")(inputs)
    gate = L.Conv2D(1, 1, name="gate")(inputs)
    model = keras.Model(inputs, bn()(L.Multiply()([gate, x])))
    check(weigh(model, offset=False), folded=1, into=["x"])
    model = keras.Model(inputs, bn()(L.Add()([gate, x])))
    check(weigh(model, offset=False), folded=0, reason="one of the tensors before it does not have")


def test_forwards_through_what_combines():
    def model(combine, **need):
        inputs = keras.Input(IMAGE)
        x = bn()(L.Activation("tanh")(inputs))
        return weigh(keras.Model(inputs, L.Conv2D(3, 2, name="conv")(combine(x, inputs))), **need)

    pool = L.AveragePooling2D(3, strides=1, padding="same")
    check(model(lambda x, _: L.Add()([x, pool(x)])), folded=1, into=["conv"])
    check(model(lambda x, _: L.Subtract()([x, 3 * pool(x)])), folded=1, into=["conv"])
    check(model(lambda x, _: L.Average()([x, pool(x)])), folded=1, into=["conv"])
    check(model(lambda x, _: L.Maximum()([x, pool(x)]), positive=True), folded=1, into=["conv"])
    check(model(lambda x, _: L.Maximum()([x, pool(x)])), folded=0, reason="a negative scale")
    shifted = model(lambda x, _: L.Maximum()([x, x + 1.0]), positive=True)
    check(shifted, folded=0, reason="it would offset some inputs of 'maximum")
    check(model(lambda x, y: L.Concatenate()([y, x, pool(x)])), folded=1, into=["conv"])
    check(model(lambda x, y: L.Concatenate(axis=2)([x, pool(x)])), folded=1, into=["conv"])
    check(model(lambda x, y: L.Concatenate(axis=2)([y, x])), folded=0, reason="not the channel axis")
    check(model(lambda x, y: L.Multiply()([x, y]), offset=False), folded=1, into=["conv"])
    check(model(lambda x, y: L.Multiply()([x, pool(x)]), offset=False), folded=1, into=["conv"])
    check(model(lambda x, y: L.Multiply()([x, y])), folded=0, reason="an offset does not pass")
    check(model(lambda x, y: L.Add()([x, y])), folded=0, reason="some inputs of 'add")
    check(model(lambda x, y: L.Average()([x, y])), folded=0, reason="some inputs of 'average")
    offset_only = model(lambda x, y: L.Add()([x, y]))
    (layer,) = batch_norms(offset_only).values()
    layer.gamma.assign(np.sqrt(np.float64(layer.moving_variance) + layer.epsilon))
    # gamma is rounded, and then the scale is not 1 and stays.
    assert len(tfbn.fold(offset_only)[1].kept) == 1
    layer.moving_variance.assign([0.99] * 4)  # 0.99 + 1e-2 is 1 only in float32
    layer.epsilon = 1 - float(layer.moving_variance[0])
    layer.gamma.assign([1.0] * 4)
    check(offset_only, folded=1, into=["conv"])


# Taking part: every user of a tensor, every call of a layer.


def test_batch_norms_that_agree_go_together():
    def model(alike):
        inputs = keras.Input(IMAGE)
        x = L.Conv2D(4, 2, name="conv")(inputs)
        model = weigh(keras.Model(inputs, [L.ReLU()(bn(name="a")(x)), bn(name="b")(x)]))
        if alike:
            model.get_layer("a").set_weights(model.get_layer("b").get_weights())
        return model

    check(model(alike=True), folded=2, into=["conv"])
    check(model(alike=False), folded=0, reason="used by more than this batch norm: by 'b' too")


def test_the_reason_of_another_batch_norm_is_not_its_own():
    inputs = keras.Input(IMAGE)
    x = L.Conv2D(4, 2, name="conv")(inputs)
    training = bn(name="b")(x, training=True)
    model = weigh(keras.Model(inputs, [bn(name="a")(x), training]))
    reasons = {entry.path: entry.reason for entry in tfbn.fold(model)[1].kept}
    assert "used by more than this batch norm: by 'b' too" in reasons["a"]
    assert "called with training=True" in reasons["b"]


@pytest.mark.parametrize("alike", [True, False])
def test_a_shared_layer_folds_where_its_calls_agree(alike):
    a, b = keras.Input((4,)), keras.Input((4,))
    dense = L.Dense(5, name="dense")
    model = weigh(keras.Model([a, b], [bn(name="a")(dense(a)), L.ReLU()(bn(name="b")(dense(b)))]))
    if alike:
        model.get_layer("a").set_weights(model.get_layer("b").get_weights())
    check(model, folded=2 * alike, reason=None if alike else "'dense' is shared")


def test_a_shared_batch_norm_folds_where_all_its_calls_can():
    inputs = keras.Input(IMAGE)
    shared = bn(name="bn")
    x = shared(L.Conv2D(4, 1, name="b")(shared(L.Conv2D(4, 1, name="a")(inputs))))
    check(weigh(keras.Model(inputs, x)), folded=1, into="ab")
    x = shared(L.Conv2D(4, 1, name="b")(L.ReLU()(shared(inputs))))
    check(weigh(keras.Model(inputs, x)), folded=0, reason="it normalises an input of the model")
    x = L.Conv2D(4, 1)(shared(shared(inputs)))
    check(weigh(keras.Model(inputs, x)), folded=0, reason="is shared, and one of its calls feeds")
    two = [
        L.Conv2D(4, 1, name=name)(shared(f(inputs)))
        for name, f in zip("ab", (L.ReLU(), L.ELU()), strict=True)
    ]
    check(weigh(keras.Model(inputs, two)), folded=1, into="ab")


def test_a_shared_layer_takes_its_input_where_its_calls_agree():
    def model(second):
        inputs = keras.Input((4,))
        dense = L.Dense(3, name="dense")
        x = bn()(L.Activation("tanh")(inputs))
        return weigh(keras.Model(inputs, [dense(x), dense(second(x, inputs))]))

    check(model(lambda x, _: L.Dropout(0.5)(x)), folded=1, into=["dense"])
    check(model(lambda _, inputs: inputs), folded=0, reason="'dense' is shared")
    check(model(lambda x, _: x + 1.0), folded=0, reason="'dense' is shared")


def test_forwards_into_every_consumer():
    def model(offset, **arguments):
        inputs = keras.Input(IMAGE)
        x = bn()(L.Activation("tanh")(inputs))
        outputs = [L.Conv2D(3, 2, name="a")(x), L.Conv2D(3, 2, name="b", **arguments)(x)]
        return weigh(keras.Model(inputs, outputs), offset=offset)

    check(model(offset=True), folded=1, into="ab")
    check(model(offset=True, padding="same"), folded=0, reason="'b' pads its input with zeros")
    check(model(offset=False, padding="same"), folded=1, into="ab")
    check(model(offset=True, activation="tanh"), folded=1, into="ab")


def test_a_weight_in_another_layer_too_keeps_its_value():
    class Holder(L.Layer):
        def __init__(self, held=None, **kwargs):
            super().__init__(**kwargs)
            self.held = held

        def call(self, x):
            return x @ keras.ops.transpose(self.held.kernel)

        def get_config(self):
            return super().get_config() | {"held": keras.saving.serialize_keras_object(self.held)}

        @classmethod
        def from_config(cls, config):
            held = keras.saving.deserialize_keras_object(config.pop("held"))
            return cls(held, **config)

    inputs = keras.Input((4,))
    dense = L.Dense(5, name="dense")
    model = keras.Model(inputs, Holder(dense, name="holder")(bn()(dense(inputs))))
    check(weigh(model), folded=0, reason="'dense' has a weight in common with 'holder'")


# What takes a batch norm up.


def linear_layers():
    for rank, shape in ((1, (9, 4)), (2, IMAGE), (3, (5, 6, 5, 4))):
        yield f"Conv{rank}D", f"Conv{rank}D", {"filters": 6, "groups": 2}, shape
        yield f"Conv{rank}D dilated", f"Conv{rank}D", {"filters": 3, "dilation_rate": 2}, shape
        yield f"Conv{rank}DTranspose", f"Conv{rank}DTranspose", {"filters": 3, "strides": 2}, shape
        if rank < 3:
            yield f"DepthwiseConv{rank}D", f"DepthwiseConv{rank}D", {"depth_multiplier": 3}, shape
            arguments = {"filters": 5, "depth_multiplier": 2}
            yield f"SeparableConv{rank}D", f"SeparableConv{rank}D", arguments, shape


@pytest.mark.parametrize("padding", ["valid", "same"])
@pytest.mark.parametrize(
    ("name", "kind", "arguments", "shape"), [pytest.param(*one, id=one[0]) for one in linear_layers()]
)
def test_the_input_of_a_convolution(name, kind, arguments, shape, padding):
    layer = getattr(L, kind)(kernel_size=2, use_bias=name.endswith("1D"), padding=padding, **arguments)
    model = functional(shape, L.Activation("tanh"), bn(), layer, L.Activation("tanh"))
    takes = padding == "valid" and "Transpose" not in name
    reason = "pads its input" if padding == "same" else "is transposed"
    check(weigh(model), folded=int(takes), reason=None if takes else reason)
    check(weigh(model, offset=False), folded=1)


def test_a_causal_convolution_is_padded():
    model = functional((9, 4), L.Activation("tanh"), bn(), L.Conv1D(3, 2, padding="causal"))
    check(weigh(model), folded=0, reason="padding='causal'")


@pytest.mark.parametrize("activation", ["relu", "leaky_relu"])
def test_a_layers_own_activation(activation):
    model = functional(
        IMAGE, L.Conv2D(4, 2, activation=activation, name="conv"), bn(), L.Activation("tanh")
    )
    check(weigh(model, **STRAIGHT), folded=1, into=["conv"])
    check(weigh(model, **POSITIVE), folded=0, reason="and an offset does not pass")
    check(weigh(model, **PURE), folded=0, reason="and a negative scale does not pass")


def test_another_activation_of_a_layers_own():
    for layer in (L.Conv2D(4, 2, activation="tanh"), L.DepthwiseConv2D(2, activation="softplus")):
        model = weigh(functional(IMAGE, layer, bn()), **STRAIGHT)
        check(model, folded=0, reason="applies its own activation")


@pytest.mark.parametrize("kind", [tfbn.BatchNorm, L.BatchNormalization])
def test_batch_norms_merge_where_they_cannot_go(kind):
    model = functional(
        IMAGE, L.Activation("tanh"), kind(name="a"), L.Dropout(0.5), kind(name="b"), L.ReLU()
    )
    new, report = check(weigh(model), folded=1)
    (entry,) = report.folded
    (kept,) = report.kept
    assert entry.into == (kept.path,)
    assert type(new.get_layer(kept.path)) is kind
    model = functional(
        IMAGE, L.Activation("tanh"), kind(), kind(center=False, scale=False), L.Dense(3, name="dense")
    )
    check(randomize(model), folded=2, into=["dense"])
    steps = (L.Conv2D(3, 2, name="conv"), kind(), kind(), L.Activation("tanh"))
    check(randomize(functional(IMAGE, *steps)), folded=2, into=["conv"])
    model = functional(IMAGE, L.Activation("tanh"), kind(axis=1), kind(), L.ReLU())
    check(randomize(model), folded=0, reason="which is not the channel axis")


def test_a_transposed_convolution_keeps_its_output_padding():
    """Keras before 3.15 has no word of it in a configuration."""
    step = L.Conv2DTranspose(2, 2, strides=3, output_padding=1, name="conv")
    model = functional((4, 4, 3), step, bn(), L.ReLU())
    check(weigh(model), folded=1, into=["conv"])
    assert model.output_shape == (None, 12, 12, 2)


@pytest.mark.parametrize("kind", [tfbn.BatchNorm, L.BatchNormalization])
def test_a_batch_norm_without_gamma_and_beta_gets_both(kind):
    last = kind(name="b", center=False, scale=False)
    model = functional(IMAGE, L.Activation("tanh"), bn(), last, L.ReLU())
    check(weigh(model), folded=1, into="b")


def test_batch_norms_of_several_axes_merge():
    several = lambda name: bn(axis=[1, 3], name=name)  # noqa: E731
    model = functional(IMAGE, L.Activation("tanh"), several("a"), several("b"), L.ReLU())
    check(weigh(model), folded=1, into="b")
    check(alike(model, "gamma", "beta", "moving_mean", "moving_variance"), folded=1, into="b")


def test_a_batch_norm_in_training_takes_nothing_up():
    training = lambda x: bn(name="b")(x, training=True)  # noqa: E731
    model = functional(IMAGE, L.Activation("tanh"), bn(), training, L.ReLU())
    check(weigh(model), folded=0, reason="forwards, 'b' is called with training=True")


@pytest.mark.skipif(
    "renorm" not in inspect.signature(L.BatchNormalization).parameters,
    reason="before Keras 3.14 it has no renorm",
)
def test_a_batch_norm_with_more_weights_than_its_map_needs():
    kind = lambda name: L.BatchNormalization(name=name, renorm=True)  # noqa: E731
    model = functional(IMAGE, L.Activation("tanh"), kind("a"), kind("b"), L.ReLU())
    check(weigh(model), folded=1, into="b")


@pytest.mark.parametrize("before", ["float32", "mixed_float16"])
def test_a_batch_norm_that_widens_its_input_stays(before):
    first, last = L.Activation("tanh", dtype=before), L.Dense(3, dtype="float32")
    model = functional((4,), first, bn(dtype="float32"), lambda x: x * 2.0, last)
    # Where Keras casts by an operation of the graph, that one widens, and not the batch norm.
    goes = before == "float32" or cast_before_layers() is not None
    check(weigh(model), folded=int(goes), tolerance=1e-2)


def test_where_a_merged_batch_norm_goes_in_the_end():
    # Two negative scales cross no pool, but their product does.
    steps = (L.Conv2D(4, 2, name="conv"), L.MaxPooling2D(), bn(name="a"), bn(name="b"), L.ReLU())
    model = weigh(functional(IMAGE, *steps))
    for name in "ab":
        model.get_layer(name).gamma.assign([-1.0, -2, -1, -0.5])
    check(model, folded=2, into=["conv"])


def test_a_batch_norm_merges_across_a_pool():
    inputs = keras.Input(IMAGE)
    x = bn(name="a")(L.Activation("tanh")(inputs))
    x = bn(name="b")(L.MaxPooling2D()(x))
    model = keras.Model(inputs, L.Conv2D(3, 2, name="conv", padding="same")(x))
    check(weigh(model), folded=0, reason="a negative scale does not pass")
    check(weigh(model, positive=True), folded=1, into="b")


@pytest.mark.parametrize("scale", [1 / 255, [0.5, -2.0, 3.0, 0.1]])
def test_rescaling(scale):
    model = functional(IMAGE, L.Rescaling(scale, offset=-1.0, name="rescaling"), bn(), L.ReLU())
    check(weigh(model), folded=1, into=["rescaling"])
    model = functional(IMAGE, L.Rescaling(scale), bn(axis=1), L.ReLU())
    check(weigh(model), folded=0, reason="which is not the channel axis")


@pytest.mark.parametrize("arguments", [{"scale": [[1.0, 2, 3, 4]]}, {"scale": 2.0, "offset": [[1.0]]}])
def test_rescaling_along_several_axes(arguments):
    model = functional(IMAGE, L.Rescaling(**arguments), bn(), L.ReLU())
    check(weigh(model), folded=0, reason="scales along several axes")


@pytest.mark.parametrize("scale", [2.0, [0.5, -2.0, 3.0, 0.1]])
def test_rescaling_that_depends_on_the_configuration(scale, monkeypatch):
    model = weigh(functional(IMAGE, L.Rescaling(scale, name="rescaling"), bn(), L.ReLU()))
    monkeypatch.setattr(keras.config, "image_data_format", lambda: "channels_first")
    assert "image_data_format" in tfbn.fold(model)[1].kept[0].reason
    alike(model, "gamma", "beta", "moving_mean", "moving_variance")
    new, report = tfbn.fold(model)
    assert len(report.folded) == (scale == 2.0)
    assert np.ndim(new.get_layer("rescaling").scale) == np.ndim(scale)


def test_normalization():
    def model(**arguments):
        layer = L.Normalization(name="normalization", **arguments)
        if "mean" not in arguments:
            layer.adapt(reference.data((64, *IMAGE)))
        return functional(IMAGE, layer, bn(), L.ReLU())

    for arguments in ({}, {"mean": [1.0, 2, 3, 4], "variance": [4.0, 1, 2, 3]}):
        check(weigh(model(**arguments), positive=True), folded=1, into=["normalization"])
    check(weigh(model()), folded=0, reason="cannot take up a scale that is not positive")
    check(weigh(model(axis=1), positive=True), folded=0, reason="does not normalise just the last axis")
    check(weigh(model(invert=True), positive=True), folded=0, reason="not normalise just the last axis")


def test_statistics_of_a_normalization_that_are_alike_or_zero():
    def model(*variance):
        layer = L.Normalization(mean=[1.0, 2, 3, 4], variance=variance)
        return weigh(functional(IMAGE, layer, bn(name="bn"), L.ReLU()), positive=True)

    check(alike(model(2.0, 2, 2, 2), "gamma", "moving_variance"), folded=1)
    zero = model(0.0, 1, 2, 3)
    zero.get_layer("bn").set_weights([np.full(4, one) for one in (0.5, 1.0, 2.0, 1.0)])
    check(zero, folded=1)
    zero.get_layer("bn").gamma.assign([0.5, 1, 0, 1])
    check(zero, folded=0, reason="cannot take up a scale that is not positive")


@pytest.mark.parametrize(
    ("dtype", "deviation"), [("float32", 1e-8), ("float32", 1e21), ("mixed_float16", 1e-3)]
)
def test_a_deviation_that_a_normalization_cannot_have(dtype, deviation):
    # Keras divides by 1e-7 where it is less, and float16 has no digits of its square.
    keras.config.set_dtype_policy(dtype)
    layer = L.Normalization(mean=[0.0] * 4, variance=[1.0] * 4)
    model = weigh(functional((4,), layer, tfbn.BatchNorm(epsilon=1e-14), L.ReLU()), positive=True)
    model.layers[-2].set_weights([np.full(4, one) for one in (0.1 / deviation, 0.5, 0.0, 1e-2)])
    check(model, folded=0, reason="too small or too large", tolerance=1e-2)


# Nested models.


def nested(steps, name):
    inner = keras.Sequential([keras.Input(IMAGE), *steps], name=name)
    return inner


def test_across_the_border_of_a_nested_model():
    alone = lambda: nested([bn(name="bn")], "inner")  # noqa: E731
    check(
        weigh(functional(IMAGE, L.Conv2D(4, 1, name="conv"), alone(), L.ReLU())), folded=1, into=["conv"]
    )
    check(
        weigh(functional(IMAGE, L.ReLU(), alone(), L.Conv2D(4, 1, name="conv"))), folded=1, into=["conv"]
    )
    within = nested([L.Conv2D(4, 1, name="conv"), L.Dropout(0.5)], "inner")
    check(weigh(functional(IMAGE, within, bn())), folded=1, into=["inner/conv"])
    inputs = keras.Input(IMAGE)
    as_it_is = keras.Model(inputs, bn()(inputs), name="functional")
    check(weigh(functional(IMAGE, L.Conv2D(4, 1, name="conv"), as_it_is)), folded=1, into=["conv"])


def test_a_nested_model_called_twice():
    inner = nested([L.Conv2D(4, 1, name="conv"), bn(name="inside"), L.ReLU()], "inner")
    inputs = keras.Input(IMAGE)
    model = keras.Model(inputs, bn(name="outside")(L.Add()([inner(inputs), inner(inner(inputs))])))
    check(weigh(model), folded=1, into=["inner/conv"], reason="does not pass")
    linear = nested([L.Conv2D(4, 1, name="conv")], "inner")
    check(weigh(functional(IMAGE, linear, linear, bn())), folded=0, reason="'conv' is shared")
    shared = bn(name="bn")
    check(weigh(functional(IMAGE, linear, shared, linear, shared)), folded=1, into=["inner/conv"])


def test_nested_models_with_several_inputs_and_outputs():
    a, b = keras.Input((4,), name="a"), keras.Input((4,), name="b")
    for structure in ([a, b], {"a": a, "b": b}, (b, a)):
        outputs = [L.Dense(5, name="first")(a), bn(name="inside")(b)]
        inner = keras.Model(structure, outputs, name="inner")
        x, y = keras.Input((4,)), keras.Input((4,))
        given = {"a": L.Dense(4, name="x")(x), "b": L.Dense(4, name="y")(y)}
        listed = [given[one.name] for one in keras.tree.flatten(structure)]
        one, two = inner(keras.tree.pack_sequence_as(structure, listed))
        model = keras.Model([x, y], [bn(name="outside")(one), two])
        check(weigh(model), folded=2, into=["inner/first", "y"])


def test_outputs_of_a_nested_model_by_name():
    a = keras.Input((4,))
    outputs = {"y": L.Dense(5, name="first")(a), "x": L.Activation("tanh")(a)}
    inner = keras.Model(a, outputs, name="inner")
    x = keras.Input((4,))
    named = inner(x)
    model = keras.Model(x, {"p": bn()(named["y"]), "b": named["x"]})
    check(weigh(model), folded=1, into=["inner/first"])


def test_an_output_of_a_nested_model_that_nothing_reads_stays_what_it_is():
    a = keras.Input((4,))
    inner = keras.Model(a, [L.Dense(5)(a), bn(name="idle")(L.Activation("tanh")(a))], name="inner")
    x = keras.Input((4,))
    model = weigh(keras.Model(x, inner(x)[0]))
    new, _ = check(model, folded=0, reason="its result is an output of the model")
    data = reference.data((5, 4))
    got, want = (one.get_layer("inner")(data)[1] for one in (new, model))
    assert relative_difference(got, want) < FLOAT32


def test_inputs_matched_by_name_are_not_followed():
    a, b = keras.Input((4,), name="a"), keras.Input((4,), name="b")
    inner = keras.Model([a, b], [L.Dense(5)(a), bn(name="inside")(b)], name="inner")
    x, y = keras.Input((4,)), keras.Input((4,))
    outputs = inner({"b": L.Dense(4, name="y")(y), "a": L.Dense(4, name="x")(x)})
    model = keras.Model([x, y], outputs)
    check(weigh(model), folded=0, reason="it normalises an input of the model")
    inner = keras.Model([a, b], [bn()(L.Dense(5, name="first")(a)), b], name="inner")
    model = keras.Model([x, y], inner({"b": L.Dense(4, name="y")(y), "a": x}))
    check(weigh(model), folded=1, into=["inner/first"])
