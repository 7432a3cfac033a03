"""As the official models' ResNet: helpers with a data format, fixed padding, projections, a getter."""

from __future__ import absolute_import, division, print_function

import functools

import tensorflow as tf

_BATCH_NORM_DECAY = 0.9
_BATCH_NORM_EPSILON = 1e-5


def batch_norm(inputs, training, data_format):
    return tf.layers.batch_normalization(
        inputs=inputs, axis=1 if data_format == "channels_first" else 3, momentum=_BATCH_NORM_DECAY,
        epsilon=_BATCH_NORM_EPSILON, center=True, scale=True, training=training, fused=True,
    )  # fmt: skip


def conv2d_fixed_padding(inputs, filters, kernel_size, strides, data_format):
    pad = [(kernel_size - 1) // 2, kernel_size // 2]
    if strides > 1:
        last = data_format == "channels_last"
        inputs = tf.pad(inputs, [[0, 0], pad, pad, [0, 0]] if last else [[0, 0], [0, 0], pad, pad])
    return tf.layers.conv2d(
        inputs=inputs, filters=filters, kernel_size=kernel_size, strides=strides, use_bias=False,
        padding=("SAME" if strides == 1 else "VALID"), data_format=data_format,
        kernel_initializer=tf.variance_scaling_initializer(),
    )  # fmt: skip


def block(inputs, filters, training, projection_shortcut, strides, data_format):
    shortcut = inputs
    inputs = tf.nn.relu(batch_norm(inputs, training, data_format))
    if projection_shortcut is not None:
        shortcut = projection_shortcut(inputs)
    inputs = conv2d_fixed_padding(inputs, filters, 3, strides, data_format)
    inputs = tf.nn.relu6(batch_norm(inputs, training, data_format))
    return conv2d_fixed_padding(inputs, filters, 3, 1, data_format) + shortcut


class Model(object):
    def __init__(self, block_strides, num_filters=4, data_format="channels_last"):
        self.block_strides, self.num_filters, self.data_format = block_strides, num_filters, data_format

    def _custom_dtype_getter(self, getter, name, shape=None, dtype=tf.float32, *args, **kwargs):
        return getter(name, shape, dtype, *args, **kwargs)

    def __call__(self, inputs, training):
        conv = functools.partial(conv2d_fixed_padding, data_format=self.data_format)
        with tf.variable_scope("resnet_model", custom_getter=self._custom_dtype_getter):
            inputs = tf.identity(conv(inputs, self.num_filters, 3, 1), "initial_conv")
            for i, strides in enumerate(self.block_strides):
                filters = self.num_filters * (2**i)
                project = functools.partial(conv, filters=filters, kernel_size=1, strides=strides)
                inputs = block(inputs, filters, training, project, strides, self.data_format)
                inputs = block(inputs, filters, training, None, 1, self.data_format)
                inputs = tf.identity(inputs, "block_layer{}".format(i + 1))
            inputs = tf.nn.relu(batch_norm(inputs, training, self.data_format))
            axes = [1, 2] if self.data_format == "channels_last" else [2, 3]
            return tf.squeeze(tf.reduce_mean(inputs, axes, keepdims=True), axes)


def network(images, is_training):
    return Model(block_strides=[1, 2])(images, is_training)
