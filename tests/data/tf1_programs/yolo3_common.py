"""The layers that yolo3 takes by a star, with slim among them."""

import tensorflow as tf
from tensorflow.contrib.framework import add_arg_scope

slim = tf.contrib.slim
leaky_relu = lambda x: tf.nn.leaky_relu(x, alpha=0.1)  # noqa: E731


@add_arg_scope
def fixed_padding(inputs, kernel_size, mode="CONSTANT", data_format="NHWC", **unused):
    before = (kernel_size - 1) // 2
    pad = [before, kernel_size - 1 - before]
    spatial = [[0, 0], pad, pad] if data_format == "NCHW" else [pad, pad, [0, 0]]
    return tf.pad(inputs, [[0, 0]] + spatial, mode=mode)


def conv2d_fixed_padding(inputs, filters, kernel_size, strides=1):
    if strides > 1:
        inputs = fixed_padding(inputs, kernel_size)
    padding = "SAME" if strides == 1 else "VALID"
    return slim.conv2d(inputs, filters, kernel_size, stride=strides, padding=padding)


def darknet_block(inputs, filters):
    net = conv2d_fixed_padding(inputs, filters, 1)
    return conv2d_fixed_padding(net, filters * 2, 3) + inputs


def upsample(inputs, like):
    height, width = like.get_shape().as_list()[1:3]
    return tf.identity(tf.image.resize_nearest_neighbor(inputs, (height, width)), name="upsampled")
