"""Batch norms of Keras 1 and 2 as `tfbn.BatchNorm`, `BatchRenorm` or `compat.BatchNormalization`."""

from __future__ import annotations

import math
from typing import Any

from ....layer import BatchNorm
from ....renorm import BatchRenorm
from ... import keras1
from ...keras1.initializers import initializer as keras1_initializer
from .layer_spec import BuildContext, BuiltLayers, LayerSpec, keras_layer
from .stored_statistics import EPSILON, MOMENTUM, default, formula, modern, unbiased


def keras1_batch_norm(spec: LayerSpec, context: BuildContext, arguments: dict[str, Any]) -> BuiltLayers:
    """Mode 0 as `tfbn.BatchNorm`, modes 1 and 2 as `compat.BatchNormalization`.

    `stored_statistics.formula` tells what running_std holds. It moves towards the variance, as in every
    release but 1.2.2 on Theano, where it moved towards variance + epsilon (that code hands back
    1 / stdinv²).
    """
    part, mode = context.layer.path, arguments.pop("mode")
    if "epsilon" not in arguments:
        arguments["epsilon"] = default(EPSILON, context.writer, part)
    if "momentum" not in arguments:
        arguments["momentum"] = default(MOMENTUM, context.writer, part)
    if mode:
        layer = keras1.BatchNormalization(mode=mode, **arguments)
        context.note(mode, "", layer)
        return BuiltLayers([layer], weights=context.arrays)
    rule = formula(context.writer, part)
    *affine, deviation = context.arrays
    variance, epsilon = modern(rule, deviation, arguments["epsilon"], part)
    layer = BatchNorm(
        decay=arguments.pop("momentum"),
        epsilon=epsilon,
        beta_initializer=keras1_initializer("beta_init", arguments.pop("beta_init"), "beta"),
        gamma_initializer=keras1_initializer("gamma_init", arguments.pop("gamma_init"), "gamma"),
        **{key: value for key, value in arguments.items() if key != "epsilon"},
    )
    context.note(mode, rule.stored, layer)
    return BuiltLayers([layer], weights=[*affine, variance])


def keras2_batch_norm(spec: LayerSpec, context: BuildContext, arguments: dict[str, Any]) -> BuiltLayers:
    """`tfbn.BatchNorm`, with `unbiased` as that release trained; `tfbn.BatchRenorm` of renorm=True."""
    axis, rank = arguments["axis"], len(context.shape)
    listed = axis if isinstance(axis, list) else [axis]
    virtual = arguments.pop("virtual_batch_size", None) is not None
    if virtual:  # counted with the axis of virtual batches, which the layer puts behind the first
        listed = [index - 1 if index > 0 else index for index in listed]
        axis = arguments["axis"] = listed if len(listed) > 1 else listed[0]
    axes = len(listed)
    if context.layer.class_name == "SyncBatchNormalization":
        arguments["synchronized"] = True
    if arguments.get("synchronized"):
        rank = 0  # no kernel of tf.keras fused it, of any rank
    arguments["unbiased"] = unbiased(context.writer, rank, axes, context.layer.path)
    clipping = arguments.pop("renorm_clipping", None) or {}
    if arguments.pop("renorm", False):
        if arguments.get("renorm_decay") is None:
            arguments["renorm_decay"] = 0.99
        layer = keras_layer(BatchRenorm, arguments | clipping)
    else:
        layer = keras_layer(spec.layer, arguments, "renorm_decay")
    context.note(0, "variance", layer)
    weights = context.arrays
    known = [size for axis in listed if (size := context.shape[axis]) is not None]
    sizes = known if (axes > 1 or virtual) and len(known) == axes else []
    if sizes:  # the file has ones between them
        weights = [
            array.reshape(sizes) if array.size == math.prod(sizes) else array for array in weights
        ]
    return BuiltLayers([layer], weights=weights)
