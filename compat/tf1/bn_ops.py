"""What contrib's and tf.layers' batch norm share: the two phases of a call, and its updates.

All of it builds a graph: a `tf.Graph` or that of a `VariableScopeLayer`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import tensorflow as tf

from ... import functional, kernels
from ...axes import Axis, channel_axes
from ...moments import Moments, batch_moments, broadcast_along, unbiased_variance, weighted_moments
from ...renorm import correction
from .bn_variables import BatchNormVariables, parameter_dtype
from .layer.inner_batch_norms import of_this_graph
from .scopes import collect, names_of

Tensors = tuple[tf.Tensor, ...]


@dataclass(frozen=True)
class BatchNormOptions:
    """How a call normalises: the arguments that contrib and tf.layers have in common.

    Attributes:
        axis: channel axes.
        decay: weight of the old value in the moving averages; a number or a scalar tensor.
        epsilon: added to the variance.
        fused: whether the fused kernel may be used.
        unbiased: whether the moving variance takes the batch's variance times m/(m−1).
        weights: of the samples, `[batch]`; `None` for all the same.
        renorm_clipping, renorm_decay: of batch renormalisation, done where there are variables for it.
        adjustment: from the shape of the input to a factor and an offset of the normalised values.
        virtual_batch_size: samples that are normalised together; `None` for all.
    """

    axis: Axis
    decay: Any
    epsilon: float
    fused: bool
    unbiased: bool = False
    weights: tf.Tensor | None = None
    renorm_clipping: Mapping[str, Any] = field(default_factory=dict)
    renorm_decay: Any = 0.99
    adjustment: Callable[[tf.Tensor], Tensors] | None = None
    virtual_batch_size: int | None = None


def apply_batch_norm(
    x: tf.Tensor, variables: BatchNormVariables, options: BatchNormOptions, training: Any
) -> tuple[tf.Tensor, list[Any]]:
    """The normalised input, and the operations that update the moving statistics.

    Args:
        x: input of known rank.
        variables: of the batch norm.
        options: what the caller was asked for.
        training: a bool, or a boolean tensor or variable, which is read when the graph runs.

    Returns:
        A tensor of `x`'s shape and type, and two updates, of the mean and the variance, whose `op` is
        the operation, as TensorFlow 1's had; none where `training` is the constant False.
    """
    constant = static_training(training)
    inside = of_this_graph()
    if inside is not None:
        measured = inside.call(x, options.axis, options.epsilon, training)
        if measured is not None:
            return measured, []
    if constant is False:
        return _inference(x, variables, options), []
    if constant:
        y, *moments = _train(x, variables, options)
    else:
        zeros = tf.zeros_like(_per_channel(variables.moving_mean, x, options))
        y, *moments = tf.cond(
            tf.convert_to_tensor(training),
            lambda: _train(x, variables, options),
            lambda: (_inference(x, variables, options), zeros, zeros, zeros),
        )
    y.set_shape(x.shape)
    # Renormalisation reads the averages, so the output has to come before the updates.
    with tf.control_dependencies([y] if variables.renorm_mean is not None else []):
        return y, _updates(variables, options, Moments(*moments))


def place_updates(updates: list[Any], collections: Any, outputs: tf.Tensor) -> tf.Tensor:
    """The outputs, with the updates in collections, or run before the outputs where these are `None`.

    In a layer's code they run so, too, inside a conditional or a loop, where nobody outside can run
    them: in TensorFlow 1 they were of one graph with all the rest.
    """
    inside = of_this_graph()
    if collections is None or (inside is not None and inside.in_branch):
        with tf.control_dependencies(updates):
            return tf.identity(outputs)
    if inside is not None and updates:
        inside.warn_if_not_run(names_of(collections))
    for update in updates:
        collect(collections, update)
    return outputs


def static_training(training: Any) -> bool | None:
    """The value of `is_training` where the graph is built; `None` where only its run will tell.

    Raises:
        TypeError: neither a truth value nor a tensor or variable of one.
    """
    if isinstance(training, tf.Variable):
        return None
    if tf.is_tensor(training):
        value = tf.get_static_value(training)
        return None if value is None else bool(value)
    if not (hasattr(training, "__index__") or isinstance(training, np.bool_)):
        raise TypeError(
            f"is_training must be a bool, or a boolean tensor or variable, received {training!r}. "
            "Pass True where the model trains and False where it is used."
        )
    return bool(training)


def check_clipping(renorm: bool, clipping: Mapping[str, Any] | None) -> None:
    """Raise for a bound of batch renormalisation that there is not."""
    unknown = sorted(set(clipping or ()) - {"rmax", "rmin", "dmax"})
    if renorm and unknown:
        raise ValueError(
            f"Received invalid keys for `renorm_clipping` argument: {', '.join(unknown)}. Supported "
            "values: rmax, rmin, dmax."
        )


def _train(x: tf.Tensor, variables: BatchNormVariables, options: BatchNormOptions) -> Tensors:
    """Algorithm 1: output, and mean, biased variance and count per channel."""
    beta, gamma = (_per_channel(variable, x, options) for variable in (variables.beta, variables.gamma))
    renorm = variables.renorm_mean is not None
    if renorm or options.adjustment is not None or options.virtual_batch_size:
        y, moments = _corrected(x, beta, gamma, variables, options)
    elif options.fused and options.weights is None:
        affine = (beta, gamma, options.epsilon, options.axis)
        y, moments = kernels.normalize_batch(x, *affine, copied=True)  # by a VariableScopeLayer
    else:
        moments = _moments(x, options, options.axis)
        mean, variance, _ = moments
        y = functional.normalize(x, mean, variance, beta, gamma, options.epsilon, options.axis)
    count = tf.broadcast_to(moments.count, tf.shape(moments.mean))
    dtype = variables.moving_mean.dtype.base_dtype
    return y, *(tf.cast(moment, dtype) for moment in (moments.mean, moments.variance, count))


def _moments(x: tf.Tensor, options: BatchNormOptions, axis: Axis) -> Moments:
    if options.weights is None:
        return batch_moments(x, axis)
    return weighted_moments(x, options.weights, axis)


def _corrected(
    x: tf.Tensor, beta: Any, gamma: Any, variables: BatchNormVariables, options: BatchNormOptions
) -> tuple[tf.Tensor, Moments]:
    """Training with renormalisation, adjustment or virtual batches, each before gamma and beta."""
    y, moments = _normalized(x, options)

    def broadcast(per_channel: tf.Tensor) -> tf.Tensor:
        return broadcast_along(tf.cast(per_channel, y.dtype), options.axis, x.shape.rank)

    if variables.renorm_mean is not None:
        mean = _per_channel(variables.renorm_mean, x, options)
        stddev = _per_channel(variables.renorm_stddev, x, options)
        r, d = correction(moments, mean, stddev, options.epsilon, **options.renorm_clipping)
        y = y * broadcast(r) + broadcast(d)
    if options.adjustment is not None:
        factor, offset = options.adjustment(tf.shape(x))
        y = y * tf.cast(factor, y.dtype) + tf.cast(offset, y.dtype)
    y = y if gamma is None else y * broadcast(gamma)
    y = y if beta is None else y + broadcast(beta)
    return tf.cast(y, x.dtype), moments


def _normalized(x: tf.Tensor, options: BatchNormOptions) -> tuple[tf.Tensor, Moments]:
    """The batch normalised without gamma and beta, at least float32, and its moments."""
    wide = tf.cast(x, parameter_dtype(x.dtype))
    axis = channel_axes(options.axis, x.shape.rank)
    if options.virtual_batch_size:
        # Virtual batches are strided, as they always were: every (batch / size)th sample is in one.
        groups = tf.concat([[options.virtual_batch_size, -1], tf.shape(x)[1:]], 0)
        wide = tf.reshape(wide, groups)
        wide.set_shape([options.virtual_batch_size, None, *x.shape.as_list()[1:]])
        axis = (1, *(channel + 1 for channel in axis))
    moments = _moments(wide, options, axis)
    mean, variance, count = moments
    y = functional.normalize(wide, mean, variance, epsilon=options.epsilon, axis=axis)
    if options.virtual_batch_size:
        moments = Moments(tf.reduce_mean(mean, 0), tf.reduce_mean(variance, 0), count)
    return tf.reshape(y, tf.shape(x)), moments


def _inference(x: tf.Tensor, variables: BatchNormVariables, options: BatchNormOptions) -> tf.Tensor:
    """Algorithm 2, line 11."""
    apply = kernels.normalize_at_inference if options.fused else functional.normalize

    def value(variable: Any) -> tf.Tensor | None:
        return _per_channel(variable, x, options)

    return apply(
        x,
        value(variables.moving_mean),
        value(variables.moving_variance),
        value(variables.beta),
        value(variables.gamma),
        options.epsilon,
        options.axis,
    )


def _updates(variables: BatchNormVariables, options: BatchNormOptions, moments: Moments) -> list[Any]:
    """The two update operations: a step of each moving average, where the batch has any value."""
    seen = moments.count > 0
    variance = unbiased_variance(moments) if options.unbiased else moments.variance

    def step(variable: tf.Variable, value: tf.Tensor, decay: Any = options.decay) -> Any:
        with tf.name_scope("AssignMovingAvg") as scope:
            value = tf.reshape(value, tf.shape(variable))
            with tf.control_dependencies([value]):  # in a loop: the value after the last iteration
                old = tf.identity(variable)
            delta = (old - value) * (1 - _number(decay, value.dtype))
            delta = tf.where(tf.reshape(seen, tf.shape(variable)), delta, tf.zeros_like(delta))
            return tf.compat.v1.assign_sub(variable, delta, name=scope)

    if variables.biased is None:
        mean_update = step(variables.moving_mean, moments.mean)
    else:
        mean_update = _debiased_step(variables, options, moments.mean, tf.reduce_any(seen))
    if variables.renorm_mean is None:
        return [mean_update, step(variables.moving_variance, variance)]
    stddev = tf.sqrt(variance + options.epsilon)
    averages = [
        step(variables.renorm_mean, moments.mean, options.renorm_decay),
        step(variables.renorm_stddev, stddev, options.renorm_decay),
        step(variables.moving_stddev, stddev),
    ]
    with tf.control_dependencies(averages):
        squared = tf.square(tf.identity(variables.moving_stddev)) - options.epsilon
        squared = tf.where(tf.reduce_any(seen), tf.nn.relu(squared), variables.moving_variance)
        return [mean_update, tf.compat.v1.assign(variables.moving_variance, squared)]


def _debiased_step(
    variables: BatchNormVariables, options: BatchNormOptions, mean: tf.Tensor, seen: tf.Tensor
) -> Any:
    """A step of the average that starts at 0, and that average without its bias, the moving mean.

    `biased / (1 − decay^steps)` (Adam's correction, arXiv 1412.6980).
    """
    with tf.name_scope("AssignMovingAvg"):
        moving = variables.moving_mean
        with tf.control_dependencies([mean]):
            old, steps = tf.identity(variables.biased), tf.identity(variables.local_step)
        decay = _number(options.decay, old.dtype)
        biased = tf.where(seen, old + (tf.reshape(mean, tf.shape(old)) - old) * (1 - decay), old)
        steps += tf.cast(seen, old.dtype)
        unbiased = tf.where(steps > 0, biased / (1 - decay**steps), moving)
        pairs = [(variables.biased, biased), (variables.local_step, steps)]
        with tf.control_dependencies([tf.compat.v1.assign(*pair) for pair in pairs]):
            return tf.compat.v1.assign(moving, unbiased)


def _number(value: Any, dtype: tf.DType) -> tf.Tensor:
    """A number or a tensor as `dtype`; tf.cast would round a Python number to float32 first."""
    return tf.cast(value, dtype) if tf.is_tensor(value) else tf.constant(value, dtype)


def _per_channel(variable: Any, x: tf.Tensor, options: BatchNormOptions) -> tf.Tensor | None:
    """A variable in the shape of `x`'s channel axes; tf.layers keeps some with the rank of `x`."""
    if variable is None:
        return None
    channels = [x.shape.as_list()[channel] for channel in channel_axes(options.axis, x.shape.rank)]
    return tf.reshape(variable, channels)
