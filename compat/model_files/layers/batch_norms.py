"""Batch normalisation of Keras 1 and 2 as ours."""

from __future__ import annotations

import math
from typing import Any

from ....layer import BatchNorm
from ....renorm import BatchRenorm
from ... import keras1
from ...keras1.initializers import initializer as keras1_initializer
from . import stored_statistics as statistics
from .layer_spec import Call, Made, Row, keras_layer


def keras1_batch_norm(row: Row, call: Call, arguments: dict[str, Any]) -> Made:
    """Mode 0 as `tfbn.BatchNorm`, modes 1 and 2 as `compat.BatchNormalization`.

    What running_std holds is told by `statistics.formula`. How it moves is not followed where 1.2.2 on
    Theano moves it towards variance + epsilon (its own code hands back 1 / stdinv²): ours moves towards
    the variance, as all others do.
    """
    part, mode = call.layer.path, arguments.pop("mode")
    if "epsilon" not in arguments:
        arguments["epsilon"] = statistics.default(statistics.EPSILON, call.origin, part)
    if "momentum" not in arguments:
        arguments["momentum"] = statistics.default(statistics.MOMENTUM, call.origin, part)
    if mode:
        layer = keras1.BatchNormalization(mode=mode, **arguments)
        call.note(mode, "", layer)
        return Made([layer], weights=call.arrays)
    rule = statistics.formula(call.origin, part)
    *affine, deviation = call.arrays
    variance, epsilon = statistics.modern(rule, deviation, arguments["epsilon"], part)
    layer = BatchNorm(
        decay=arguments.pop("momentum"),
        epsilon=epsilon,
        beta_initializer=keras1_initializer("beta_init", arguments.pop("beta_init"), "beta"),
        gamma_initializer=keras1_initializer("gamma_init", arguments.pop("gamma_init"), "gamma"),
        **{key: value for key, value in arguments.items() if key != "epsilon"},
    )
    call.note(mode, rule.stored, layer)
    return Made([layer], weights=[*affine, variance])


def keras2_batch_norm(row: Row, call: Call, arguments: dict[str, Any]) -> Made:
    """`tfbn.BatchNorm`, with `unbiased` as that release trained; `tfbn.BatchRenorm` of renorm=True."""
    axis, rank = arguments["axis"], len(call.shape)
    listed = axis if isinstance(axis, list) else [axis]
    virtual = arguments.pop("virtual_batch_size", None) is not None
    if virtual:  # counted with the axis of virtual batches, which the layer puts behind the first
        listed = [one - 1 if one > 0 else one for one in listed]
        axis = arguments["axis"] = listed if len(listed) > 1 else listed[0]
    axes = len(listed)
    if call.layer.class_name == "SyncBatchNormalization":
        arguments["synchronized"] = True
    if arguments.get("synchronized"):
        rank = 0  # no kernel of tf.keras fused it, of any rank
    arguments["unbiased"] = statistics.unbiased(call.origin, rank, axes, call.layer.path)
    clipping = arguments.pop("renorm_clipping", None) or {}
    if arguments.pop("renorm", False):
        if arguments.get("renorm_decay") is None:
            arguments["renorm_decay"] = 0.99
        layer = keras_layer(BatchRenorm, arguments | clipping)
    else:
        layer = keras_layer(row.layer, arguments, "renorm_decay")
    call.note(0, "variance", layer)
    weights = call.arrays
    known = [size for axis in listed if (size := call.shape[axis]) is not None]
    sizes = known if (axes > 1 or virtual) and len(known) == axes else []
    if sizes:  # the file has ones between them
        weights = [one.reshape(sizes) if one.size == math.prod(sizes) else one for one in weights]
    return Made([layer], weights=weights)
