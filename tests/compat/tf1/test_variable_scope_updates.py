"""VariableScopeLayer: updates run once, losses are the layer's, frozen layers do neither."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from tf1_layers import LOSSES, UPDATES, X, network
from tfbn import compat
from tfbn.compat import VariableScopeLayer

tf1 = tf.compat.v1
pytestmark = pytest.mark.filterwarnings("ignore:`layer.apply` is deprecated")


def test_updates_run_once_and_only_what_is_fetched():
    def code(x, is_training):
        counts = [
            tf1.get_variable(name, [], initializer=tf1.zeros_initializer(), trainable=False)
            for name in ("op", "tensor", "twice", "read", "ignored", "in_place")
        ]
        op, tensor, twice, read, ignored, in_place = counts
        tf1.add_to_collection(UPDATES, tf1.assign_add(op, 1).op)  # whatever is_training says
        tf1.add_to_collection(UPDATES, tensor.assign_add(1.0, read_value=True) + 0)
        once = tf1.assign_add(twice, 1)
        tf1.add_to_collection(UPDATES, once)
        tf1.add_to_collection(UPDATES, once)
        with tf.control_dependencies([tf1.assign_add(in_place, 1)]):
            x = tf.identity(x)
        tf1.assign_add(ignored, 1)
        with tf.control_dependencies(tf1.get_collection(UPDATES)):
            tf1.add_to_collection(UPDATES, tf1.assign(read, op.read_value()))
        return x

    layer = VariableScopeLayer(code)

    def check(trained, called):
        values = {name: variable.numpy() for name, variable in layer.variables_by_name.items()}
        assert values == {
            **dict.fromkeys(("op", "tensor", "twice", "read"), trained),
            "ignored": 0,
            "in_place": called,
        }

    layer(X, training=True)
    check(1, 1)
    layer(X)
    check(1, 2)
    for number, jit_compile in enumerate((False, True), 1):

        @tf.function(jit_compile=jit_compile)
        def unused(x):
            for _ in tf.range(3):
                layer(x, training=True)
            layer(x)
            return x

        unused(X)
        # Nothing fetches `in_place` there: TensorFlow prunes it, and XLA runs it all the same.
        check(1 + 3 * number, 2 + 4 * jit_compile)
    assert UPDATES not in tf1.get_default_graph().get_all_collection_keys()


def test_losses():
    def code(x):
        with tf1.variable_scope("net", regularizer=lambda v: 0.5 * tf.reduce_sum(v**2)):
            a = tf1.get_variable("a", initializer=[1.0, 2.0, 3.0])
            b = tf1.get_variable("b", initializer=[4.0], regularizer=lambda _: None)
        tf1.add_to_collection(LOSSES, tf.reduce_sum(a) * b[0])  # of two weights
        tf1.add_to_collection(LOSSES, tf.cond((v := a[0]) > 0, lambda: v, lambda: -v))
        tf1.add_to_collection(LOSSES, tf.reduce_mean(x) * b[0])
        return x * a

    layer = VariableScopeLayer(code)
    layer.build((None, 3))
    assert [float(loss) for loss in layer.losses] == [7 + 1, 24]
    inputs = keras.Input([3])
    model = keras.Model(inputs, layer(layer(inputs)))
    weights = [layer.variables_by_name[f"net/{name}"].value for name in "ab"]

    def losses_and_slopes(x):
        with tf.GradientTape() as tape:
            model(x)
            losses = model.losses
            total = tf.add_n(losses)
        return losses, tape.gradient(total, weights)

    compiled = (tf.function(losses_and_slopes, jit_compile=jit) for jit in (False, True))
    for run in (losses_and_slopes, *compiled):
        losses, (slope_a, slope_b) = run(tf.constant(X))
        means = [X.mean() * 4, (X * [1, 2, 3]).mean() * 4]
        np.testing.assert_allclose([float(loss) for loss in losses], [*means, 8, 24], rtol=1e-6)
        in_a = np.array([1, 2, 3]) + 4 + [1, 0, 0] + 4 * X.mean(0) / 3
        np.testing.assert_allclose(slope_a, in_a, rtol=1e-5)
        np.testing.assert_allclose(slope_b, [6 + X.mean() + (X * [1, 2, 3]).mean()], rtol=1e-5)
    layer.trainable = False
    model(X)
    assert len(model.losses) == 2  # only those of the inputs, as Keras counts


def test_frozen():
    layer = VariableScopeLayer(network, trainable=False)
    before = (layer(X, training=True), layer.get_weights())[1]
    layer(X, training=True)
    np.testing.assert_array_equal(layer(X, training=True), layer(X))
    for old, new in zip(before, layer.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)
    assert not layer.trainable_weights
    assert not layer.losses
    layer.trainable = True
    layer(X, training=True)
    assert layer.variables_by_name["net/count"].numpy() == 1
    assert len(layer.trainable_weights) == 8
    assert len(layer.losses) == 2


@pytest.mark.parametrize("kind", ["contrib", "layers"])
def test_updates_inside_a_conditional_are_run_where_it_is_taken(kind):
    def code(x, is_training):
        def call():
            if kind == "contrib":
                return compat.batch_norm(x, scope="bn", decay=0.9, is_training=is_training)
            return compat.batch_normalization(x, name="bn", momentum=0.9, training=is_training)

        return tf.cond(tf.reduce_sum(x) > 0, call, lambda: x)

    layer, x = VariableScopeLayer(code), np.abs(X)
    layer(x, training=True)
    mean = layer.variables_by_name["bn/moving_mean"]
    np.testing.assert_allclose(mean, 0.1 * x.mean(0), rtol=1e-5)
    layer(-x, training=True)
    layer(x, training=False)
    np.testing.assert_allclose(mean, 0.1 * x.mean(0), rtol=1e-5)


def test_operations_of_one_s_own_inside_a_conditional_are_refused():
    def code(x):
        count = tf1.get_variable("count", (), initializer=tf1.zeros_initializer(), trainable=False)

        def call():
            tf1.add_to_collection(tf1.GraphKeys.UPDATE_OPS, count.assign_add(1.0).op)
            return x

        return tf.cond(tf.reduce_sum(x) > 0, call, lambda: x)

    with pytest.raises(ValueError, match=r"^update_ops has .* from inside a conditional or a loop"):
        VariableScopeLayer(code)(X, training=True)


def in_own_collection(x, is_training):
    return compat.batch_norm(x, is_training=is_training, decay=0.9, updates_collections="mine")


def test_updates_in_a_collection_of_one_s_own():
    layer = VariableScopeLayer(in_own_collection)
    with pytest.warns(UserWarning, match=r"go to mine, which is never run.*\['update_ops', 'mine'\]"):
        layer(X, training=True)
    mean = layer.variables_by_name["BatchNorm/moving_mean"]
    np.testing.assert_array_equal(mean, 0 * mean)
    layer = VariableScopeLayer(in_own_collection, update_collections=["mine"])
    layer(X, training=True)
    mean = layer.variables_by_name["BatchNorm/moving_mean"]
    np.testing.assert_allclose(mean, 0.1 * X.mean(0), rtol=1e-5)
    layer(X, training=False)
    np.testing.assert_allclose(mean, 0.1 * X.mean(0), rtol=1e-5)
    assert layer.get_config()["update_collections"] == ["mine"]
    with pytest.raises(TypeError, match=r"a sequence of names, received the string 'mine'\. Pass \['mi"):
        VariableScopeLayer(in_own_collection, update_collections="mine")
