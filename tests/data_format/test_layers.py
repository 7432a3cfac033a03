"""Channels-first models turned to channels last, against the originals run by XLA.

XLA runs every channels-first layer on every processor, and knows nothing of how we turn models.
"""

import dataclasses
import inspect

import keras
import numpy as np
import pytest

import reference
import tfbn
from sweeps import some
from turning import FIRST, arguments_of, chain, check, conv

L = keras.layers
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


@pytest.mark.both
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


@pytest.mark.parametrize("name", some(STEPS, [*STEPS][::2]))
def test_what_follows_a_convolution(name):
    """Each between two convolutions, or behind one where it gives no images."""
    turned = check(chain((3, 9, 7), conv(), *STEPS[name]()))
    assert turned.count_params() > 0
    model = chain((3, 9, 7), conv(), *STEPS[name]())
    if len(model.output_shape) == 4:
        check(keras.Model(model.inputs[0], conv(2)(model.outputs[0])))


def test_a_layer_that_is_called_alone_and_at_each_step_stays_shared():
    for stepwise_first in (False, True):
        shared = conv(4, name="both")
        inputs = [keras.Input((3, 5, 6)), keras.Input((2, 3, 5, 6))]
        layers = [shared, L.TimeDistributed(shared)]
        pairs = list(zip(layers, inputs, strict=True))[:: -1 if stepwise_first else 1]
        model = keras.Model(inputs, [layer(x) for layer, x in pairs])
        assert check(model).count_params() == model.count_params()


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
