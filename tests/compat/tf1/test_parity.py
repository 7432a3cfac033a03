"""A TF1 program, and the same function as a Keras layer trained by Keras: one training curve."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from sklearn.datasets import load_digits

from tfbn import compat

pytestmark = pytest.mark.both
V1 = tf.compat.v1
STEPS, BATCH, RATE = 50, 32, 0.1


def classifier(x, is_training):
    """Logits of digits, as TF1 code was written: scopes, get_variable, contrib's batch norm."""
    with V1.variable_scope("net"), compat.arg_scope([compat.batch_norm], decay=0.9, scale=True):
        x = tf.reshape(x, [-1, 8, 8, 1])
        for number, channels in enumerate((8, 16)):
            with V1.variable_scope(f"conv{number}"):
                shape = [3, 3, x.shape[-1], channels]
                kernel = V1.get_variable(
                    "weights", shape, initializer=V1.glorot_normal_initializer(seed=1)
                )
                x = tf.nn.conv2d(x, kernel, 2, "SAME")
                x = compat.batch_norm(x, is_training=is_training, activation_fn=tf.nn.relu)
        x = tf.reshape(x, [-1, 2 * 2 * 16])
        x = x @ V1.get_variable("weights", [64, 10], initializer=V1.glorot_normal_initializer(seed=2))
        return compat.batch_normalization(x, training=is_training, momentum=0.9)


@pytest.fixture(scope="module")
def digits():
    images, labels = load_digits(return_X_y=True)
    return (images[: STEPS * BATCH] / 16).astype("float32"), labels[: STEPS * BATCH]


def trained_in_a_session(images, labels):
    """Losses and final variables of the program in a graph, with update ops and TF1's optimizer."""
    with tf.Graph().as_default(), V1.Session() as session:
        x, y = V1.placeholder(tf.float32, [None, 64]), V1.placeholder(tf.int64, [None])
        logits = classifier(x, is_training=True)
        loss = V1.losses.sparse_softmax_cross_entropy(y, logits)
        with tf.control_dependencies(V1.get_collection(V1.GraphKeys.UPDATE_OPS)):
            train = V1.train.GradientDescentOptimizer(RATE).minimize(loss)
        session.run(V1.global_variables_initializer())
        variables = {variable.op.name: variable for variable in V1.global_variables()}
        start = session.run(variables)
        parts = zip(np.split(images, STEPS), np.split(labels, STEPS), strict=True)
        losses = [session.run([loss, train], {x: batch, y: classes})[0] for batch, classes in parts]
        with V1.variable_scope("", reuse=True):
            inference = classifier(x, is_training=False)
        return losses, start, session.run(variables), session.run(inference, {x: images[:BATCH]})


def test_fifty_steps_of_a_tf1_program_and_of_keras_are_the_same(digits):
    losses, start, end, logits = trained_in_a_session(*digits)
    inputs = keras.Input((64,))
    layer = compat.VariableScopeLayer(classifier)
    model = keras.Model(inputs, layer(inputs))
    assert layer.variables_by_name.keys() == start.keys()
    for name, value in start.items():
        layer.variables_by_name[name].assign(value)
    model.compile(
        keras.optimizers.SGD(RATE), keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    )
    seen = []
    watch = keras.callbacks.LambdaCallback(
        on_train_batch_end=lambda batch, logs: seen.append(logs["loss"])
    )
    model.fit(*digits, batch_size=BATCH, shuffle=False, verbose=0, callbacks=[watch])
    # Keras reports the mean loss of the epoch so far.
    seen = np.diff(np.arange(1, STEPS + 1) * np.array(seen), prepend=0)
    assert losses[-1] < losses[0] / 2
    np.testing.assert_allclose(seen, losses, rtol=0, atol=2e-5)  # differences of sums of 50 losses
    for name, value in end.items():
        np.testing.assert_allclose(layer.variables_by_name[name], value, rtol=0, atol=1e-5, err_msg=name)
    np.testing.assert_allclose(model(digits[0][:BATCH]), logits, rtol=0, atol=1e-4)
