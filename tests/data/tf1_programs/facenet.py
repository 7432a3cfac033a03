"""As facenet's: slim with nested argument scopes, a normalizer with its parameters, and a bottleneck."""

import tensorflow as tf
import tensorflow.contrib.slim as slim


def block(net, scale=1.0, activation_fn=tf.nn.relu, scope=None, reuse=None):
    with tf.variable_scope(scope, "Block", [net], reuse=reuse):
        with tf.variable_scope("Branch_0"):
            tower = slim.conv2d(net, 4, 1, scope="Conv2d_1x1")
        with tf.variable_scope("Branch_1"):
            other = slim.conv2d(slim.conv2d(net, 4, 1, scope="Conv2d_0a"), 4, 3, scope="Conv2d_0b")
        mixed = tf.concat([tower, other], 3)
        up = slim.conv2d(
            mixed, net.get_shape()[3], 1, normalizer_fn=None, activation_fn=None, scope="Conv2d_1x1"
        )
        return activation_fn(net + scale * up)


def network(images, is_training):
    batch_norm_params = {
        "decay": 0.9,
        "epsilon": 0.001,
        "updates_collections": None,
        "variables_collections": [tf.GraphKeys.TRAINABLE_VARIABLES],
    }
    with slim.arg_scope(
        [slim.conv2d, slim.fully_connected],
        weights_initializer=slim.initializers.xavier_initializer(),
        weights_regularizer=slim.l2_regularizer(1e-3),
        normalizer_fn=slim.batch_norm,
        normalizer_params=batch_norm_params,
    ):
        with slim.arg_scope([slim.batch_norm, slim.dropout], is_training=is_training):
            net = slim.conv2d(images, 8, 3, stride=2, scope="Conv2d_1a")
            net = slim.repeat(net, 2, block, scale=0.17)
            net = slim.avg_pool2d(net, net.get_shape()[1:3], padding="VALID")
            net = slim.dropout(slim.flatten(net), 1.0, scope="Dropout")
            return slim.fully_connected(net, 10, activation_fn=None, scope="Bottleneck")
