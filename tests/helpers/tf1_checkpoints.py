"""Checkpoints that TF1 graphs and sessions write, layers to load them into, and what a refusal says."""

import re
from contextlib import contextmanager

import numpy as np
import pytest
import tensorflow as tf
import tf_slim as slim

from tfbn import compat
from tfbn.compat import VariableScopeLayer

V1 = tf.compat.v1
UPDATES = V1.GraphKeys.UPDATE_OPS
X = np.random.default_rng(0).normal(3, [1, 2, 5], [12, 3]).astype("float32")
IMAGES = np.random.default_rng(1).normal(1, 2, [4, 6, 6, 2]).astype("float32")
STATE = ("beta", "gamma", "moving_mean", "moving_variance")
TOLERANCE = {"rtol": 1e-5, "atol": 1e-5}  # float32, another order of sums


def write(path, build, *, x=X, train=None, fmt=2, partitions=None, parts_apart=False):
    """Build in a TF1 graph, give every variable values of its own, save.

    `train` gets the output and returns an operation to run once, after that. Returns the second output
    of `build`, and the variables' values by name.
    """
    parts = V1.fixed_size_partitioner(partitions) if partitions else None
    rng = np.random.default_rng(2)
    with tf.Graph().as_default(), V1.variable_scope("", partitioner=parts):
        inputs = V1.placeholder(tf.float32, [None, *x.shape[1:]])
        outputs, inference = build(inputs)
        operation = train(outputs) if train else tf.no_op()
        variables = V1.global_variables()
        whole = {} if not parts_apart else {"var_list": {v.op.name: v for v in variables}}
        saver = V1.train.Saver(write_version=fmt, **whole)
        with V1.Session() as session:
            session.run(V1.global_variables_initializer())
            for variable in variables:
                if variable.dtype.base_dtype.is_floating and not variable.op.name.startswith("step"):
                    variable.load(rng.uniform(0.5, 1.5, variable.shape).astype("float32"), session)
            session.run(operation, {inputs: x})
            saver.save(session, str(path))
            result = session.run(inference, {inputs: x})
            return result, {v.op.name: session.run(v) for v in variables}


def values(path, **arrays):
    """A checkpoint of these arrays; `__` in a name stands for `/`."""
    with tf.Graph().as_default():
        variables = {
            name.replace("__", "/"): V1.Variable(array, use_resource=False, name=f"v{number}")
            for number, (name, array) in enumerate(arrays.items())
        }
        saver = V1.train.Saver(variables)
        with V1.Session() as session:
            session.run(V1.global_variables_initializer())
            saver.save(session, str(path))
    return str(path)


def both(function):
    """The function in training and in inference, which share their variables."""

    def build(x):
        scope = V1.get_variable_scope()
        with V1.variable_scope(scope):  # which starts the numbering of default scopes
            outputs = function(x, is_training=True)
        with V1.variable_scope(scope, reuse=True):
            return outputs, function(x, is_training=False)

    return build


def sgd_step(outputs):
    with tf.control_dependencies(V1.get_collection(UPDATES)):
        return V1.train.GradientDescentOptimizer(0.1).minimize(tf.reduce_mean(tf.square(outputs)))


def network(x, is_training=True):
    """Slim layers with a normalizer_fn, contrib's and tf.layers' batch norm."""
    with slim.arg_scope([compat.batch_norm], is_training=is_training, scale=True, decay=0.9):
        x = slim.fully_connected(x, 4, normalizer_fn=compat.batch_norm, scope="first")
        x = compat.batch_norm(x)
    x = compat.batch_normalization(x, training=is_training)
    return slim.fully_connected(x, 2, activation_fn=None, scope="out/last")


def weights(*names, shape=(2,), layer_name=None, dtype=tf.float32):
    """A built VariableScopeLayer with variables of these names, all of one shape."""

    def code(x):
        for name in names:
            V1.get_variable(name, shape, dtype, V1.zeros_initializer(), trainable=dtype == tf.float32)
        return x

    layer = VariableScopeLayer(code, name=layer_name)
    layer.build((None, 3))
    return layer


def value(layer, name):
    return layer.variables_by_name[name].numpy()


def check_values(layer, expected):
    for name, variable in layer.variables_by_name.items():
        np.testing.assert_array_equal(variable.numpy(), expected[name], err_msg=name)


@contextmanager
def refused(kind, message, model=None):
    """The whole message, and nothing changed."""
    before = [] if model is None else [variable.numpy() for variable in model.variables]
    with pytest.raises(kind, match=f"^{re.escape(message)}$") as caught:
        yield caught
    for old, new in zip(before, model.variables if model is not None else [], strict=True):
        np.testing.assert_array_equal(old, new.numpy())


def unfit(path, details, remedy="Map the names with name_map, or leave variables out with exclude."):
    return f"The checkpoint '{path}' does not fit, and nothing was changed. {remedy}\n{details}"
