"""tf_slim's networks trained in a TF1 graph, with tf_slim's own batch norm or with what replaces it.

    python tests/helpers/tf1_networks.py tests/data/slim_networks.json

records what all of them compute with its own, in a process of its own as in tf1_programs: too long for
every run of the tests, which repeat it for the network named behind the file. In float64, where rounding
does not matter, whatever kernels a machine has and whatever fifty layers amplify it by.
"""

import os
import sys

if __name__ == "__main__":
    # Before TensorFlow is imported, as in tf1_programs.
    os.environ["TF_USE_LEGACY_KERAS"] = "1"

import importlib
import json
import zlib
from collections import defaultdict
from pathlib import Path

import numpy as np
import tensorflow as tf
from sklearn.datasets import load_digits

import tf1_programs
from paths import DATA

v1 = tf.compat.v1
RECORD = DATA / "slim_networks.json"

# The smallest images (a multiple of 8), how many, rate, arguments of the network and of its arg_scope.
# TF1's optimizer takes the rate as float32, which has these.
# Dropout draws other numbers in other graphs; a quarter of the channels are as many layers.
SMALL = {"dropout_keep_prob": 1.0, "depth_multiplier": 0.25}
NETWORKS = {
    "inception_v1": (200, 2, 2**-4, {"dropout_keep_prob": 1.0}, {}),
    "inception_v2": (32, 8, 2**-4, SMALL, {}),
    "inception_v3": (112, 4, 2**-4, SMALL, {"use_fused_batchnorm": False}),
    "resnet_v1_50": (32, 8, 2**-9, {}, {}),
    "resnet_v2_50": (32, 8, 2**-7, {}, {}),
}


def digits(size, count):
    """Digits as images of `size` pixels, a multiple of 8, and their labels."""
    images, labels = load_digits(return_X_y=True)
    images = np.kron(images[:count].reshape(-1, 8, 8, 1) / 8 - 1, np.ones([1, size // 8, size // 8, 3]))
    return images, labels[:count]


def initial(name, shape):
    """What a variable starts from, by its name: the same in every process."""
    random = np.random.RandomState(zlib.crc32(name.encode()))  # NumPy never changes what this one draws
    if len(shape) > 1:
        return random.normal(0, np.sqrt(2 / np.prod(shape[:-1])), shape)
    if name.endswith(("gamma", "moving_variance")):
        return random.uniform(0.5, 1.5, shape)
    return random.normal(0, 0.1, shape)


class Network:
    """A network in the default graph, as old code trains and evaluates it."""

    def __init__(self, name, dtype="float64", **batch_norm):
        """Build it; `batch_norm` has arguments of all its batch norms."""
        size, count, rate, arguments, scope = NETWORKS[name]
        slim = importlib.import_module("tf_slim")
        module = importlib.import_module(f"tf_slim.nets.{name.removesuffix('_50')}")
        resnet_utils = importlib.import_module("tf_slim.nets.resnet_utils")
        arg_scope = getattr(module, f"{name}_arg_scope", resnet_utils.resnet_arg_scope)
        images, labels = digits(size, count)
        images = tf.constant(images, dtype)
        with (
            slim.arg_scope(arg_scope(**scope)),
            slim.arg_scope([slim.batch_norm], **batch_norm),
        ):
            build = getattr(module, name)
            logits, _ = build(images, 10, is_training=True, **arguments)
            self.updates = v1.get_collection(v1.GraphKeys.UPDATE_OPS)
            losses = v1.get_collection(v1.GraphKeys.REGULARIZATION_LOSSES)
            self.inference, _ = build(images, 10, is_training=False, reuse=True, **arguments)
        logits = tf.reshape(logits, [-1, 10])
        losses.append(tf.reduce_mean(tf.nn.sparse_softmax_cross_entropy_with_logits(labels, logits)))
        self.loss = tf.add_n(losses)
        optimizer = v1.train.GradientDescentOptimizer(rate)
        # Without None, as auxiliary classifiers have it.
        gradients = [pair for pair in optimizer.compute_gradients(self.loss) if pair[0] is not None]
        # Last of all: nothing in the graph reads a variable that has already been changed.
        with tf.control_dependencies(
            [self.loss, *(gradient for gradient, _ in gradients), *self.updates]
        ):
            self.step = optimizer.apply_gradients(gradients)
        self.variables = {variable.op.name: variable for variable in v1.global_variables()}

    def train(self, steps=2):
        """Descend from `initial`.

        Returns:
            The losses before each step; what the network infers after the last one, and how far the
            variables of each kind are from `initial` then.
        """
        values = {
            name: initial(name, variable.shape.as_list()) for name, variable in self.variables.items()
        }
        with session() as running:
            starts = {
                variable.initializer.inputs[1]: values[name] for name, variable in self.variables.items()
            }
            running.run([variable.initializer for variable in self.variables.values()], starts)
            losses = [running.run([self.loss, self.step])[0] for _ in range(steps)]
            inference = running.run(self.inference)
            moved = running.run(self.variables)
        squares = defaultdict(float)
        for name, value in moved.items():
            squares[name.split("/")[-1]] += np.sum((np.float64(value) - values[name]) ** 2)
        found = {f"{kind} moved": np.sqrt(square) for kind, square in squares.items()}
        return {"losses": losses, "inference": inference.reshape(-1, 10)} | found


def session():
    """A session that starts at once: for a few steps, optimizing the graph would take longer."""
    config = v1.ConfigProto()
    config.graph_options.rewrite_options.disable_meta_optimizer = True
    config.graph_options.optimizer_options.opt_level = v1.OptimizerOptions.L0
    return v1.Session(config=config)


def main(file, *names):
    v1.disable_v2_behavior()
    tf1_programs.original()
    record = {}
    for name in names or NETWORKS:
        with tf.Graph().as_default():
            found = Network(name, fused=False).train()  # its fused kernels have no float64
        record[name] = {key: np.asarray(value).tolist() for key, value in found.items()}
    Path(file).write_text(json.dumps(record, indent=1, sort_keys=True) + "\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
