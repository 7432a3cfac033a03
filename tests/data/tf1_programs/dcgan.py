"""As DCGAN's: a class around contrib's batch norm, updated in place, and deconvolutions by hand."""

import tensorflow as tf


class batch_norm(object):
    def __init__(self, epsilon=1e-5, momentum=0.9, name="batch_norm"):
        with tf.variable_scope(name):
            self.epsilon = epsilon
            self.momentum = momentum
            self.name = name

    def __call__(self, x, train=True):
        return tf.contrib.layers.batch_norm(
            x,
            decay=self.momentum,
            updates_collections=None,
            epsilon=self.epsilon,
            scale=True,
            is_training=train,
            scope=self.name,
        )


def deconv2d(input_, output_shape, name):
    with tf.variable_scope(name):
        w = tf.get_variable("w", [5, 5, output_shape[-1], input_.get_shape()[-1].value])
        deconv = tf.nn.conv2d_transpose(input_, w, output_shape=output_shape, strides=[1, 2, 2, 1])
        biases = tf.get_variable("biases", [output_shape[-1]], initializer=tf.constant_initializer(0.0))
        return tf.reshape(tf.nn.bias_add(deconv, biases), output_shape)


def network(images, is_training):
    batch = tf.shape(images)[0]
    h0 = tf.reshape(
        tf.layers.dense(tf.layers.flatten(images), 4 * 4 * 8, name="g_h0_lin"), [-1, 4, 4, 8]
    )
    h0 = tf.nn.relu(batch_norm(name="g_bn0")(h0, train=is_training))
    h1 = deconv2d(h0, [batch, 8, 8, 4], name="g_h1")
    h1 = tf.nn.relu(batch_norm(name="g_bn1")(h1, train=is_training))
    return tf.reduce_mean(tf.nn.tanh(h1), [1, 2])
