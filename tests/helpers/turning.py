"""Channels-first models turned to channels last, and compared by XLA.

XLA runs every channels-first layer on every processor, and knows nothing of how we turn models.
"""

import inspect

import keras
import tensorflow as tf

import reference
import tfbn
from networks import FLOAT32, randomize, relative_difference
from tfbn.batch_norms import layer_paths
from tfbn.declared_graph import declared_inputs

L = keras.layers
FIRST = {"data_format": "channels_first"}


def by_xla(model, x, **arguments):
    return tf.function(lambda x: model(x, **arguments), jit_compile=True)(x)


def samples(model, count=3):
    tensors = [
        tf.constant(reference.data((count, *tensor.shape[1:])) + number, tensor.dtype)
        for number, tensor in enumerate(model.inputs)
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
    for tensor, expected in zip(turned.inputs, model.inputs, strict=True):
        assert (tensor.shape, tensor.dtype) == (expected.shape, expected.dtype)
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


def conv(filters=4, size=3, **arguments):
    return L.Conv2D(filters, size, **{"padding": "same", **FIRST, **arguments})


def sequential():
    layers = [conv(4, name="conv"), tfbn.BatchNorm(axis=1), L.ReLU(), L.MaxPooling2D(2, **FIRST)]
    layers += [conv(5, 2), L.BatchNormalization(axis=1), L.Flatten(), L.Dense(3, name="top")]
    return keras.Sequential([keras.Input((3, 8, 6)), *layers])
