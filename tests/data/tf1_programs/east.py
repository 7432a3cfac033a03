"""As EAST's: slim's ResNet from contrib, its argument scope, and contrib.layers around it."""

import tensorflow as tf
from tensorflow.contrib import slim
from tensorflow.contrib.framework.python.ops import add_arg_scope
from tensorflow.contrib.slim.nets import resnet_v1


@add_arg_scope
def merged(inputs, depth=4, outputs_collections=None):
    return slim.utils.collect_named_outputs(
        outputs_collections, "merged", slim.conv2d(inputs, depth, 1, scope="merge")
    )


def network(images, is_training):
    batch_norm_params = {"decay": 0.9, "epsilon": 1e-5, "scale": True, "is_training": is_training}
    with slim.arg_scope(resnet_v1.resnet_arg_scope(weight_decay=1e-5)):
        unit = resnet_v1.resnet_v1_block("block1", base_depth=2, num_units=2, stride=2)
        with slim.arg_scope([slim.batch_norm], decay=0.9):
            net, end_points = resnet_v1.resnet_v1(
                tf.tile(images, [1, 2, 2, 3]),
                [unit],
                None,
                is_training,
                global_pool=False,
                scope="resnet",
            )
    assert "resnet/block1" in end_points
    with slim.arg_scope(
        [slim.conv2d],
        activation_fn=tf.nn.relu,
        normalizer_fn=slim.batch_norm,
        normalizer_params=batch_norm_params,
        weights_regularizer=slim.l2_regularizer(1e-5),
    ):
        with slim.arg_scope([merged], depth=6):
            net = merged(net)
    return tf.reduce_mean(net, [1, 2])
