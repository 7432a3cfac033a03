"""Channels-first models turned to channels last, against the originals run by XLA.

XLA runs every channels-first layer on every processor, and knows nothing of how we turn models.
"""

import dataclasses
import inspect

import keras
import numpy as np
import pytest
import tensorflow as tf

import reference
import tfbn
from networks import FLOAT32, randomize, relative_difference
from tfbn.batch_norms import batch_norms, layer_paths
from tfbn.cloning import declared_inputs
from tfbn.data_format import check_kernels, support

L = keras.layers
FIRST = {"data_format": "channels_first"}


def by_xla(model, x, **arguments):
    return tf.function(lambda x: model(x, **arguments), jit_compile=True)(x)


def samples(model, count=3):
    tensors = [
        tf.constant(reference.data((count, *one.shape[1:])) + number, one.dtype)
        for number, one in enumerate(model.inputs)
    ]
    return keras.tree.pack_sequence_as(declared_inputs(model), tensors)


def check(model, permutes=None):
    """Turn a model with random weights, and compare what it predicts; returns the new one."""
    randomize(model)
    turned = tfbn.convert(model, data_format="channels_last")
    for layer in layer_paths(turned).values():
        assert getattr(layer, "data_format", "channels_last") == "channels_last", layer.name
    if not isinstance(model, keras.Sequential):
        assert list(turned.output_names) == list(model.output_names)
    for one, other in zip(turned.inputs, model.inputs, strict=True):
        assert (one.shape, one.dtype) == (other.shape, other.dtype)
    x = samples(model)
    for got, want in zip(
        keras.tree.flatten(turned(x)), keras.tree.flatten(by_xla(model, x)), strict=True
    ):
        assert got.shape == want.shape
        assert relative_difference(got, want) < FLOAT32
    if permutes is not None:
        found = [name for name, layer in layer_paths(turned).items() if type(layer) is L.Permute]
        assert len(found) == permutes, found
    return turned


def chain(shape, *steps):
    inputs = x = keras.Input(shape, name="images")
    for step in steps:
        x = step(x)
    return keras.Model(inputs, x)


def arguments_of(kind):
    """Arguments that a layer with a `data_format` needs, by those its class knows."""
    known = inspect.signature(kind).parameters
    rank = next((int(digit) for digit in kind.__name__ if digit.isdigit()), 2)
    margins = (1, 2) if rank == 1 else ((1, 2),) * rank
    values = {
        "filters": 4,
        "kernel_size": (3, 2, 2)[:rank],
        "pool_size": (2, 3, 2)[:rank],
        "output_size": (2, 3, 2)[:rank],
        "padding": margins if "ZeroPadding" in kind.__name__ else "same",
        "cropping": ((1, 0),) * rank,
        "size": (2, 3, 2)[:rank],
        "height": 4,
        "width": 5,
        "rate": 0.5,
        "factor": 0.3,
        "height_factor": 0.3,
        "return_sequences": True,
    }
    return {name: value for name, value in values.items() if name in known}, rank


KINDS = sorted(
    (
        kind
        for kind in vars(L).values()
        if inspect.isclass(kind)
        and "data_format" in inspect.signature(kind).parameters
        and kind.__name__[0] != "_"
    ),
    key=lambda kind: kind.__name__,
)
# Layers that augment images know a `data_format`, too; what they do at random cannot be compared.
AUGMENTING = {kind for kind in KINDS if "image_preprocessing" in kind.__module__} - {
    L.Resizing,
    L.CenterCrop,
}


def test_the_layers_with_a_data_format_are_found():
    assert {L.Conv2D, L.ConvLSTM2D, L.Flatten, L.GlobalMaxPooling3D, L.SpatialDropout2D} <= set(KINDS)


@pytest.mark.once  # and both kinds of kernels run the models below
@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind not in AUGMENTING])
def test_every_layer_of_keras_with_a_data_format(kind):
    arguments, rank = arguments_of(kind)
    shape = (2, 6, 5, 7)[: rank + 1]
    if "ConvLSTM" in kind.__name__:
        shape = (3, *shape)
    if kind.__name__ == "STFTSpectrogram":
        shape = (2, 500)
    check(chain(shape, kind(**arguments, **FIRST)))


@pytest.mark.parametrize(
    ("kind", "arguments"),
    [
        (L.Conv2D, {"groups": 2, "dilation_rate": 2, "kernel_size": 2}),
        (L.Conv2D, {"filters": 5, "strides": 2, "activation": "softmax", "padding": "same"}),
        (L.Conv2DTranspose, {"strides": 2, "output_padding": 1}),
        (L.GlobalAveragePooling2D, {"keepdims": True}),
        (L.ConvLSTM2D, {"return_sequences": False}),
        (L.UpSampling2D, {"interpolation": "bilinear", "size": 2}),  # another size is wrong under XLA
        (L.Flatten, {}),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_their_settings(kind, arguments):
    shape = (3, 4, 9, 8) if kind is L.ConvLSTM2D else (4, 9, 8)
    layer = kind(**arguments_of(kind)[0] | arguments | FIRST, name="it")
    turned = check(chain(shape, layer, L.Activation("tanh")))
    assert isinstance(turned.get_layer("it"), kind)


def conv(filters=4, size=3, **arguments):
    return L.Conv2D(filters, size, **{"padding": "same", **FIRST, **arguments})


STEPS = {
    "batch norm": lambda: [tfbn.BatchNorm(axis=1)],
    "Keras' batch norm": lambda: [L.BatchNormalization(axis=1)],
    "batch norm over channels and rows": lambda: [tfbn.BatchNorm(axis=[1, 2])],
    "batch norm over rows and columns": lambda: [tfbn.BatchNorm(axis=[-2, 3])],
    "renorm": lambda: [tfbn.BatchRenorm(axis=1)],
    "layer norm": lambda: [L.LayerNormalization(axis=[1, 2, 3])],
    "layer norm over columns": lambda: [L.LayerNormalization(axis=-1)],
    "group norm": lambda: [L.GroupNormalization(2, axis=1)],
    "unit norm": lambda: [L.UnitNormalization(axis=[1, 3])],
    "normalization": lambda: [L.Normalization(axis=1)],
    "softmax": lambda: [L.Softmax(axis=1)],
    "softmax over two axes": lambda: [L.Softmax(axis=[1, -1])],
    "softmax over columns": lambda: [L.Activation("softmax")],
    "PReLU": lambda: [L.PReLU()],
    "PReLU shared": lambda: [L.PReLU(shared_axes=[2, 3])],
    "activations": lambda: [L.Activation("gelu"), L.LeakyReLU(), L.ELU(), L.ReLU(3.0)],
    "dropout": lambda: [L.Dropout(0.5, noise_shape=(None, 4, 1, 1)), L.GaussianNoise(1.0)],
    "dense": lambda: [L.Dense(3)],
    "reshape": lambda: [L.Reshape((4, 63)), L.Conv1D(2, 3, **FIRST)],
    "permute": lambda: [L.Permute((2, 3, 1)), L.Conv2D(3, 2, data_format="channels_last")],
    "two permutes": lambda: [L.Permute((3, 1, 2)), L.Permute((2, 3, 1))],
    "flatten": lambda: [L.Flatten(), L.Dense(3)],
    "pooled": lambda: [L.GlobalMaxPooling2D(keepdims=True, **FIRST), L.Flatten(), L.Dense(3)],
    "mean": lambda: [lambda x: keras.ops.mean(x, axis=(2, 3))],
    "mean of two axes": lambda: [lambda x: keras.ops.mean(x, axis=(1, 2), keepdims=True) + x],
    "maximum along channels": lambda: [lambda x: keras.ops.max(x, axis=1)],
    "sum of all": lambda: [lambda x: keras.ops.sum(x, axis=[1, 2, 3])],
    "operations": lambda: [lambda x: keras.ops.relu(2.0 * x - 1) / (keras.ops.abs(x) + 3.0)],
    "a constant array": lambda: [lambda x: x * reference.data((4, 1, 1)).astype("float32")],
    "joined": lambda: [lambda x: L.Concatenate(axis=1)([x, x]), lambda x: L.Add()([x, x])],
    "joined along rows": lambda: [lambda x: keras.ops.concatenate([x, x], axis=-2)],
    "ranks mixed": lambda: [lambda x: L.Add()([x, L.GlobalAveragePooling2D()(x)[:, :1]])],
    "a slice": lambda: [lambda x: x[:, 1:3]],
    "several steps": lambda: [
        L.Reshape((3, 4, 3, 7)),
        L.TimeDistributed(L.Conv2D(5, 2, **FIRST)),
        L.TimeDistributed(L.BatchNormalization(axis=1)),
        L.TimeDistributed(L.Flatten()),
    ],
    "a model at each step": lambda: [
        L.Reshape((3, 4, 3, 7)),
        L.TimeDistributed(keras.Sequential([keras.Input((4, 3, 7)), conv(), L.PReLU(), L.Flatten()])),
    ],
}


@pytest.mark.once
@pytest.mark.parametrize("name", STEPS)
def test_what_follows_a_convolution(name):
    """Each between two convolutions, or behind one where it gives no images."""
    turned = check(chain((3, 9, 7), conv(), *STEPS[name]()))
    assert turned.count_params() > 0
    model = chain((3, 9, 7), conv(), *STEPS[name]())
    if len(model.output_shape) == 4:
        check(keras.Model(model.inputs[0], conv(2)(model.outputs[0])))


def residual():
    """Branches, a nested and a shared model, two inputs, a dictionary of outputs."""
    images, other = keras.Input((3, 8, 7), name="images"), keras.Input((4, 8, 7), name="other")
    inner = keras.Sequential(
        [keras.Input((4, 8, 7)), conv(), tfbn.BatchNorm(axis=1), L.ReLU()], name="inner"
    )
    a, b = keras.Input((4, 8, 7)), keras.Input((4, 8, 7))
    pair = keras.Model([a, b], [L.Add()([conv()(a), b]), L.Multiply()([a, b])], name="pair")
    x = conv(name="stem")(images)
    x = L.Add()([inner(x), inner(other)])
    y, z = pair([x, other])
    z = L.MaxPooling2D(2, **FIRST)(L.ZeroPadding2D(1, **FIRST)(z))
    outputs = {"map": conv(1, 1, name="head")(y), "class": L.Dense(3, name="top")(L.Flatten()(z))}
    return keras.Model([images, other], outputs)


def test_branches_nested_models_and_several_inputs():
    model = residual()
    turned = check(model, permutes=4)  # two inputs, the images put out, and what Flatten reads
    named, wanted = ({one.path: one for one in each.variables} for each in (turned, model))
    assert named.keys() == wanted.keys()
    for path, variable in wanted.items():
        np.testing.assert_array_equal(named[path], variable)


def sequential():
    layers = [conv(4, name="conv"), tfbn.BatchNorm(axis=1), L.ReLU(), L.MaxPooling2D(2, **FIRST)]
    layers += [conv(5, 2), L.BatchNormalization(axis=1), L.Flatten(), L.Dense(3, name="top")]
    return keras.Sequential([keras.Input((3, 8, 6)), *layers])


def test_a_sequential_model_stays_one(tmp_path):
    model = sequential()
    turned = check(model, permutes=2)
    assert isinstance(turned, keras.Sequential)
    assert [one.name for one in turned.layers if type(one) is not L.Permute] == [
        one.name for one in model.layers
    ]
    turned.save(tmp_path / "m.keras")
    x = samples(model)
    np.testing.assert_array_equal(keras.models.load_model(tmp_path / "m.keras")(x), turned(x))


def test_training_goes_on_equally():
    """Both by XLA, which is there on every machine: ten steps of the same data."""

    def trained(model):
        model.compile(keras.optimizers.SGD(0.02), "mse", jit_compile=True)
        x, y = samples(model, 16), reference.data((16, 3)).astype("float32")
        history = model.fit(x, y, epochs=5, batch_size=8, shuffle=False, verbose=0)
        return history.history["loss"], model.get_weights()

    model = randomize(sequential())
    turned = tfbn.convert(model, data_format="channels_last")
    start = model.get_weights()
    (losses, weights), (expected, wanted) = trained(turned), trained(model)
    np.testing.assert_allclose(losses, expected, rtol=1e-4)
    assert max(np.abs(one - other).max() for one, other in zip(wanted, start, strict=True)) > 1e-2
    for one, other in zip(weights, wanted, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-3, atol=1e-4)  # ten steps, rounded in each


def test_frozen_layers_and_types_are_kept():
    model = residual()
    model.get_layer("inner").layers[0].trainable = False
    model.get_layer("stem").trainable = False
    turned = tfbn.convert(model, data_format="channels_last")
    paths = {variable.path for variable in model.trainable_variables}
    assert {variable.path for variable in turned.trainable_variables} == paths
    keras.config.set_dtype_policy("mixed_float16")
    inputs = keras.Input((3, 6, 5), dtype="float64")
    half = keras.Model(inputs, conv(dtype="float64")(inputs))
    keras.config.set_dtype_policy("float32")
    turned = tfbn.convert(randomize(half), data_format="channels_last")
    x = reference.data((2, 3, 6, 5))
    assert relative_difference(turned(x), by_xla(half, x)) < 1e-12  # a Permute of float16 would show


def test_it_folds_exports_and_serves(tmp_path):
    """A bias along the axis that Keras takes for the channels' is no obstacle any more."""
    layers = [conv(6), tfbn.BatchNorm(axis=1), L.ReLU(), L.MaxPooling2D(2, **FIRST), conv(3)]
    layers += [tfbn.BatchNorm(axis=1), L.Flatten(), tfbn.BatchNorm(), L.Dense(2)]
    model = keras.Sequential([keras.Input((3, 6, 6), name="images"), *layers])
    for layer in batch_norms(model).values():
        layer.moving_mean.assign(layer.moving_mean + 0.5)
    assert "Keras would add a bias along that one" in str(tfbn.fold(model)[1])
    turned = tfbn.convert(model, data_format="channels_last")
    folded, report = tfbn.fold(turned)
    assert (len(report.folded), len(report.kept)) == (3, 0), str(report)
    x = samples(model)
    assert relative_difference(folded(x), by_xla(model, x)) < FLOAT32
    told = tfbn.export(turned, tmp_path / "served")
    assert told.inputs == {"images": ((None, 3, 6, 6), "float32")}
    served = tf.saved_model.load(str(tmp_path / "served")).signatures["serving_default"]
    assert relative_difference(served(images=x)["output_0"], by_xla(model, x)) < FLOAT32


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
    for one in (turned, keras.models.load_model(tmp_path / "m.keras")):
        assert relative_difference(one(x), wanted) < FLOAT32


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


def test_batch_norms_are_replaced_only_if_asked():
    model = sequential()
    turned = tfbn.convert(model, data_format="channels_last")
    kinds = [type(one) for one in batch_norms(model).values()]
    assert [type(one) for one in batch_norms(turned).values()] == kinds
    both = tfbn.convert(model, to=tfbn.BatchNorm, data_format="channels_last")
    assert {type(one) for one in batch_norms(both).values()} == {tfbn.BatchNorm}
    assert {one.axis for one in batch_norms(both).values()} == {-1}


def test_a_model_that_is_channels_last_is_only_copied():
    model = chain((6, 5, 3), L.Conv2D(4, 3), tfbn.BatchNorm(), L.Flatten(), L.Dense(2))
    turned = check(model, permutes=0)
    assert [one.get_config() for one in turned.layers] == [one.get_config() for one in model.layers]


class Mine(L.Layer):
    """A layer of the user's own around a channels-first convolution."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.conv = L.Conv2D(3, 2, name="inside", **FIRST)

    def call(self, x):
        return self.conv(x)


class Sub(L.Conv2D):
    """A subclass, which may do something else."""


def shared():
    layer = L.ReLU(name="shared")
    inputs = keras.Input((3, 6, 5))
    x = layer(conv()(inputs))
    return keras.Model(inputs, layer(L.Conv1D(2, 2, **FIRST)(L.Reshape((4, 30))(x))))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: chain((3, 6, 5), Mine(name="mine")),
            r"'mine/inside' \(Conv2D\) would stay channels first",
        ),
        (lambda: chain((3, 6, 5), Sub(2, 2, name="sub", **FIRST)), r"'sub' \(Sub\) would stay"),
        (
            lambda: chain((2, 3, 6, 5), L.ConvLSTM2D(2, 2, activation="softmax", name="lstm", **FIRST)),
            r"'lstm' \(ConvLSTM2D\) cannot be made channels last: its activation may depend on",
        ),
        (
            shared,
            "'shared' cannot be made channels last, because it is called on tensors of several ranks",
        ),
    ],
    ids=["inside", "subclass", "softmax in a cell", "several ranks"],
)
def test_what_cannot_be_turned_is_named(make, message, unchanged):
    model = make()
    with unchanged(model), pytest.raises(ValueError, match=message):
        tfbn.convert(model, data_format="channels_last")


def test_a_bias_that_keras_adds_elsewhere_is_refused(monkeypatch, tmp_path):
    """As wide as it has channels: turned, the model would not predict what it does."""
    model = chain((3, 5, 4), conv(4, name="square"))
    tfbn.convert(model, data_format="channels_last")  # its bias is 0
    model.get_layer("square").bias.assign([1, 2, 3, 4])
    x = samples(model)
    wrong = by_xla(model, x) - by_xla(
        keras.Model(model.inputs[0], conv(4, use_bias=False)(model.inputs[0])), x
    )
    assert wrong.shape == (3, 4, 5, 4)
    with pytest.raises(ValueError, match="the outputs of 'square' are as long along the last axis"):
        tfbn.convert(model, data_format="channels_last")
    monkeypatch.setattr(support, "has_kernel", lambda kind, dtype: True)
    with pytest.raises(
        ValueError, match="The outputs of 'square' are as long along the last axis.*in some"
    ):
        tfbn.export(model, tmp_path / "out")


@pytest.mark.parametrize("wrong", ["channels_first", "NHWC", 1])
def test_other_formats_are_refused(wrong):
    with pytest.raises(ValueError, match=f"'channels_last' or None, received {wrong!r}"):
        tfbn.convert(sequential(), data_format=wrong)


class OwnCode(keras.Model):
    """A subclassed model, which convert does not take."""

    def __init__(self):
        super().__init__()
        self.conv = conv()

    def build(self, shape):
        self.conv.build(shape)
        self.built = True

    def call(self, x):
        return self.conv(x)


def test_a_model_that_cannot_run_here_is_refused_at_the_entry(monkeypatch, tmp_path, unchanged):
    """On this machine, or on one without the kernels."""
    monkeypatch.setattr(support, "has_kernel", lambda kind, dtype: False)
    model = sequential()
    message = (
        r"The model runs 'conv', 'max_pooling2d\S*', 'conv2d\S*' channels first, for which TensorFlow "
        r"has no kernel on this machine's CPU without oneDNN\. Make the model channels last with "
        r"tfbn\.convert\(model, data_format='channels_last'\), or set the environment variable "
        r"TF_ENABLE_ONEDNN_OPTS=1 before"
    )
    x = samples(model)
    for refused in (
        lambda: tfbn.export(model, tmp_path / "out"),
        lambda: tfbn.recalibrate(model, x),
        lambda: tfbn.population_statistics(model, x),
    ):
        with unchanged(model), pytest.raises(RuntimeError, match=message):
            refused()
    assert not list(tmp_path.iterdir())
    check_kernels(tfbn.convert(model, data_format="channels_last"))
    opaque = OwnCode()
    opaque.build((None, 3, 6, 5))
    with pytest.raises(RuntimeError, match=r"oneDNN\. Make the layers channels last in the code of the"):
        check_kernels(opaque)
    double = chain((3, 6, 5), conv(dtype="float64"))
    monkeypatch.setattr(support, "has_kernel", lambda kind, dtype: dtype != "float64")
    with pytest.raises(
        RuntimeError, match=r"CPU\. Make the model channels last with \S+ data_format=\S+\)\.$"
    ):
        check_kernels(double)


@pytest.mark.parametrize("kind", support.RANKS, ids=lambda kind: kind.__name__)
def test_whether_there_is_a_kernel_is_told_by_running_it(kind):
    rank = support.RANKS[kind]
    arguments, _ = arguments_of(kind)
    x = tf.ones([1, 2, 6, 5, 4][:rank] if "LSTM" not in kind.__name__ else [1, 2, 2, 6, 5, 4][:rank])
    layer = kind(**arguments | FIRST)
    if support.has_kernel(kind, "float32"):
        layer(x)
    else:
        with pytest.raises(tf.errors.OpError):
            layer(x)


def test_a_function_of_tensorflow_that_cannot_run_here_is_told(tmp_path):
    """Inside a layer of the user's own, where it cannot be seen before it runs."""

    class Own(L.Layer):
        def call(self, x):
            raise tf.errors.UnimplementedError(
                None, None, "The Conv2D op currently only supports the NHWC tensor format on the CPU."
            )

        def compute_output_shape(self, shape):
            return shape

    with pytest.raises(
        RuntimeError,
        match="The model runs a function of TensorFlow channels first.*Make it channels last in its",
    ):
        tfbn.export(chain((3, 6, 5), Own()), tmp_path / "out", fold=False)


def with_mask(layer):
    """A mask that is made of the images, and so laid out as they are."""
    inputs = keras.Input((3, 4, 4))
    x = conv(use_bias=False)(inputs)
    return keras.Model(inputs, layer(x, mask=keras.ops.cast(L.ReLU()(x), "bool")))


def test_a_mask_of_the_images_has_the_layout_that_it_had():
    check(with_mask(L.Softmax(axis=1)))


def test_a_bias_that_keras_adds_elsewhere_at_each_step_is_refused():
    inputs = keras.Input((2, 3, 5, 4))
    model = keras.Model(inputs, L.TimeDistributed(conv(4), name="square")(inputs))
    model.get_layer("square").layer.bias.assign([1, 2, 3, 4])
    with pytest.raises(ValueError, match="the outputs of 'square' are as long along the last axis"):
        tfbn.convert(model, data_format="channels_last")


def test_a_layer_that_is_called_alone_and_at_each_step_stays_shared():
    for stepwise_first in (False, True):
        shared = conv(4, name="both")
        inputs = [keras.Input((3, 5, 6)), keras.Input((2, 3, 5, 6))]
        layers = [shared, L.TimeDistributed(shared)]
        pairs = list(zip(layers, inputs, strict=True))[:: -1 if stepwise_first else 1]
        model = keras.Model(inputs, [layer(x) for layer, x in pairs])
        assert check(model).count_params() == model.count_params()


def test_activity_regularizers_stay_where_they_were():
    layers = [
        conv(activation="softmax", activity_regularizer="l2"),
        L.Reshape((2, 2, 9, 7)),
        L.TimeDistributed(conv(), activity_regularizer="l1"),
        L.Permute((1, 3, 4, 2), activity_regularizer="l2"),
        tfbn.BatchNorm(activity_regularizer="l1"),
    ]
    model = chain((3, 9, 7), *layers)
    turned = check(model)
    x = samples(model)
    losses = []
    for one in (model, turned):
        losses.append(tf.function(lambda x, one=one: (one(x), sum(one.losses))[1], jit_compile=True)(x))
    np.testing.assert_allclose(losses[1], losses[0], rtol=1e-5)
    assert losses[0] > 1


def test_operations_with_bounds_for_each_column():
    low, high = [-0.1, -0.2, -0.3, -0.4], [0.1, 0.2, 0.3, 0.4]
    check(chain((3, 4, 4), conv(use_bias=False), lambda x: keras.ops.clip(x, low, high)))
    check(chain((3, 4, 5), conv(), lambda x: keras.ops.clip(x, -0.1, 0.1)), permutes=2)


def test_short_noise_shapes():
    check(chain((3, 5, 6), conv(), L.Dropout(0.5, noise_shape=(4, 1, 1)), conv()), permutes=2)


@dataclasses.dataclass
class Scale:
    """An activation that Keras cannot write down, and that has no hash."""

    by: float

    def __call__(self, x):
        return self.by * x


@pytest.mark.parametrize(
    "activation",
    [lambda x: x * keras.ops.sigmoid(x), Scale(2.0), L.LeakyReLU(0.2)],
    ids=["lambda", "unhashable", "a layer"],
)
def test_activations_of_the_users_own(activation):
    turned = check(chain((3, 5, 6), conv(activation=activation, name="it")), permutes=2)
    x = np.float32([-2, 3])
    np.testing.assert_array_equal(turned.get_layer("it").activation(x), activation(x))


def test_states_by_keyword():
    sequences = keras.Input((3, 2, 5, 6))
    states = [keras.Input((4, 5, 6)) for _ in range(2)]
    lstm = L.ConvLSTM2D(4, 3, padding="same", **FIRST)
    check(keras.Model([sequences, *states], lstm(sequences=sequences, initial_state=states)))


def test_several_layers_at_each_step_are_left_alone():
    """As they were, for nothing in them is channels first."""
    inputs = keras.Input((2, 3, 5, 6))
    x = L.TimeDistributed(L.Permute((3, 1, 2)))(inputs)
    x = L.TimeDistributed(L.TimeDistributed(L.Dense(4)))(x)
    check(keras.Model(inputs, L.TimeDistributed(conv(2))(x)))


def test_one_merging_layer_for_two_and_for_three():
    add = L.Add()
    inputs = keras.Input((3, 5, 6))
    x, y = conv()(inputs), conv()(inputs)
    check(keras.Model(inputs, add([add([x, y]), x, y])), permutes=2)


def test_one_variable_frozen_alone_and_constraints_along_an_axis():
    model = sequential()
    model.get_layer("conv").kernel.trainable = False
    turned = tfbn.convert(model, data_format="channels_last")
    assert len(turned.trainable_weights) == len(model.trainable_weights)
    assert turned.get_layer("conv").kernel.trainable is False
    check(chain((3, 5, 6), conv(), L.PReLU(alpha_constraint=keras.constraints.MaxNorm(0.3, axis=0))))


def test_what_a_layer_of_ones_own_raises_is_told():
    class Own(L.Layer):
        def call(self, x):
            return x

        def get_config(self):
            raise KeyError("units")

    with pytest.raises(ValueError, match=r"'own' \(Own\) cannot be copied.*'units'"):
        tfbn.convert(chain((3, 5, 6), conv(), Own(name="own")), data_format="channels_last")


class ByHand(L.Conv2D):
    """A subclass that runs everywhere."""

    def call(self, x):
        turned = tf.nn.conv2d(tf.transpose(x, (0, 2, 3, 1)), self.kernel, 1, "SAME")
        return tf.transpose(turned, (0, 3, 1, 2))


def test_a_subclass_that_does_it_otherwise_is_not_refused(monkeypatch):
    monkeypatch.setattr(support, "has_kernel", lambda kind, dtype: False)
    check_kernels(chain((3, 5, 6), ByHand(2, 3, padding="same", **FIRST)))
