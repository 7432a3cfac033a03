"""A TF1 function for VariableScopeLayer, and the same function in a TF1 graph and session."""

import keras
import numpy as np
import tensorflow as tf
import tf_slim as slim

from tfbn import compat

tf1 = tf.compat.v1
UPDATES, LOSSES = tf1.GraphKeys.UPDATE_OPS, tf1.GraphKeys.REGULARIZATION_LOSSES
X = np.random.default_rng(0).normal(3, [1, 2, 5], [12, 3]).astype("float32")
Y = np.random.default_rng(1).normal(0, 1, [12, 2]).astype("float32")


@keras.saving.register_keras_serializable("tests")
def network(x, is_training=True, units=2):
    """Default scopes, normalizer_fn, both kinds of regularizers, and an update of its own."""
    with tf1.variable_scope("net"):
        with slim.arg_scope([compat.batch_norm], decay=0.9, is_training=is_training, scale=True):
            x = slim.fully_connected(
                x, 4, normalizer_fn=compat.batch_norm, weights_regularizer=slim.l2_regularizer(0.1)
            )
            x = compat.batch_norm(x)
            x = compat.batch_norm(x)
        count = tf1.get_variable("count", [], tf.int32, tf1.zeros_initializer(), trainable=False)
        if is_training:
            tf1.add_to_collection(UPDATES, tf1.assign_add(count, 1))
        tf1.assign_add(count, 1000)  # never fetched
        weights = tf1.get_variable(
            "weights", [4, units], regularizer=lambda variable: 0.3 * tf.reduce_sum(tf.abs(variable))
        )
        return x @ weights


class Session:
    """The function in a TF1 graph, from the layer's weights, trained by SGD."""

    def __init__(self, function, layer, x, y, rate=0.1):
        self.graph, count = tf.Graph(), len(layer.losses)
        values = {name: variable.numpy() for name, variable in layer.variables_by_name.items()}
        with self.graph.as_default():
            self.x = tf1.placeholder(tf.float32, [None, *x.shape[1:]])
            self.y = tf1.placeholder(tf.float32, [None, *y.shape[1:]])
            with tf1.variable_scope(tf1.get_variable_scope(), use_resource=True):
                outputs = function(self.x, is_training=True)
            with tf1.variable_scope(tf1.get_variable_scope(), reuse=True):
                self.inference = function(self.x, is_training=False)
            self.loss = tf.reduce_mean(tf.square(outputs - self.y))
            self.loss += tf.add_n(tf1.get_collection(LOSSES)[:count])
            with tf.control_dependencies(tf1.get_collection(UPDATES)):
                self.train = tf1.train.GradientDescentOptimizer(rate).minimize(self.loss)
            self.variables = {variable.op.name: variable for variable in tf1.global_variables()}
            self.session = tf1.Session()
            self.session.run(tf1.global_variables_initializer())
            assert set(self.variables) == set(values)
            for name, value in values.items():
                self.variables[name].load(value, self.session)

    def step(self, x, y):
        return self.session.run([self.loss, self.train], {self.x: x, self.y: y})[0]

    def check(self, layer, x, **tolerance):
        values = self.session.run(self.variables)
        for name, variable in layer.variables_by_name.items():
            np.testing.assert_allclose(variable.numpy(), values[name], err_msg=name, **tolerance)
        inference = self.session.run(self.inference, {self.x: x})
        np.testing.assert_allclose(layer(x), inference, **tolerance)


TOLERANCE = {"rtol": 1e-5, "atol": 1e-5}  # float32, ten steps, sums in another order
