"""tf_slim's networks, with its own batch norm, as SavedModels of TensorFlow 1.

    python tests/helpers/slim_saved_models.py FOLDER NETWORK …

`is_training` is a placeholder that is False unless fed. `FOLDER/NETWORK.npz` has images, what a session
answers, and the names of the moving means.
"""

import os
import sys

if __name__ == "__main__":
    # Before TensorFlow is imported, as in tf1_programs.
    os.environ["TF_USE_LEGACY_KERAS"] = "1"

import importlib

import numpy as np
import tensorflow as tf

import tf1_programs
from tf1_networks import NETWORKS, digits, initial

v1 = tf.compat.v1


def save(name, folder):
    """Write the network, with weights by name."""
    size, _, _, arguments, scope = NETWORKS[name]
    slim = importlib.import_module("tf_slim")
    module = importlib.import_module(f"tf_slim.nets.{name.removesuffix('_50')}")
    resnet_utils = importlib.import_module("tf_slim.nets.resnet_utils")
    arg_scope = getattr(module, f"{name}_arg_scope", resnet_utils.resnet_arg_scope)
    images, _ = digits(size, 4)
    with tf.Graph().as_default(), v1.Session() as session:
        given = v1.placeholder("float32", (None, size, size, 3), "images")
        training = v1.placeholder_with_default(False, (), "is_training")
        with slim.arg_scope(arg_scope(**scope)):
            logits, ends = getattr(module, name)(given, 10, is_training=training, **arguments)
        for variable in v1.global_variables():
            variable.load(initial(variable.op.name, variable.shape.as_list()), session)
        outputs = {"logits": tf.reshape(logits, (-1, 10)), "probabilities": ends.get("Predictions")}
        outputs = {key: tensor for key, tensor in outputs.items() if tensor is not None}
        v1.saved_model.simple_save(session, f"{folder}/{name}", {"images": given}, outputs)
        answers = session.run(outputs, {given: images})
        names = [each.op.name for each in v1.global_variables() if each.op.name.endswith("moving_mean")]
    np.savez(f"{folder}/{name}.npz", images=images.astype("float32"), names=names, **answers)


if __name__ == "__main__":
    v1.disable_v2_behavior()
    tf1_programs.original()
    for network in sys.argv[2:]:
        save(network, sys.argv[1])
