"""The variables of a batch norm of TF1."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import tensorflow as tf


@dataclass(frozen=True)
class BatchNormVariables:
    """The variables of one batch norm: per channel, or of any shape with as many elements."""

    moving_mean: tf.Variable
    moving_variance: tf.Variable
    beta: tf.Tensor | None = None
    gamma: tf.Tensor | None = None
    moving_stddev: tf.Variable | None = None  # these three with renorm
    renorm_mean: tf.Variable | None = None
    renorm_stddev: tf.Variable | None = None
    biased: tf.Variable | None = None  # these two with zero_debias_moving_mean
    local_step: tf.Variable | None = None


def parameter_dtype(dtype: tf.DType) -> tf.DType:
    """The type of a batch norm's variables for inputs of `dtype`: at least float32."""
    return tf.float64 if dtype == tf.float64 else tf.float32


def create_batch_norm_variables(
    make: Callable[..., Any],
    parameters: Sequence[str],
    initializers: dict[str, Any],
    renorm: bool,
    zero_debias: bool = False,
) -> BatchNormVariables:
    """The variables of a batch norm, made in the order in which TF1 made them.

    Args:
        make: makes a variable per channel from a name, and `initializer` and `statistic` by name.
        parameters: those wanted of "beta" and "gamma", in order.
        initializers: by the name of the variable; ones for gamma and the variance, zeros for the rest
            where it has none.
        renorm, zero_debias: whether the variables of batch renormalisation, and of a moving mean
            without bias, are wanted.
    """
    chosen = dict.fromkeys(("beta", "moving_mean"), tf.compat.v1.zeros_initializer())
    chosen |= dict.fromkeys(("gamma", "moving_variance"), tf.compat.v1.ones_initializer()) | initializers

    def root(shape: Any, dtype: Any = None, partition_info: Any = None) -> tf.Tensor:
        variance = chosen["moving_variance"]
        variance = variance() if isinstance(variance, type) else variance
        return tf.sqrt(tf.cast(variance(shape, dtype=dtype), dtype))

    chosen |= {"moving_stddev": root, "renorm_mean": chosen["moving_mean"], "renorm_stddev": root}
    names = ["moving_mean", "moving_variance"]
    names += ["moving_stddev", "renorm_mean", "renorm_stddev"] if renorm else []
    made = {name: make(name, initializer=chosen[name], statistic=False) for name in parameters}
    made |= {name: make(name, initializer=chosen[name], statistic=True) for name in names}
    if zero_debias:
        more = {"initializer": tf.compat.v1.zeros_initializer(), "statistic": True}
        # TensorFlow 1 put them in a scope of the moving mean's whole name, within its own scope.
        scope = f"{tf.compat.v1.get_variable_scope().name}/moving_mean".lstrip("/")
        made["biased"] = make(f"{scope}/biased", **more)
        made["local_step"] = make(f"{scope}/local_step", shape=[], **more)
    return BatchNormVariables(**made)
