"""Layers and weights of Keras 1 as files hold them, and what they compute."""

import numpy as np

import legacy_files as files
import legacy_oracle as oracle
from draws import RANDOM

CLOSE = {"rtol": 1e-5, "atol": 1e-5}  # float32 sums of a few products


def draw(*shape):
    return RANDOM.normal(0.2, 0.7, shape).astype("float32")


def dense(name, units, **config):
    return files.layer(
        "Dense", name, output_dim=units, init="uniform", activation="linear", bias=True, **config
    )


def dense_weights(name, *shape):
    return name, [(f"{name}_W", draw(*shape)), (f"{name}_b", draw(shape[1]))]


def arrays(pairs):
    return [array.astype("float64") for _, array in pairs[1]]


def apply(x, pairs):
    W, b = arrays(pairs)
    return x @ W + b


def norm(name, **config):
    return files.layer(
        "BatchNormalization",
        name,
        **({"mode": 0, "axis": -1, "epsilon": 0.01, "momentum": 0.9} | config),
    )


def norm_weights(name, size):
    values = [draw(size), draw(size), draw(size), draw(size) ** 2]
    return name, [
        (f"{name}_{weight}", value)
        for weight, value in zip(("gamma", "beta", "running_mean", "running_std"), values, strict=True)
    ]


def normalized(x, pairs, axis=-1):
    return oracle.batch_norm(x, arrays(pairs), lambda s, eps: np.sqrt(s + eps), 0.01, axis)


def lstm_config(**config):
    base = {"output_dim": 4, "init": "uniform", "inner_init": "orthogonal", "forget_bias_init": "one"}
    return (
        base
        | {"activation": "tanh", "inner_activation": "hard_sigmoid", "return_sequences": True}
        | config
    )
