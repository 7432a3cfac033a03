"""As DenseNet's: star imports, `arg_scope` from contrib, batch norm before each convolution."""

import tensorflow as tf
from tensorflow.contrib.framework import arg_scope
from tensorflow.contrib.layers import *  # noqa: F403


def Batch_Normalization(x, training, scope):
    with arg_scope(
        [batch_norm],  # noqa: F405
        scope=scope,
        updates_collections=None,
        decay=0.9,
        center=True,
        scale=True,
        zero_debias_moving_mean=True,
    ):
        return tf.cond(
            training,
            lambda: batch_norm(inputs=x, is_training=training, reuse=None),  # noqa: F405
            lambda: batch_norm(inputs=x, is_training=training, reuse=True),  # noqa: F405
        )


def network(images, is_training):
    net = tf.layers.conv2d(images, 6, 3, padding="SAME", use_bias=False)
    for number in range(2):
        x = tf.nn.relu(Batch_Normalization(net, is_training, scope="dense%d" % number))
        x = tf.layers.conv2d(inputs=x, filters=4, kernel_size=[3, 3], padding="SAME", use_bias=False)
        x = tf.layers.dropout(inputs=x, rate=0.0, training=is_training)
        net = tf.concat([net, x], axis=3)
    net = tf.layers.average_pooling2d(inputs=net, pool_size=[2, 2], strides=2, padding="VALID")
    return fully_connected(flatten(net), 10, activation_fn=None)  # noqa: F405
