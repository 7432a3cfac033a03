"""Trains each program for three steps on digits, and writes what it computed.

python -m tfbn.compat.run main.py OUT.npz CHECKPOINTS
"""

import importlib
import json
import os
import pathlib
import sys
import zlib

import numpy as np
import tensorflow as tf
from sklearn.datasets import load_digits

# The files here that have a network.
FILES = sorted(pathlib.Path(__file__).parent.glob("*.py"))
PROGRAMS = [path.stem for path in FILES if "\ndef network(" in path.read_text()]
BATCH = 16


def initial(name, shape):
    """What a variable starts from, by its name: the same in every process."""
    random = np.random.RandomState(zlib.crc32(name.encode()))
    if len(shape) > 1:
        return random.normal(0, np.sqrt(2.0 / np.prod(shape[:-1])), shape)
    if name.endswith(("gamma", "scale", "moving_variance", "pop_var")):
        return random.uniform(0.5, 1.5, shape)
    if name.endswith(("biased", "local_step")):
        return np.zeros(shape)
    return random.normal(0, 0.1, shape)


def train(name, checkpoints):
    digits = load_digits()
    images, labels = digits.images[..., None] / 8 - 1, digits.target
    x = tf.placeholder(tf.float32, [BATCH, 8, 8, 1], "images")
    y = tf.placeholder(tf.int64, [BATCH], "labels")
    is_training = tf.placeholder(tf.bool, [], "is_training")
    features = importlib.import_module(name).network(x, is_training)
    logits = tf.layers.dense(features, 10, name="logits")
    losses = tf.get_collection(tf.GraphKeys.REGULARIZATION_LOSSES)
    loss = tf.losses.sparse_softmax_cross_entropy(y, logits) + tf.add_n(losses or [tf.constant(0.0)])
    with tf.control_dependencies(tf.get_collection(tf.GraphKeys.UPDATE_OPS)):
        train_op = tf.train.GradientDescentOptimizer(0.05).minimize(loss)
    found = {"losses": []}
    variables = tf.global_variables()
    with tf.Session() as session:
        session.run(tf.global_variables_initializer())
        for variable in variables:
            variable.load(initial(variable.op.name, variable.shape.as_list()).astype("f"), session)
        for step in range(3):
            part = slice(step * BATCH, (step + 1) * BATCH)
            fed = {x: images[part], y: labels[part], is_training: True}
            found["losses"].append(session.run([loss, train_op], fed)[0])
        found["logits"] = session.run(logits, {x: images[:BATCH], is_training: False})
        if checkpoints:
            tf.train.Saver(variables).save(session, os.path.join(checkpoints, name))
        for variable, value in zip(variables, session.run(variables)):
            found["variable/" + variable.op.name] = value
    return found


def main(out, checkpoints=None):
    everything = {}
    for name in PROGRAMS:
        with tf.Graph().as_default():
            found = train(name, checkpoints)
        everything.update({name + "/" + key: value for key, value in found.items()})
    np.savez(out, **everything)
    print(
        json.dumps({name: [float(loss) for loss in everything[name + "/losses"]] for name in PROGRAMS})
    )


if __name__ == "__main__":
    main(*sys.argv[1:])
