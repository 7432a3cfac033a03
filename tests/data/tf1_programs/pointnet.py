"""As pointnet's: batch norm by hand, its averages an ExponentialMovingAverage in a conditional."""

import tensorflow as tf


def batch_norm_template(inputs, is_training, scope, moments_dims, bn_decay):
    with tf.variable_scope(scope):
        num_channels = inputs.get_shape()[-1].value
        beta = tf.get_variable("beta", [num_channels], initializer=tf.constant_initializer(0.0))
        gamma = tf.get_variable("gamma", [num_channels], initializer=tf.constant_initializer(1.0))
        batch_mean, batch_var = tf.nn.moments(inputs, moments_dims, name="moments")
        decay = bn_decay if bn_decay is not None else 0.9
        ema = tf.train.ExponentialMovingAverage(decay=decay)
        ema_apply_op = tf.cond(
            is_training, lambda: ema.apply([batch_mean, batch_var]), lambda: tf.no_op()
        )

        def mean_var_with_update():
            with tf.control_dependencies([ema_apply_op]):
                return tf.identity(batch_mean), tf.identity(batch_var)

        mean, var = tf.cond(
            is_training, mean_var_with_update, lambda: (ema.average(batch_mean), ema.average(batch_var))
        )
        return tf.nn.batch_normalization(inputs, mean, var, beta, gamma, 1e-3)


def network(images, is_training):
    points = tf.reshape(images, [-1, 16, 4])
    with tf.variable_scope("conv1") as sc:
        kernel = tf.get_variable("weights", [1, 4, 12])
        net = tf.nn.conv1d(points, kernel, stride=1, padding="VALID")
        net = tf.nn.relu(batch_norm_template(net, is_training, "bn", [0, 1], 0.8))
        assert sc.name == "conv1"
    return tf.reduce_max(net, 1)
