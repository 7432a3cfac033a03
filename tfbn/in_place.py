"""Keras' own batch norms, computed by our kernels: `convert(model, in_place=True)` and back.

No layer is replaced. A layer gets a `call` as an attribute of the instance, which Python finds before
that of the class, and Keras calls what it finds. The class, and with it the configuration, the weights
and what is saved, stay Keras' own. Keras writes no such attribute down: a loaded, cloned or copied model
is the stock model. (`population.accumulator` stands in for layers in the same way, and puts this back.)
"""

from __future__ import annotations

from collections.abc import Iterable
from types import FunctionType, MethodType
from typing import Any

import keras
import tensorflow as tf

from . import kernels
from .batch_norms import layer_paths
from .layer import BatchNorm

STOCK = keras.layers.BatchNormalization

# What a subclass may redefine and still compute what Keras' class computes.
HARMLESS = {"__init__", "build", "get_config", "compute_output_shape"}

# Where Keras keeps a compiled model's traced functions; `None` before the first use and after compile().
TRACED = ("train_function", "test_function", "predict_function")


def has_our_kernels(layer: keras.layers.Layer) -> bool:
    """Whether a stock batch norm is computed by our kernels."""
    return getattr(vars(layer).get("call"), "__func__", None) is _call


def set_kernels(model: keras.Model, ours: bool) -> list[str]:
    """Let our kernels, or Keras' own code, compute the stock batch norms inside a model.

    Either all of them change or, where an error is raised, none.

    Returns:
        The paths of the batch norms that are left as they are: with `ours`, instances of subclasses that
        compute something of their own; otherwise those of `tfbn.BatchNorm`, which is no stock layer.
    """
    layers = layer_paths(model)
    if ours:
        stock = {path: layer for path, layer in layers.items() if isinstance(layer, STOCK)}
        left = [path for path, layer in stock.items() if _computes_its_own(layer)]
        changed = [layer for path, layer in stock.items() if path not in left]
    else:
        left = [path for path, layer in layers.items() if isinstance(layer, BatchNorm)]
        changed = [layer for layer in layers.values() if has_our_kernels(layer)]
    changed = [layer for layer in changed if has_our_kernels(layer) != ours]
    if changed:
        _change([model, *layers.values()], changed, ours)
    return left


def _change(around: Iterable[Any], changed: list[Any], ours: bool) -> None:
    models = [layer for layer in around if isinstance(layer, keras.Model)]
    traced = [(each, name, getattr(each, name, None)) for each in models for name in TRACED]
    traced = [entry for entry in traced if entry[2] is not None]
    try:
        for layer in changed:
            _set_call(layer, ours)
        for each, name, _ in traced:
            setattr(each, name, None)  # Keras makes it again, and so traces what is there now
    except BaseException:
        for layer in changed:
            _set_call(layer, not ours)
        for each, name, function in traced:
            if getattr(each, name) is None:
                setattr(each, name, function)
        raise


def _set_call(layer: Any, ours: bool) -> None:
    # Not by setattr, which Keras tracks and locks once a layer is built.
    if ours:
        vars(layer)["call"] = MethodType(_call, layer)
    else:
        vars(layer).pop("call", None)


def _computes_its_own(layer: Any) -> bool:
    """Whether a stock batch norm, or one of a subclass, does not compute what Keras' class computes."""
    if "call" in vars(layer):
        return not has_our_kernels(layer)
    kinds = type(layer).__mro__
    redefined = {name for kind in kinds[: kinds.index(STOCK)] for name in vars(kind)}
    methods = {name for name, value in vars(STOCK).items() if isinstance(value, FunctionType)}
    return bool(redefined & methods - HARMLESS)


def _call(layer: Any, inputs: Any, training: Any = None, mask: Any = None) -> Any:
    """`BatchNormalization.call`, as Keras defines it, with our kernels where they compute the same.

    Keras' own code computes the others: with a mask, with renorm in training, and with synchronized in
    training on several replicas.
    """
    trains = training and layer.trainable
    apart = trains and (getattr(layer, "renorm", False) or _across_replicas(layer))
    if apart or mask is not None or isinstance(inputs, keras.KerasTensor):
        return type(layer).call(layer, inputs, training=training, mask=mask)
    inputs = tf.convert_to_tensor(inputs)
    inputs = inputs if inputs.dtype.is_floating else tf.cast(inputs, tf.float32)
    # Without center or scale, Keras does not always set the attribute.
    beta = layer.beta if layer.center else None
    gamma = layer.gamma if layer.scale else None
    affine = (beta, gamma, layer.epsilon, layer.axis)
    if trains:
        outputs, moments = kernels.normalize_batch(inputs, *affine)
        _step(layer.moving_mean, moments.mean, layer.momentum)
        _step(layer.moving_variance, moments.variance, layer.momentum)
    else:
        mean, variance = layer.moving_mean, layer.moving_variance
        outputs = kernels.normalize_at_inference(inputs, mean, variance, *affine)
    return tf.cast(outputs, layer.compute_dtype)


def _step(moving: keras.Variable, value: tf.Tensor, momentum: float) -> None:
    """Keras' moving average, in the type of the moments, which may be wider than the variable's."""
    old = tf.cast(moving, value.dtype)
    moving.assign(old * momentum + value * (1.0 - momentum))


def _across_replicas(layer: Any) -> bool:
    replica = tf.distribute.get_replica_context()
    return layer.synchronized and replica is not None and replica.num_replicas_in_sync > 1
