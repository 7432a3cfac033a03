"""VariableScopeLayer against the same code in a TF1 graph and session, or float64 NumPy."""

import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf

from paths import HELPERS
from tf1_layers import TOLERANCE, Session, X, Y, network
from tfbn import compat
from tfbn.compat import VariableScopeLayer

tf1 = tf.compat.v1
pytestmark = pytest.mark.filterwarnings("ignore:`layer.apply` is deprecated")


@pytest.mark.parametrize(("jit_compile", "eagerly"), [("auto", False), (True, False), (False, True)])
def test_fit_follows_a_tf1_session(jit_compile, eagerly):
    inputs = keras.Input([3])
    layer = VariableScopeLayer(network)
    model = keras.Model(inputs, layer(inputs))
    session = Session(network, layer, X, Y)
    model.compile(keras.optimizers.SGD(0.1), "mse", jit_compile=jit_compile, run_eagerly=eagerly)
    for start in range(0, 10):
        x, y = X[start % 5 : start % 5 + 6], Y[start % 5 : start % 5 + 6]
        model.reset_metrics()  # before Keras 3.15 what is returned is the mean since then
        loss = model.train_on_batch(x, y)
        np.testing.assert_allclose(loss, session.step(x, y), rtol=1e-5)
    session.check(layer, X, **TOLERANCE)
    assert layer.variables_by_name["net/count"].numpy() == 10
    model.evaluate(X, Y, verbose=0)
    model.predict(X, verbose=0)
    assert layer.variables_by_name["net/count"].numpy() == 10


def test_custom_loop_in_and_out_of_tf_function():
    layers = [VariableScopeLayer(network) for _ in range(2)]
    for layer in layers:
        layer.build((None, 3))
    layers[1].set_weights(layers[0].get_weights())

    def step(layer, x, y):
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean(tf.square(layer(x, training=True) - y)) + tf.add_n(layer.losses)
        values = [variable.value for variable in layer.trainable_weights]
        for value, gradient in zip(values, tape.gradient(loss, values), strict=True):
            value.assign_sub(0.1 * gradient)
        return loss

    session = Session(network, layers[0], X, Y)
    compiled = tf.function(step)
    for _ in range(4):
        expected = session.step(X, Y)
        np.testing.assert_allclose(step(layers[0], X, Y), expected, rtol=1e-5)
        np.testing.assert_allclose(compiled(layers[1], X, Y), expected, rtol=1e-5)
    for layer in layers:
        session.check(layer, X, **TOLERANCE)


def test_is_training_is_a_bool_and_arguments_win():
    seen = []

    def code(x, is_training):
        seen.append(is_training)
        return x

    layer = VariableScopeLayer(code)
    for training in (None, True, False, np.True_, 1):
        layer(X, training=training)
    assert [type(flag) for flag in seen] == [bool] * 3  # build, inference, training; then found again
    assert seen == [True, False, True]
    seen.clear()
    VariableScopeLayer(code, arguments={"is_training": False})(X, training=True)
    assert set(seen) == {False}

    def other(x, training="none"):
        seen.append(training)
        return x

    VariableScopeLayer(other)(X, training=True)
    assert seen[-1] is True
    VariableScopeLayer(lambda x: x)(X, training=True)
    VariableScopeLayer(tf.nn.relu)(X)


def test_called_twice_and_twins():
    inputs = keras.Input([3])
    first = VariableScopeLayer(network, arguments={"units": 3})
    two = VariableScopeLayer(network)
    model = keras.Model(inputs, two(first(first(inputs))))
    assert len(first.weights) == len(two.weights) == 15
    model.compile("sgd", "mse")
    model.fit(X, Y, batch_size=6, epochs=2, verbose=0)
    assert first.variables_by_name["net/count"].numpy() == 8
    assert two.variables_by_name["net/count"].numpy() == 4
    assert len(model.losses) == 4
    assert not np.array_equal(
        *(each.variables_by_name["net/fully_connected/weights"] for each in (first, two))
    )


def test_subclassed_model_that_fit_builds():
    class Model(keras.Model):
        def __init__(self):
            super().__init__()
            self.inner = VariableScopeLayer(network)

        def call(self, x, training=None):
            return self.inner(x, training=training)

    model = Model()
    model.compile("sgd", "mse")
    model.fit(X, Y, batch_size=6, verbose=0)
    assert model.inner.variables_by_name["net/count"].numpy() == 2
    assert len(model.losses) == 2
    assert model.inner.variables_by_name["net/weights"].path.endswith("/net/weights")


def test_built_while_keras_infers_shapes():
    layer = VariableScopeLayer(network)

    class Model(keras.Model):
        def __init__(self):
            super().__init__()
            self.inner = layer

        def call(self, x, training=None):
            return self.inner(x, training=training)

    model = Model()
    assert model.compute_output_spec(keras.KerasTensor([None, 3])).shape == (None, 2)
    session = Session(network, layer, X, Y)
    model.compile(keras.optimizers.SGD(0.1), "mse")
    for _ in range(3):
        model.reset_metrics()
        np.testing.assert_allclose(model.train_on_batch(X, Y), session.step(X, Y), rtol=1e-5)
    session.check(layer, X, **TOLERANCE)


def test_second_derivative_and_input_gradient():
    layer = VariableScopeLayer(lambda x: tf.reduce_sum(x**3 * tf1.get_variable("w", [3]), 1))
    layer(X)
    x, w = tf.constant(X), layer.variables_by_name["w"].numpy()
    for call in (lambda: layer(x), tf.function(lambda: layer(x))):
        with tf.GradientTape() as outer:
            outer.watch(x)
            with tf.GradientTape() as inner:
                inner.watch(x)
                y = call()
            first = inner.gradient(y, x)
        np.testing.assert_allclose(first, 3 * X**2 * w, rtol=1e-5)
        np.testing.assert_allclose(outer.gradient(first, x), 6 * X * w, rtol=1e-5)


# In a process of its own, for there must be two devices from its start.
MIRRORED = """
import sys
import numpy as np, tensorflow as tf
cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
import keras
sys.path.insert(0, sys.argv[1])
from tfbn import compat
from tfbn.compat import VariableScopeLayer
from tf1_layers import X, Y, Session, network
keras.utils.set_random_seed(0)
strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
assert strategy.num_replicas_in_sync == 2
with strategy.scope():
    model = keras.Sequential([keras.Input([3]), VariableScopeLayer(network)])
    model.compile(keras.optimizers.SGD(0.1), "mse", jit_compile=False)
layer = model.layers[-1]
session = Session(network, layer, X, Y)
model.fit(X, Y, batch_size=12, verbose=0)
assert layer.variables_by_name["net/count"].numpy() == 1
# The moving mean of the first layer is linear in the batch: the mean of two halves' is the whole's.
session.step(X, Y)
name = "net/fully_connected/BatchNorm/moving_mean"
whole = session.session.run(session.variables[name])
np.testing.assert_allclose(layer.variables_by_name[name].numpy(), whole, rtol=1e-5)
assert len(model.losses) == 2
"""


def test_mirrored_strategy(tmp_path):
    subprocess.run([sys.executable, "-c", MIRRORED, HELPERS], check=True, cwd=tmp_path)


@pytest.mark.parametrize("jit_compile", [False, True])
def test_large_images_train(jit_compile):
    """For which kernels choose functions of their own, whose gradients would not survive `prune`."""

    def images(x):
        return compat.batch_norm(x, is_training=True, fused=True, scale=True)

    inputs = keras.Input((112, 112, 8))
    layer = VariableScopeLayer(images)
    model = keras.Model(inputs, layer(inputs))
    model.compile("sgd", "mse", jit_compile=jit_compile)
    x = np.random.default_rng(0).normal(2, 3, (4, 112, 112, 8)).astype("float32")
    # The output has mean 0 and deviation 1, and the target is twice that.
    y = 2 * (x - x.mean((0, 1, 2))) / x.std((0, 1, 2))
    np.testing.assert_allclose(model.train_on_batch(x, y), 1.0, rtol=1e-3)
    gamma = next(weight for weight in layer.weights if "gamma" in weight.path)
    np.testing.assert_allclose(gamma, 1 + 0.01 * 2 / 8, rtol=1e-3)
