"""As CycleGAN's and SRGAN's: networks that are objects, called again with `reuse` on what they made."""

import tensorflow as tf


def norm(x, is_training, scope):
    return tf.contrib.layers.batch_norm(
        x, decay=0.9, updates_collections=None, epsilon=1e-5, scale=True, is_training=is_training,
        scope=scope,
    )  # fmt: skip


class Generator:
    def __init__(self, name, is_training, ngf=4):
        self.name = name
        self.reuse = False
        self.ngf = ngf
        self.is_training = is_training

    def __call__(self, input):
        with tf.variable_scope(self.name, reuse=self.reuse):
            init = tf.truncated_normal_initializer(mean=0.0, stddev=0.02)
            d1 = tf.layers.conv2d(input, self.ngf, 4, (2, 2), "same", kernel_initializer=init, name="d1")
            d1 = tf.nn.relu(norm(d1, self.is_training, "bn_d1"))
            u1 = tf.layers.conv2d_transpose(
                d1, self.ngf, [3, 3], strides=(2, 2), padding="SAME", use_bias=False, name="u1"
            )
            u1 = tf.nn.relu(norm(u1, self.is_training, scope="bn_u1"))
            half = tf.layers.conv2d(u1, 4, 3, strides=2, padding="same", name="subpixel")
            output = tf.nn.tanh(tf.depth_to_space(half, 2), name="output")
        self.reuse = True
        self.variables = tf.get_collection(tf.GraphKeys.TRAINABLE_VARIABLES, scope=self.name)
        return output


def discriminator(image, reuse=False):
    with tf.variable_scope("discriminator") as scope:
        if reuse:
            tf.get_variable_scope().reuse_variables()
        assert scope.reuse == reuse
        h0 = tf.layers.conv2d(image, 5, 3, strides=2, activation=tf.nn.leaky_relu, name="h0_conv")
        return tf.reduce_mean(h0, axis=[1, 2])


def network(images, is_training):
    G, F = Generator("G", is_training), Generator("F", is_training)
    fake_y = G(images)
    cycled = G(F(fake_y))  # after the first call of G, which updates the same averages in place
    assert len(G.variables) == len(F.variables) == 9
    return tf.concat([discriminator(fake_y), discriminator(cycled, reuse=True)], 1)
