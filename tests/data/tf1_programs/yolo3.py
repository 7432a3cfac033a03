"""As YOLOv3's: slim under one scope of normalizer, padding and `reuse`, a route, layers by a star."""

from yolo3_common import *  # noqa: F403

_BATCH_NORM_DECAY = 0.9
_BATCH_NORM_EPSILON = 1e-05


def darknet(inputs):
    inputs = conv2d_fixed_padding(inputs, 4, 3)  # noqa: F405
    route = darknet_block(conv2d_fixed_padding(inputs, 6, 3, strides=2), 3)  # noqa: F405
    return route, conv2d_fixed_padding(route, 8, 3, strides=2)  # noqa: F405


def network(images, is_training, data_format="NHWC", reuse=False):
    batch_norm_params = {
        "decay": _BATCH_NORM_DECAY,
        "epsilon": _BATCH_NORM_EPSILON,
        "scale": True,
        "is_training": is_training,
        "fused": None,
    }
    scoped = [slim.conv2d, slim.batch_norm, fixed_padding]  # noqa: F405
    with slim.arg_scope(scoped, data_format=data_format, reuse=reuse):  # noqa: F405
        with slim.arg_scope(  # noqa: F405
            [slim.conv2d],  # noqa: F405
            normalizer_fn=slim.batch_norm,  # noqa: F405
            normalizer_params=batch_norm_params,
            biases_initializer=None,
            activation_fn=leaky_relu,  # noqa: F405
        ):
            with tf.variable_scope("darknet-53"):  # noqa: F405
                route, inputs = darknet(images)
            with tf.variable_scope("yolo-v3"):  # noqa: F405
                inputs = upsample(slim.conv2d(inputs, 4, 1), route)  # noqa: F405
                inputs = tf.concat([inputs, route], axis=1 if data_format == "NCHW" else 3)  # noqa: F405
                detections = slim.conv2d(  # noqa: F405
                    inputs, 10, 1, normalizer_fn=None, activation_fn=None,
                    biases_initializer=tf.zeros_initializer(),  # noqa: F405
                )  # fmt: skip
    return tf.reduce_mean(detections, [1, 2])  # noqa: F405
