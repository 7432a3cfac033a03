"""As Tacotron's CBHG: a bank of 1D convolutions, pooling over time, a residual and highway layers."""

from __future__ import absolute_import, division, print_function

import tensorflow as tf
from tensorflow.contrib import layers as contrib_layers
from tensorflow.layers import max_pooling1d


def conv1d(inputs, kernel_size, channels, activation, is_training, scope):
    with tf.variable_scope(scope):
        conv1d_output = tf.layers.conv1d(
            inputs, filters=channels, kernel_size=kernel_size, activation=activation, padding="same"
        )
        return tf.layers.batch_normalization(conv1d_output, momentum=0.9, training=is_training)


def highwaynet(inputs, scope, depth):
    with tf.variable_scope(scope):
        H = tf.layers.dense(inputs, units=depth, activation=tf.nn.relu, name="H")
        T = tf.layers.dense(
            inputs, units=depth, activation=tf.nn.sigmoid, name="T",
            bias_initializer=tf.constant_initializer(-1.0),
            kernel_regularizer=contrib_layers.l2_regularizer(scale=1e-4),
        )  # fmt: skip
        return H * T + inputs * (1.0 - T)


def cbhg(inputs, is_training, scope, K=4, projections=(6, 8), depth=8):
    with tf.variable_scope(scope):
        with tf.variable_scope("conv_bank"):
            bank = [
                conv1d(inputs, k, 4, tf.nn.relu, is_training, "conv1d_%d" % k) for k in range(1, K + 1)
            ]
            conv_outputs = tf.concat(values=bank, axis=-1)
        maxpool_output = max_pooling1d(conv_outputs, pool_size=2, strides=1, padding="same")
        proj1 = conv1d(maxpool_output, 3, projections[0], tf.nn.relu, is_training, "proj_1")
        proj2 = conv1d(proj1, 3, projections[1], None, is_training, "proj_2")
        highway_input = proj2 + inputs
        if highway_input.shape[2].value != depth:
            highway_input = tf.layers.dense(highway_input, depth)
        for i in range(2):
            highway_input = highwaynet(highway_input, "highway_%d" % (i + 1), depth)
        return highway_input


def network(images, is_training):
    frames = tf.squeeze(images, squeeze_dims=[3])
    outputs = cbhg(frames, is_training, scope="post_cbhg")
    return tf.reduce_mean(outputs, axis=1, keep_dims=True)[:, 0]
