"""What TF1 code does besides variables and updates: names of operations, averages, custom gradients."""

import numpy as np
import pytest
import tensorflow as tf

import reference
import tfbn
from tfbn import compat
from tfbn.compat import VariableScopeLayer

tf1 = tf.compat.v1
X = reference.data((16, 4))


def weights():
    return tf1.get_variable("fc/w", [4, 4], initializer=tf1.glorot_uniform_initializer(seed=1))


def test_variables_have_operations_with_their_names():
    seen = {}

    def code(x):
        kernel = weights()
        seen.update(name=kernel.op.name, full=kernel.name, type=kernel.op.type, graph=kernel.op.graph)
        with tf1.name_scope("a", "b", values=[kernel]), tf1.variable_scope("c", "d", values=[x, kernel]):
            return x @ kernel

    layer = VariableScopeLayer(code)
    want = layer(X)
    assert seen.pop("graph") is not None
    assert seen == {"name": "fc/w", "full": "fc/w:0", "type": "VarHandleOp"}
    np.testing.assert_allclose(want, X @ layer.variables_by_name["fc/w"].numpy(), rtol=1e-5)
    assert isinstance(layer.weights[0].value, tf.Variable)


@pytest.mark.parametrize("zero_debias", [True, False])
def test_assign_moving_average(zero_debias):
    """TensorFlow's own function, by hand in old code, with its default and without."""
    from tensorflow.python.training import moving_averages  # noqa: PLC0415  (as old code has it)

    def code(x):
        mean = tf1.get_variable("mean", [4], initializer=tf1.zeros_initializer(), trainable=False)
        update = moving_averages.assign_moving_average(
            mean, tf.reduce_mean(x, 0), 0.9, zero_debias=zero_debias
        )
        tf1.add_to_collection(tf1.GraphKeys.UPDATE_OPS, update)
        return x - mean

    layer = VariableScopeLayer(code)
    for _ in range(2):
        layer(X, training=True)
    # Without its bias the average of a constant is that constant.
    want = X.mean(0) if zero_debias else X.mean(0) * (1 - 0.9**2)
    np.testing.assert_allclose(layer.variables_by_name["mean"], want, rtol=1e-5)


@tf.custom_gradient
def swish_by_hand(x):
    gate = tf.sigmoid(x)
    return x * gate, lambda slope: slope * gate * (1 + x * (1 - gate))


SWISHES = {
    "tf.nn.swish": (tf.nn.swish, lambda x: x * tf.sigmoid(x)),
    "with a beta": (lambda x: tf.nn.swish(x, beta=2.0), lambda x: x * tf.sigmoid(2 * x)),
    "by hand": (swish_by_hand, lambda x: x * tf.sigmoid(x)),
}


@pytest.mark.parametrize("kind", SWISHES)
@pytest.mark.parametrize("eagerly", [False, True])
def test_custom_gradients_that_close_over_tensors_train(kind, eagerly):
    function, plain = SWISHES[kind]

    def code(x, is_training):
        return compat.batch_norm(function(x @ weights()), is_training=is_training, decay=0.9)

    layer = VariableScopeLayer(code)
    layer(X)
    kernel = layer.variables_by_name["fc/w"]

    def gradient(call):
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum(tf.sin(call()))
        return tape.gradient(loss, kernel.value)

    def without_layer():
        y = plain(X @ kernel.value)
        mean, variance = tf.nn.moments(y, 0)
        return tf.nn.batch_normalization(y, mean, variance, None, None, 1e-3)

    run = (lambda call: gradient(call)) if eagerly else tf.function(gradient)  # noqa: PLW0108
    got, want = run(lambda: layer(X, training=True)), gradient(without_layer)
    np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-5 * np.abs(want).max())
    assert np.abs(layer.variables_by_name["BatchNorm/moving_mean"].numpy()).min() > 0


def test_numpy_s_bool_is_a_bool():
    layer = VariableScopeLayer(
        lambda x, is_training: compat.batch_norm(x, is_training=np.bool_(is_training))
    )
    np.testing.assert_allclose(np.mean(layer(X, training=True), 0), 0, atol=1e-6)


@pytest.mark.parametrize("eagerly", [False, True])
def test_stateless_call(eagerly):
    """With other values it computes what a layer with such weights does, and changes nothing."""

    def code(x, is_training):
        return compat.batch_norm(x @ weights(), is_training=is_training, decay=0.9, scale=True)

    layer, other = VariableScopeLayer(code), VariableScopeLayer(code)
    layer(X), other(X)
    for weight in other.weights:
        weight.assign(np.abs(reference.data(weight.shape, seed=4)) + 0.1)
    before = layer.get_weights()
    trainable, rest = (
        [tf.constant(each.numpy()) for each in group]
        for group in (other.trainable_variables, other.non_trainable_variables)
    )

    def run(trainable, rest):
        with tf.GradientTape() as tape:
            tape.watch(trainable)
            y, updated = layer.stateless_call(trainable, rest, X, training=True)
            loss = tf.reduce_sum(tf.sin(y))
        return y, updated, tape.gradient(loss, trainable)

    y, updated, slopes = (run if eagerly else tf.function(run))(trainable, rest)
    with tf.GradientTape() as tape:
        want = other(X, training=True)
        loss = tf.reduce_sum(tf.sin(want))
    wanted = tape.gradient(loss, [each.value for each in other.trainable_variables])
    np.testing.assert_allclose(y, want, rtol=1e-5, atol=1e-6)
    for one, value in zip(updated, other.non_trainable_variables, strict=True):
        np.testing.assert_allclose(one, value, rtol=1e-6)
    for slope, expected in zip(slopes, wanted, strict=True):
        np.testing.assert_allclose(slope, expected, rtol=1e-4, atol=1e-5)
    for weight, value in zip(layer.get_weights(), before, strict=True):
        np.testing.assert_array_equal(weight, value)
    # As at inference, in which nothing is updated.
    y, updated = layer.stateless_call(trainable, [each.numpy() for each in updated], X, training=False)
    np.testing.assert_allclose(y, other(X, training=False), rtol=1e-5, atol=1e-6)
    for one, value in zip(updated, other.non_trainable_variables, strict=True):
        np.testing.assert_allclose(one, value, rtol=1e-6)


@pytest.mark.parametrize("batch", [True, False], ids=["known batch", "any batch"])
@pytest.mark.parametrize("kind", [tfbn.BatchNorm, tfbn.BatchRenorm, compat.BatchNormalization])
@pytest.mark.parametrize("shape", [(8, 96), (64, 20, 96), (2000, 64)])
def test_batch_norms_of_ours_inside(shape, kind, batch):
    """The layer copies its graph: a gradient of our own would reach for tensors of the first one."""
    bn = kind(name="bn")
    bn.build(shape)
    layer = VariableScopeLayer(
        lambda x, is_training: bn(x * tf.reduce_sum(weights()) ** 0, training=is_training)
    )

    start = bn.get_weights()

    def slope(function, x):
        with tf.GradientTape() as tape:
            tape.watch(x)
            loss = tf.reduce_sum(tf.sin(function(x, training=True)))
        return tape.gradient(loss, x)

    x = tf.constant(reference.data(shape), tf.float32)
    want = slope(bn, x)
    bn.set_weights(start)
    signature = [tf.TensorSpec(shape if batch else (None, *shape[1:]))]
    for got in (
        slope(layer, x),
        tf.function(lambda x: slope(layer, x), input_signature=signature)(x),
    ):
        np.testing.assert_allclose(got, want, rtol=0, atol=1e-4 * np.abs(want).max())
