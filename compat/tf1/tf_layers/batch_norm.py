"""`tf.layers.batch_normalization`, the function of TF1's layers module."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras
import tensorflow as tf

from ....axes import channel_axes
from ..bn_ops import (
    BatchNormOptions,
    apply_batch_norm,
    check_clipping,
    place_updates,
    static_training,
)
from ..bn_variables import BatchNormVariables, create_batch_norm_variables, parameter_dtype
from ..keras_tensors import apply_layer, check_supported
from ..scopes import check_owner, create_variable
from .layer import Layer

tf1 = tf.compat.v1


def batch_normalization(
    inputs: Any,
    axis: int | Sequence[int] = -1,
    momentum: Any = 0.99,
    epsilon: float = 1e-3,
    center: bool = True,
    scale: bool = True,
    beta_initializer: Any = tf1.zeros_initializer(),  # noqa: B008 (the signature's own)
    gamma_initializer: Any = tf1.ones_initializer(),  # noqa: B008
    moving_mean_initializer: Any = tf1.zeros_initializer(),  # noqa: B008
    moving_variance_initializer: Any = tf1.ones_initializer(),  # noqa: B008
    beta_regularizer: Any = None,
    gamma_regularizer: Any = None,
    beta_constraint: Any = None,
    gamma_constraint: Any = None,
    training: Any = False,
    trainable: bool = True,
    name: str | None = None,
    reuse: Any = None,
    renorm: bool = False,
    renorm_clipping: Mapping[str, Any] | None = None,
    renorm_momentum: Any = 0.99,
    fused: bool | None = None,
    virtual_batch_size: int | None = None,
    adjustment: Callable[[tf.Tensor], Any] | None = None,
) -> Any:
    """`tf.layers.batch_normalization`, with its variables, operations, collections and numbers.

    It works where `compat.batch_norm` does: in a TF1 graph, a `compat.VariableScopeLayer` and on a Keras
    tensor. The updates go to UPDATE_OPS and are not run; you run them with the training step.

    Args:
        inputs: tensor of known rank.
        axis: channel axis, or several. With several, or virtual batches, parameters keep the rank of the
            input (with its groups), and 1 elsewhere.
        momentum: weight of the old value in the moving averages.
        epsilon: added to the variance.
        center, scale: whether there is an offset `beta`, a factor `gamma`.
        beta_initializer, gamma_initializer, moving_mean_initializer, moving_variance_initializer,
        beta_regularizer, gamma_regularizer, beta_constraint, gamma_constraint: of the variables.
        training: bool, or a boolean tensor or variable that decides when the graph runs.
        trainable: whether beta and gamma enter TRAINABLE_VARIABLES. The statistics move either way.
        name: variable scope; `batch_normalization`, made unique, if `None`.
        reuse: of the variable scope.
        renorm, renorm_clipping, renorm_momentum: batch renormalisation (arXiv 1702.03275), its bounds
            `rmax`, `rmin`, `dmax`, and the weight of the old value in its averages.
        fused: the moving variance takes the unbiased variance of the batch at rank 4 and 5 unless
            `False`, and the biased one at other ranks, with renorm, virtual batches or an adjustment.
        virtual_batch_size: samples that are normalised together; it divides the size of the batch. They
            are strided, as ever: of 8 samples, two virtual batches of 4 take every second one.
        adjustment: from the input's shape to a factor and an offset, applied in training before gamma
            and beta.

    Returns:
        A tensor of `inputs`' shape and type.

    Raises:
        ValueError: an axis, rank, number of channels or combination of arguments that it cannot take; an
            eager tensor outside any layer.
        TypeError: `training` is no truth value.

    >>> from tfbn import compat
    >>> x = keras.Input((4,))
    >>> model = keras.Model(x, compat.batch_normalization(x))
    >>> [weight.name for weight in model.weights]
    ['gamma', 'beta', 'moving_mean', 'moving_variance']
    """
    arguments = dict(locals())
    if isinstance(inputs, keras.KerasTensor):
        return _keras_layer(**arguments)
    check_owner("batch_normalization")
    inputs = arguments["inputs"] = tf.convert_to_tensor(inputs)
    options = _options(**arguments)
    with tf1.variable_scope(name, "batch_normalization", [inputs], reuse=reuse):
        outputs, updates = apply_batch_norm(inputs, _variables(options, **arguments), options, training)
        return place_updates(updates, tf1.GraphKeys.UPDATE_OPS, outputs)


class BatchNormalization(Layer):
    """`tf.layers.BatchNormalization`: `batch_normalization` whose variables later calls share."""

    base_name = "batch_normalization"
    call_arguments = ("training",)
    parameters = {  # noqa: RUF012
        name: parameter.default
        for name, parameter in inspect.signature(batch_normalization).parameters.items()
        if name not in ("inputs", "training", "reuse")
    }

    def keras_layer(self, inputs: keras.KerasTensor, **call: Any) -> keras.KerasTensor:
        return batch_normalization(inputs, **call, **self.arguments)

    def compute(self, x: tf.Tensor, **call: Any) -> tf.Tensor:
        given = self.arguments | {"name": tf1.get_variable_scope()}
        return batch_normalization(x, **call, **given)


def _options(inputs: tf.Tensor, axis: Any, training: Any, **arguments: Any) -> BatchNormOptions:
    """The same arguments in the words of the core, once they have been looked at."""
    static_training(training)
    check_clipping(arguments["renorm"], arguments["renorm_clipping"])
    if inputs.shape.rank is None:
        raise ValueError(f"Input {inputs.name} has undefined rank. Give it one with set_shape.")
    axes = channel_axes(axis, inputs.shape.rank)
    if any(inputs.shape.as_list()[channel_axis] is None for channel_axis in axes):
        raise ValueError(
            f"Input has undefined `axis` dimension. Received input with shape {inputs.shape} and "
            f"axis={axes}. Give it a size with set_shape."
        )
    _check_virtual(axes, **arguments)
    special = arguments["renorm"] or arguments["virtual_batch_size"] or arguments["adjustment"]
    fused = arguments["fused"] is not False and len(axes) == 1
    return BatchNormOptions(
        axes,
        arguments["momentum"],
        arguments["epsilon"],
        fused=fused,
        unbiased=fused and not special and _fused_layout(axes[0], inputs.shape.rank),
        renorm_clipping=dict(arguments["renorm_clipping"] or {}),
        renorm_decay=arguments["renorm_momentum"],
        adjustment=arguments["adjustment"],
        virtual_batch_size=arguments["virtual_batch_size"],
    )


def _fused_layout(axis: int, rank: int) -> bool:
    """Whether TF1 had a fused kernel for such an input."""
    return rank in (4, 5) and axis in (1, rank - 1)


def _check_virtual(axes: tuple[int, ...], virtual_batch_size: Any, adjustment: Any, **_: Any) -> None:
    if virtual_batch_size is None:
        return
    if not isinstance(virtual_batch_size, int) or virtual_batch_size <= 0:
        raise ValueError(
            "`virtual_batch_size` must be a positive integer that divides the true batch size of the "
            f"input tensor. Received: virtual_batch_size={virtual_batch_size!r}"
        )
    if 0 in axes or adjustment is not None:
        raise ValueError(
            "When using `virtual_batch_size`, adjustment cannot be specified, and the batch dimension "
            f"must be 0 and thus axis cannot include 0. Received axis={axes}, adjustment={adjustment!r}"
        )


def _variables(options: BatchNormOptions, inputs: tf.Tensor, **arguments: Any) -> BatchNormVariables:
    axes = channel_axes(options.axis, inputs.shape.rank)
    sizes = [size if number in axes else 1 for number, size in enumerate(inputs.shape.as_list())]
    if options.virtual_batch_size:
        sizes.insert(1, 1)
    elif len(axes) == 1:
        sizes = [sizes[axes[0]]]
    dtype = parameter_dtype(inputs.dtype)

    def make(name: str, statistic: bool, **more: Any) -> Any:
        return create_variable(
            name,
            shape=sizes,
            dtype=dtype,
            model=False,
            statistic=statistic,
            trainable=arguments["trainable"] and not statistic,
            regularizer=arguments.get(f"{name}_regularizer"),
            constraint=arguments.get(f"{name}_constraint"),
            **more,
        )

    names = ("beta", "gamma", "moving_mean", "moving_variance")
    initializers = {name: arguments[f"{name}_initializer"] for name in names}
    parameters = [name for name, key in (("gamma", "scale"), ("beta", "center")) if arguments[key]]
    return create_batch_norm_variables(make, parameters, initializers, arguments["renorm"])


def _keras_layer(inputs: keras.KerasTensor, **arguments: Any) -> keras.KerasTensor:
    check_supported("batch_normalization", arguments)
    check_clipping(arguments["renorm"], arguments["renorm_clipping"])
    rank = len(inputs.shape)
    axes = channel_axes(arguments["axis"], rank)
    plain = arguments["fused"] is not False and not arguments["renorm"] and len(axes) == 1
    kept = ["epsilon", "center", "scale", "trainable", "renorm", "renorm_clipping"]
    kept += [key for key in arguments if key.endswith(("_initializer", "_regularizer", "_constraint"))]
    return apply_layer(
        inputs,
        "batch_normalization",
        scope=arguments["name"],
        default_name="batch_normalization",
        training=arguments["training"],
        axis=axes,
        decay=arguments["momentum"],
        renorm_decay=arguments["renorm_momentum"],
        unbiased=plain and _fused_layout(axes[0], rank),
        **{name: arguments[name] for name in kept},
    )
