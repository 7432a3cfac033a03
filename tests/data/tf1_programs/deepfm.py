"""As DeepFM's: one batch norm for training and one for inference in a conditional, with shared variables."""

import tensorflow as tf
from tensorflow.contrib.layers.python.layers import batch_norm as batch_norm


def batch_norm_layer(x, train_phase, scope_bn):
    bn_train = batch_norm(
        x, decay=0.9, center=True, scale=True, updates_collections=None, is_training=True, reuse=None,
        trainable=True, scope=scope_bn,
    )  # fmt: skip
    bn_inference = batch_norm(
        x, decay=0.9, center=True, scale=True, updates_collections=None, is_training=False, reuse=True,
        trainable=True, scope=scope_bn,
    )  # fmt: skip
    return tf.cond(train_phase, lambda: bn_train, lambda: bn_inference)


def network(images, is_training):
    y = tf.reshape(images, [-1, 64])
    for i in range(2):
        weights = tf.get_variable("layer_%d" % i, [y.shape[1].value, 16])
        y = tf.add(tf.matmul(y, weights), tf.get_variable("bias_%d" % i, [16]))
        y = tf.nn.relu(batch_norm_layer(y, is_training, "bn_%d" % i))
    return y
