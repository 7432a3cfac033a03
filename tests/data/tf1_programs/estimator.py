"""As model functions of estimators: a mode, `tf.layers` as classes, UPDATE_OPS with the training step."""

import tensorflow as tf


class Model(object):
    def __init__(self, channels):
        regularizer = tf.contrib.layers.l2_regularizer(1e-3)
        self.convs = [
            tf.layers.Conv2D(size, 3, strides=2, kernel_regularizer=regularizer) for size in channels
        ]
        self.norms = [tf.layers.BatchNormalization(momentum=0.9) for _ in channels]
        self.fc = tf.layers.Dense(10, name="fc", kernel_initializer=tf.variance_scaling_initializer())

    def __call__(self, images, training):
        for conv, norm in zip(self.convs, self.norms):
            images = tf.nn.relu(norm(conv(images), training))
        return self.fc(tf.layers.Flatten()(images))


def network(images, is_training):
    with tf.variable_scope("model", reuse=tf.AUTO_REUSE):
        return Model([6, 8])(images, is_training)
