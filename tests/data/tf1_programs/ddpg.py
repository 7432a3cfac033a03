"""As many DDPGs: batch norm by hand with assignments, once for each branch of a conditional."""

import numpy as np
import tensorflow as tf
import tensorflow.contrib as tc
import tensorflow.nn as nn
from six.moves import xrange
from tensorflow.contrib.layers.python.layers import initializers


def batch_norm_wrapper(inputs, is_training, scope, decay=0.9, epsilon=1e-3, reuse=None):
    with tf.variable_scope(scope, reuse=reuse):
        size = inputs.get_shape().as_list()[-1]
        scale = tf.get_variable("scale", [size], initializer=tf.ones_initializer())
        beta = tf.get_variable("beta", [size], initializer=tf.zeros_initializer())
        pop_mean = tf.get_variable(
            "pop_mean", [size], initializer=tf.zeros_initializer(), trainable=False
        )
        pop_var = tf.get_variable("pop_var", [size], initializer=tf.ones_initializer(), trainable=False)
        if not is_training:
            return tf.nn.batch_normalization(inputs, pop_mean, pop_var, beta, scale, epsilon)
        batch_mean, batch_var = tf.nn.moments(inputs, [0])
        train_mean = tf.assign(pop_mean, pop_mean * decay + batch_mean * (1 - decay))
        train_var = tf.assign(pop_var, pop_var * decay + batch_var * (1 - decay))
        with tf.control_dependencies([train_mean, train_var]):
            return tf.nn.batch_normalization(inputs, batch_mean, batch_var, beta, scale, epsilon)


def network(images, is_training):
    net = tf.reshape(images, [-1, int(np.prod(images.get_shape().as_list()[1:]))])
    for i in xrange(1, 3):
        net = tc.layers.fully_connected(
            net, 12, activation_fn=None, weights_initializer=initializers.xavier_initializer(),
            weights_regularizer=tc.layers.l2_regularizer(1e-2), scope="fc%d" % i,
        )  # fmt: skip
        net = nn.relu(
            tf.cond(
                is_training,
                lambda: batch_norm_wrapper(net, True, "bn%d" % i),
                lambda: batch_norm_wrapper(net, False, "bn%d" % i, reuse=True),
            )
        )
        net = nn.dropout(net, 1.0)
    for var in tf.trainable_variables():
        tf.summary.histogram(var.op.name, var)
    return net
