"""A TF1 program with slim layers, its checkpoint, and what both become in Keras 3.

Trains a small slim network on scikit-learn's handwritten digits in a TF1 graph and saves a
checkpoint, as programs did in 2017. The same function then becomes a Keras model, takes over the
checkpoint, predicts the same, trains on by `fit` and is exported to a SavedModel. Exit status 1 if a
comparison fails. Needs tf-slim.

    python examples/migrate_slim.py
"""

import sys
import tempfile
import warnings
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf
import tf_slim as slim
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

from tfbn import compat

warnings.filterwarnings("ignore", "`layer.apply` is deprecated")  # says tf_slim of itself
CLOSE = 1e-5  # of probabilities: float32 rounding over some ten layers
BATCH = 64

compat.slim()  # the one new line: gives tf_slim a batch norm that runs


# The old program's code is unchanged: slim, arg_scope, normalizer_fn, variable scopes.
@keras.saving.register_keras_serializable("migrate_slim")
def network(images, is_training=True):
    """Images [batch, 8, 8, 1] to the logits of 10 classes."""
    normalization = {"is_training": is_training, "decay": 0.9, "scale": True}
    with slim.arg_scope(
        [slim.conv2d, slim.fully_connected],
        normalizer_fn=slim.batch_norm,
        normalizer_params=normalization,
        weights_regularizer=slim.l2_regularizer(1e-4),
    ):
        net = slim.conv2d(images, 16, 3, scope="conv1")
        net = slim.conv2d(net, 32, 3, stride=2, scope="conv2")
        net = tf.reshape(net, [-1, 4 * 4 * 32])
        net = slim.fully_connected(net, 32, scope="fc")
        return slim.fully_connected(net, 10, activation_fn=None, normalizer_fn=None, scope="logits")


def train_in_a_session(images, labels, checkpoint: str, steps: int) -> np.ndarray:
    """The old program: a graph, a session, UPDATE_OPS, a Saver.

    Returns:
        Its predictions for the images, [count, 10].
    """
    v1 = tf.compat.v1
    with tf.Graph().as_default():
        v1.set_random_seed(0)
        x = v1.placeholder(tf.float32, [None, 8, 8, 1])
        y = v1.placeholder(tf.int64, [None])
        logits = network(x)
        with v1.variable_scope("", reuse=True):
            predictions = tf.nn.softmax(network(x, is_training=False))
        v1.losses.sparse_softmax_cross_entropy(y, logits)
        with tf.control_dependencies(v1.get_collection(v1.GraphKeys.UPDATE_OPS)):
            train = v1.train.MomentumOptimizer(0.05, 0.9).minimize(v1.losses.get_total_loss())
        with v1.Session() as session:
            session.run(v1.global_variables_initializer())
            for step in range(steps):
                rows = np.random.default_rng(step).integers(0, len(images), BATCH)
                session.run(train, {x: images[rows], y: labels[rows]})
            v1.train.Saver().save(session, checkpoint)
            return session.run(predictions, {x: images})


def keras_model() -> keras.Model:
    """The new program: the old function as a layer. Its updates and losses come with it."""
    inputs = keras.Input((8, 8, 1), name="images")
    logits = compat.VariableScopeLayer(network, name="network")(inputs)
    return keras.Model(inputs, keras.layers.Softmax(name="classes")(logits))


def main(steps: int = 100, epochs: int = 3) -> int:
    """Run all steps and print the results.

    Args:
        steps: of the session.
        epochs: of `fit`, after it.

    Returns:
        0 if the Keras model and the SavedModel compute what they came from, 1 otherwise.
    """
    keras.utils.set_random_seed(0)
    digits = load_digits()
    images = (digits.images[..., np.newaxis] / 16).astype("float32")
    split = train_test_split(images, digits.target, test_size=0.25, random_state=0)
    images, test, labels, test_labels = split

    with tempfile.TemporaryDirectory() as folder:
        checkpoint = str(Path(folder) / "model.ckpt")
        before = train_in_a_session(images, labels, checkpoint, steps)
        model = keras_model()
        report = compat.load_checkpoint(checkpoint, model)
        loaded = model.predict(images, verbose=0)
        model.compile(
            keras.optimizers.SGD(0.01, momentum=0.9),
            "sparse_categorical_crossentropy",
            metrics=["accuracy"],
        )
        first = model.evaluate(test, test_labels, verbose=0)[1]
        model.fit(images, labels, batch_size=BATCH, epochs=epochs, verbose=0)
        last = model.evaluate(test, test_labels, verbose=0)[1]
        after = model.predict(test, verbose=0)
        model.export(f"{folder}/digits", verbose=False)
        serving = tf.saved_model.load(f"{folder}/digits")
        served = serving.serve(test).numpy()

    differences = np.abs(loaded - before).max(), np.abs(served - after).max()
    print(f"TF1 graph      {steps} steps in a session, checkpoint saved")
    print(f"checkpoint     {str(report).splitlines()[0]}")
    print(f"Keras model    {first:.2%} of the test images, {differences[0]:.1e} from the session")
    print(f"fit            {last:.2%} after {epochs} epochs more")
    print(f"SavedModel     {differences[1]:.1e} from the model")
    close = max(differences) <= CLOSE
    print("All comparisons hold." if close else "A comparison failed.")
    return 0 if close else 1


if __name__ == "__main__":
    sys.exit(main())
