"""What VariableScopeLayer refuses, and in which words."""

import numpy as np
import pytest
import tensorflow as tf

from tf1_layers import X, network
from tfbn.compat import VariableScopeLayer

tf1 = tf.compat.v1
pytestmark = pytest.mark.filterwarnings("ignore:`layer.apply` is deprecated")


def failing(code, match):
    layer = VariableScopeLayer(code, name="it")
    with pytest.raises(ValueError, match=match):
        [layer(X) for _ in ("build", "call")]


def test_errors():
    def get(name="w", shape=(3,), **kwargs):
        return tf1.get_variable(name, shape, **kwargs)

    def twice(x):
        return get() + get()

    def missing(x):
        with tf1.variable_scope("a", reuse=True):
            return get()

    def shapes(x):
        with tf1.variable_scope("a", reuse=tf1.AUTO_REUSE):
            return get() + get(shape=[4])

    def late(x, is_training):
        return x if is_training else x + get("late")

    def direct(x):
        return x + tf.Variable(tf.ones([3]), name="v")

    def computed(x):
        return x * get(shape=None, initializer=tf.random.normal([3]))

    failing(twice, "Variable w already exists, disallowed")
    failing(missing, "Variable a/w does not exist")
    failing(shapes, r"Trying to share variable a/w, but specified shape \(4,\) and found shape \(3,\)")
    failing(late, "'it' has no variable 'late': .* is_training=True.* The layer has none.")
    failing(direct, r"name='v'\) without get_variable.*Replace tf.Variable by tf.compat.v1.get_variable")
    failing(computed, "The initial value of variable 'w' is .* Pass an initializer")
    layer = VariableScopeLayer(lambda x: x @ tf1.get_variable("w", [x.shape[-1], 2]), name="it")
    layer(X)
    message = (
        r"Trying to share variable w, but specified shape \(5, 2\) and found shape \(3, 2\)\. "
        "'it' was built for inputs of another shape."
    )
    with pytest.raises(ValueError, match=message):
        layer(np.ones([1, 5], "float32"))
    with pytest.raises(TypeError, match="function must be callable"):
        VariableScopeLayer(3)
    with pytest.raises(TypeError, match="arguments must be a dict"):
        VariableScopeLayer(network, arguments=[3])
