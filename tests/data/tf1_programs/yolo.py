"""As YOLO's: `partial` and `tf.layers`, leaky ReLU, passthrough by `space_to_depth`."""

import functools

import tensorflow as tf

leaky = functools.partial(tf.nn.leaky_relu, alpha=0.1)
conv = functools.partial(tf.layers.conv2d, padding="same", use_bias=False)
normalize = functools.partial(tf.layers.batch_normalization, momentum=0.9, epsilon=1e-5, fused=True)


def network(images, is_training):
    net = images
    for number, filters in enumerate((6, 8), 1):
        net = conv(net, filters, 3, name="conv%d" % number)
        net = leaky(normalize(net, training=is_training, name="bn%d" % number))
        if number == 1:
            passed = tf.space_to_depth(net, 2)
        net = tf.layers.max_pooling2d(net, 2, 2)
        if number == 1:
            net = tf.concat([net, passed], -1)
    net = tf.layers.separable_conv2d(net, 5, 3, padding="same", activation=leaky)
    return tf.reduce_mean(tf.layers.conv2d(net, 10, 1), [1, 2])
