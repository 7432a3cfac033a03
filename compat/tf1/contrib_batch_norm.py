"""`tf.contrib.layers.batch_norm`: what TF1 code, slim's networks and their checkpoints call."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras
import tensorflow as tf

from .arg_scope import ScopedFunction
from .bn_ops import (
    BatchNormOptions,
    apply_batch_norm,
    check_clipping,
    place_updates,
    static_training,
)
from .bn_variables import BatchNormVariables, create_batch_norm_variables, parameter_dtype
from .keras_tensors import apply_layer, check_supported
from .layer.inner_batch_norms import of_this_graph
from .scopes import check_owner, collect, collect_output, create_variable, of_variable

UPDATE_OPS = tf.compat.v1.GraphKeys.UPDATE_OPS
SEVENTH = 6  # the position at which the first and the last releases' arguments part


def _check_order(arguments: tuple[Any, ...]) -> None:
    """Refuse an argument by position that means something else in the last releases."""
    seventh = arguments[SEVENTH] if len(arguments) > SEVENTH else UPDATE_OPS
    if seventh is None or isinstance(seventh, Mapping):
        raise ValueError(
            "The seventh argument of compat.batch_norm is updates_collections, received "
            f"{seventh!r}; contrib 1.4 to 1.15 had param_initializers there. Pass it by name: "
            "updates_collections=None runs the updates in place."
        )


@functools.partial(ScopedFunction, slim_name="batch_norm", check=_check_order)
def batch_norm(
    inputs: Any,
    decay: Any = 0.999,
    center: bool = True,
    scale: bool = False,
    epsilon: float = 0.001,
    activation_fn: Callable[[Any], Any] | None = None,
    updates_collections: str | Sequence[str] | None = UPDATE_OPS,
    is_training: Any = True,
    reuse: Any = None,
    variables_collections: str | Sequence[str] | Mapping[str, Sequence[str]] | None = None,
    outputs_collections: str | Sequence[str] | None = None,
    trainable: bool = True,
    scope: Any = None,
    *,
    param_initializers: Mapping[str, Any] | None = None,
    param_regularizers: Mapping[str, Any] | None = None,
    batch_weights: Any = None,
    fused: bool | None = None,
    data_format: str = "NHWC",
    zero_debias_moving_mean: bool = False,
    renorm: bool = False,
    renorm_clipping: Mapping[str, Any] | None = None,
    renorm_decay: Any = 0.99,
    adjustment: Callable[[tf.Tensor], Any] | None = None,
) -> Any:
    """`tf.contrib.layers.batch_norm`, with its variables, operations, collections and numbers.

    In a TF1 graph, with v2 behaviour on or off, it is what it was. In a `compat.VariableScopeLayer` its
    variables are the layer's weights. On a Keras tensor it is a `tfbn.BatchNorm` layer of a functional
    model, named by `scope`. Its defaults can be set with `compat.arg_scope` and tf_slim's.

    Where it differs from the original: an empty batch, or weights that are all 0, leave the statistics
    as they were; parameters are at least float32; fused or not it takes any rank from 1 on.

    Args:
        inputs: tensor of known rank whose channels are the last axis, or the second with NCHW.
        decay: weight of the old value in the moving averages; `moving -= (1 − decay)(moving − batch)`.
        center, scale: whether there is an offset `beta`, a factor `gamma`.
        epsilon: added to the variance.
        activation_fn: applied last.
        updates_collections: collections that receive the two update operations, which are not run; you
            run them with the training step. `None` runs them in place, before the output.
        is_training: bool, or a boolean tensor or variable that decides when the graph runs.
        reuse: of the variable scope; `True` needs a `scope`.
        variables_collections: for all variables, or a mapping from `beta`, `gamma`, `moving_mean` and
            `moving_variance` to collections.
        outputs_collections: collections for the output.
        trainable: whether beta and gamma enter TRAINABLE_VARIABLES. The statistics move either way.
        scope: variable scope; `BatchNorm`, made unique, if `None`.
        param_initializers: for beta, gamma, moving_mean, moving_variance, by name.
        param_regularizers: for beta and gamma, by name, into REGULARIZATION_LOSSES.
        batch_weights: weight of each sample, `[batch]`.
        fused: the moving variance takes the batch's biased variance if `None` (the first releases) or
            `False` (later ones' unfused path, formulas instead of the kernel), and the unbiased one if
            `True`, at rank 2, 4 and 5 (later ones' fused path).
        data_format: "NHWC" or "NCHW".
        zero_debias_moving_mean: correct the moving mean for its start at 0.
        renorm, renorm_clipping, renorm_decay: batch renormalisation (arXiv 1702.03275), its bounds
            `rmax`, `rmin`, `dmax`, and the weight of the old value in its averages.
        adjustment: from the input's shape to a factor and an offset, applied in training before gamma
            and beta.

    Returns:
        A tensor of `inputs`' shape and type.

    Raises:
        ValueError: a data format, rank, number of channels or combination of arguments that it cannot
            take; an eager tensor outside any layer, whose variables nobody would own.
        TypeError: `is_training` is no truth value.

    >>> from tfbn import compat
    >>> x = keras.Input((4,))
    >>> model = keras.Model(x, compat.batch_norm(x, scope="conv1/BatchNorm"))
    >>> [weight.name for weight in model.weights]
    ['beta', 'moving_mean', 'moving_variance']
    """
    return _batch_norm(False, **locals())


@functools.partial(ScopedFunction, slim_name="batch_norm")
def last_batch_norm(
    inputs: Any,
    decay: Any = 0.999,
    center: bool = True,
    scale: bool = False,
    epsilon: float = 0.001,
    activation_fn: Callable[[Any], Any] | None = None,
    param_initializers: Mapping[str, Any] | None = None,
    param_regularizers: Mapping[str, Any] | None = None,
    updates_collections: str | Sequence[str] | None = UPDATE_OPS,
    is_training: Any = True,
    reuse: Any = None,
    variables_collections: str | Sequence[str] | Mapping[str, Sequence[str]] | None = None,
    outputs_collections: str | Sequence[str] | None = None,
    trainable: bool = True,
    batch_weights: Any = None,
    fused: bool | None = None,
    data_format: str = "NHWC",
    zero_debias_moving_mean: bool = False,
    scope: Any = None,
    renorm: bool = False,
    renorm_clipping: Mapping[str, Any] | None = None,
    renorm_decay: Any = 0.99,
    adjustment: Callable[[tf.Tensor], Any] | None = None,
) -> Any:
    """`tf.contrib.layers.batch_norm` of contrib 1.4 to 1.15, and of tf_slim: `tf1.contrib` has this one.

    Its arguments are in the order of those releases, and unless `fused` is `False` the moving variance
    takes the unbiased variance of the batch at the ranks of their fused kernel. Where they called the
    layer of tf.layers gamma is made before beta in a graph. Otherwise it is `compat.batch_norm`: see
    there, also for what is raised.
    """
    return _batch_norm(True, **locals() | {"fused": fused is not False})


def _batch_norm(last: bool, inputs: Any, **arguments: Any) -> Any:
    """The batch norm of the last releases, or of the first."""
    if isinstance(inputs, keras.KerasTensor):
        return _keras_layer(inputs, **arguments)
    check_owner("batch_norm")
    inputs = arguments["inputs"] = tf.convert_to_tensor(inputs)
    axis = _checked_axis(**arguments)
    options = _options(axis, **arguments)
    scope, reuse, activation_fn = (arguments[name] for name in ("scope", "reuse", "activation_fn"))
    with tf.compat.v1.variable_scope(scope, "BatchNorm", [inputs], reuse=reuse) as variable_scope:
        variables = _variables(axis, last, **arguments)
        outputs, updates = apply_batch_norm(inputs, variables, options, arguments["is_training"])
        outputs = place_updates(updates, arguments["updates_collections"], outputs)
        if activation_fn is not None:
            outputs = activation_fn(outputs)
        return collect_output(arguments["outputs_collections"], variable_scope.name, outputs)


def _keras_layer(inputs: keras.KerasTensor, **arguments: Any) -> keras.KerasTensor:
    axis = _checked_axis(inputs, **arguments)
    check_supported("batch_norm", arguments)
    given = {
        f"{name}_{kind}": value
        for kind in ("initializer", "regularizer")
        for name, value in (arguments[f"param_{kind}s"] or {}).items()
    }
    names = ["decay", "epsilon", "center", "scale", "trainable", "scope"]
    names += ["renorm", "renorm_clipping", "renorm_decay"]
    return apply_layer(
        inputs,
        "batch_norm",
        default_name="BatchNorm",
        training=arguments["is_training"],
        activation=arguments["activation_fn"],
        axis=axis,
        unbiased=_stores_unbiased(inputs, **arguments),
        **{name: arguments[name] for name in names},
        **given,
    )


def _checked_axis(
    inputs: Any, data_format: str, updates_collections: Any, is_training: Any, **arguments: Any
) -> int:
    """The channel axis, once everything that can be wrong has been looked at."""
    if data_format not in ("NHWC", "NCHW"):
        raise ValueError(f"data_format has to be either NCHW or NHWC. Received {data_format!r}.")
    check_clipping(arguments["renorm"], arguments["renorm_clipping"])
    if is_training is not None or isinstance(inputs, tf.Tensor):
        static_training(is_training)
    if isinstance(inputs, tf.Tensor) and inputs.shape.rank is None:
        raise ValueError(f"Inputs {inputs.name} has undefined rank. Give it one with set_shape.")
    axis = 1 if data_format == "NCHW" else -1
    least = 2 if data_format == "NCHW" else 1
    sizes = tf.TensorShape(inputs.shape).as_list()
    if len(sizes) < least or sizes[axis] is None:
        raise ValueError(
            f"Inputs {inputs.name} has undefined channels dimension {inputs.shape}. Give axis {axis} a "
            "size with set_shape."
        )
    special = arguments["batch_weights"] is not None or arguments["zero_debias_moving_mean"]
    if arguments["renorm"] and (special or updates_collections != UPDATE_OPS):
        raise ValueError(
            "renorm is not supported with batch_weights, updates_collections or zero_debias_moving_mean"
            f": received updates_collections={updates_collections!r}. Leave one of the two out."
        )
    return axis


def _options(axis: int, inputs: tf.Tensor, **arguments: Any) -> BatchNormOptions:
    weights = arguments["batch_weights"]
    if weights is not None:
        weights = tf.convert_to_tensor(weights)
        inputs.shape[:1].assert_is_compatible_with(weights.shape)
    return BatchNormOptions(
        axis,
        arguments["decay"],
        arguments["epsilon"],
        fused=arguments["fused"] is not False,
        unbiased=_stores_unbiased(inputs, **arguments),
        weights=weights,
        renorm_clipping=dict(arguments["renorm_clipping"] or {}),
        renorm_decay=arguments["renorm_decay"],
        adjustment=arguments["adjustment"],
    )


def _stores_unbiased(inputs: Any, **arguments: Any) -> bool:
    """Whether the later releases' fused path, which stored the unbiased variance, is asked for."""
    special = arguments["renorm"] or any(
        arguments[name] is not None for name in ("batch_weights", "adjustment")
    )
    in_collection = arguments["updates_collections"] == UPDATE_OPS
    ranks = (2, 4, 5) if in_collection and not arguments["zero_debias_moving_mean"] else (2, 4)
    return bool(arguments["fused"]) and not special and len(inputs.shape) in ranks


def _by_core_layer(inputs: tf.Tensor, **arguments: Any) -> bool:
    """Whether the last releases called the layer of tf.layers, which makes gamma before beta."""
    by_itself = arguments["batch_weights"] is not None or arguments["zero_debias_moving_mean"]
    kernel_alone = inputs.shape.rank == 2 and _stores_unbiased(inputs, **arguments)
    return arguments["updates_collections"] == UPDATE_OPS and not by_itself and not kernel_alone


def _variables(axis: int, last: bool, inputs: tf.Tensor, **arguments: Any) -> BatchNormVariables:
    # Files know the weights of a layer by their positions, checkpoints of a graph by names.
    in_layer = of_this_graph() is not None
    by_core_layer = last and not in_layer and _by_core_layer(inputs, **arguments)
    collections = arguments["variables_collections"]
    new: dict[str, list[Any]] = {}
    regularizers = arguments["param_regularizers"] or {}
    dtype = parameter_dtype(inputs.dtype)
    # The last releases' fused path left those without bias, "scope/moving_mean/biased", out.
    all_of_model = not _stores_unbiased(inputs, **arguments)

    def make(name: str, statistic: bool, **more: Any) -> Any:
        known = tf.compat.v1.get_collection_ref(tf.compat.v1.GraphKeys.GLOBAL_VARIABLES)
        before = len(known)
        variable = create_variable(
            name,
            **{"shape": [inputs.shape.as_list()[axis]], "dtype": dtype} | more,
            collections=None if by_core_layer else collections,
            model=all_of_model or "/" not in name,
            statistic=statistic,
            trainable=arguments["trainable"] and not statistic,
            regularizer=regularizers.get(name),
        )
        new[name] = known[before:]
        return variable

    parameters = [name for name, key in (("beta", "center"), ("gamma", "scale")) if arguments[key]]
    initializers = dict(arguments["param_initializers"] or {})
    updating = in_layer or static_training(arguments["is_training"]) is not False
    zero_debias = arguments["zero_debias_moving_mean"] and updating
    if not by_core_layer:
        return create_batch_norm_variables(
            make, parameters, initializers, arguments["renorm"], zero_debias
        )
    made = create_batch_norm_variables(make, parameters[::-1], initializers, arguments["renorm"])
    for name in ("moving_mean", "moving_variance", "beta", "gamma"):  # none of renorm's
        for variable in new.get(name, ()):
            collect(of_variable(collections, name), variable)
    return made
