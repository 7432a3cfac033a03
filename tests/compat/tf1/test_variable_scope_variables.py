"""VariableScopeLayer's variables: names, initializers, reuse, types, partitions and getters."""

import keras
import numpy as np
import pytest
import tensorflow as tf
import tf_slim as slim

from tf1_layers import UPDATES, X, Y, network
from tfbn import compat
from tfbn.compat import VariableScopeLayer

tf1 = tf.compat.v1
pytestmark = pytest.mark.filterwarnings("ignore:`layer.apply` is deprecated")


def test_names_order_and_flags():
    layer = VariableScopeLayer(network, name="mine")
    layer.build((None, 3))
    batch_norm = [f"BatchNorm{n}/{v}" for n in ("", "_1") for v in VARIABLES]
    names = ["fully_connected/weights", *(f"fully_connected/BatchNorm/{v}" for v in VARIABLES)]
    names = [f"net/{name}" for name in [*names, *batch_norm, "count", "weights"]]
    assert list(layer.variables_by_name) == names
    assert {variable.path for variable in layer.weights} == {f"mine/{name}" for name in names}
    assert all(variable.value.name == f"{name}:0" for name, variable in layer.variables_by_name.items())
    frozen = ("moving_mean", "moving_variance", "count")
    trainable = {name for name in names if not name.endswith(frozen)}
    assert {variable.path for variable in layer.trainable_weights} == {
        f"mine/{variable}" for variable in trainable
    }
    assert layer.variables_by_name["net/count"].dtype == "int32"


VARIABLES = ("beta", "gamma", "moving_mean", "moving_variance")


def test_scope_and_arguments():
    layer = VariableScopeLayer(network, scope="outer/inner", arguments={"units": 7})
    assert layer(X).shape == (12, 7)
    assert "outer/inner/net/weights" in layer.variables_by_name


def test_initializers():
    calls = []

    def partitioned(shape, dtype=None, partition_info=None):
        calls.append((shape, partition_info))
        return tf.fill(shape, tf.cast(7, dtype))

    def code(x):
        get = tf1.get_variable
        get("constant", initializer=[[1.0, 2.0]])
        get("array", initializer=np.float64([3, 4]))
        get("tensor", initializer=tf.constant([5, 6]))
        get("class", [2], initializer=tf1.ones_initializer)
        get("instance", [2], tf.float64, tf1.constant_initializer([8.0, 9.0]))
        get("partition_info", [2], initializer=partitioned)
        get("plain", [2, 2], initializer=lambda shape, dtype: 4 * tf.ones(shape, dtype))
        get("no_arguments", initializer=lambda: tf.constant(2.5))
        get("default", [200, 300])
        get("flag", [2], tf.bool, tf1.zeros_initializer())
        with tf1.variable_scope("scope", initializer=tf1.constant_initializer(6.0), dtype=tf.float16):
            get("inherited", [1])
        return x

    layer = VariableScopeLayer(code)
    layer(X)
    values = {name: variable.numpy() for name, variable in layer.variables_by_name.items()}
    expected = {
        "constant": np.float32([[1, 2]]),
        "array": np.float64([3, 4]),
        "tensor": np.int32([5, 6]),
        "class": np.float32([1, 1]),
        "instance": np.float64([8, 9]),
        "partition_info": np.float32([7, 7]),
        "plain": np.full([2, 2], 4, "float32"),
        "no_arguments": np.float32(2.5),
        "flag": np.array([False, False]),
        "scope/inherited": np.float16([6]),
    }
    for name, value in expected.items():
        np.testing.assert_array_equal(values[name], value)
        assert values[name].dtype == value.dtype, name
    assert calls == [([2], None)]
    limit = (6 / 500) ** 0.5  # Glorot, uniform
    assert limit * 0.98 < np.abs(values["default"]).max() <= limit


def test_reuse():
    def code(x, is_training):
        with tf1.variable_scope("a", reuse=not is_training):  # TF1 built the evaluation graph second
            w = tf1.get_variable("w", [3])
        with tf1.variable_scope("a", reuse=True):
            assert tf1.get_variable("w") is w
        for _ in range(2):
            with tf1.variable_scope("b", reuse=tf1.AUTO_REUSE):
                v = tf1.get_variable("w", [3])
        with tf1.variable_scope(None, "c"):
            u = tf1.get_variable("w", [3])
        with tf1.variable_scope(None, "c"), tf1.variable_scope("d"), tf.name_scope("names"):
            t = tf1.get_variable("w", [3])
        return x * w + v * u + t

    layer = VariableScopeLayer(code)
    a, b, c, d = (layer(X), layer.get_weights())[1]
    for training in (True, False):
        np.testing.assert_allclose(layer(X, training=training), X * a + b * c + d, rtol=1e-5)
    assert list(layer.variables_by_name) == ["a/w", "b/w", "c/w", "c_1/d/w"]


def test_mixed_precision():
    keras.config.set_dtype_policy("mixed_float16")
    layer = VariableScopeLayer(network_of_half)
    output = layer(X, training=True)
    assert output.dtype == tf.float16
    weights = layer.variables_by_name
    assert {weights[name].dtype for name in weights} == {"float32"}
    w, b = weights["net/fully_connected/weights"].numpy(), weights["net/w"].numpy()
    y = X.astype("float64") @ w
    y = (y - y.mean(0)) / np.sqrt(y.var(0) + 0.001) * b
    np.testing.assert_allclose(output, np.maximum(y, 0), atol=0.03)  # half has 11 bits
    np.testing.assert_allclose(
        weights["net/fully_connected/BatchNorm/moving_mean"].numpy(), 0.1 * (X @ w).mean(0), rtol=5e-3
    )
    model = keras.Sequential([keras.Input([3]), layer, keras.layers.Dense(2, dtype="float32")])
    model.compile("adam", "mse")
    model.fit(X, Y, verbose=0)


def network_of_half(x, is_training):
    with tf1.variable_scope("net"):
        w = tf1.get_variable("w", [4], dtype=x.dtype)
        x = slim.fully_connected(
            x, 4, activation_fn=None, normalizer_fn=compat.batch_norm,
            normalizer_params={"is_training": is_training, "decay": 0.9},
        )  # fmt: skip
        return tf.nn.relu(x * w)


def test_partitioned_scope_constraint_and_collections():
    def code(x):
        with tf1.variable_scope("p", partitioner=tf1.fixed_size_partitioner(3)):
            w = tf1.get_variable("w", [3, 2])
        c = tf1.get_variable(
            "c",
            [2],
            initializer=tf1.constant_initializer(3.0),
            constraint=lambda v: v / 2,
            collections=["mine"],
        )
        assert [variable.name for variable in tf1.get_collection("mine")] == ["c:0"]
        assert [variable.name for variable in tf1.trainable_variables("p/")] == [
            f"p/w/part_{n}:0" for n in range(3)
        ]
        return x @ tf.convert_to_tensor(w) + c

    layer = VariableScopeLayer(code)
    y = layer(X)
    values = {name: variable.numpy() for name, variable in layer.variables_by_name.items()}
    w = np.concatenate([values[f"p/w/part_{n}"] for n in range(3)])
    np.testing.assert_allclose(y, X @ w + values["c"], rtol=1e-5)
    model = keras.Sequential([layer])
    model.compile(keras.optimizers.SGD(0.0), "mse")
    model.train_on_batch(X, Y)
    np.testing.assert_array_equal(layer.variables_by_name["c"].numpy(), [1.5, 1.5])


def test_outer_custom_getter_is_honoured():
    def halved(getter, *args, **kwargs):
        return getter(*args, **kwargs) / 2

    def code(x):
        with tf1.variable_scope("s", custom_getter=halved):
            return x * tf1.get_variable("w", [3], initializer=tf1.ones_initializer())

    np.testing.assert_array_equal(VariableScopeLayer(code)(X), X / 2)


def by_position(getter, name, shape=None, dtype=tf.float32, *args, **kwargs):
    return getter(name, shape, dtype, *args, **kwargs)


def stored_in_float32(getter, name, shape=None, dtype=tf.float32, *args, **kwargs):
    return tf.cast(getter(name, shape, tf.float32, *args, **kwargs), dtype)


def frozen(getter, name, shape, dtype, initializer, regularizer, reuse, trainable, **kwargs):
    return getter(name, shape, dtype, initializer, regularizer, reuse, False, **kwargs)


def the_least(getter, name, shape=None, initializer=None, **_):
    return getter(name, shape, initializer=initializer)


@pytest.mark.parametrize("dtype", ["float32", "float16"])
@pytest.mark.parametrize("getter", [by_position, stored_in_float32, frozen, the_least])
def test_custom_getters_pass_on_what_they_will(getter, dtype):
    def code(x):
        with tf1.variable_scope("s", custom_getter=getter):
            w = tf1.get_variable("w", [3], dtype, initializer=tf1.constant_initializer([1.0, 2.0, 3.0]))
        with tf1.variable_scope("s", custom_getter=getter, reuse=True):
            again = tf1.get_variable("w", [3], dtype, initializer=tf1.ones_initializer())
        return tf.cast(w, tf.float32) * x + tf.cast(again, tf.float32)

    layer = VariableScopeLayer(code)
    with tf1.Graph().as_default(), tf1.Session() as session:
        output = code(tf.constant(X))
        session.run(tf1.global_variables_initializer())
        want = session.run(output)
        made = [(variable.op.name, variable.dtype.name) for variable in tf1.global_variables()]
        trainable = [variable.op.name for variable in tf1.trainable_variables()]
    for _ in range(2):
        np.testing.assert_array_equal(layer(X), want)
    assert [(name, variable.dtype) for name, variable in layer.variables_by_name.items()] == made
    assert [name for name, each in layer.variables_by_name.items() if each.trainable] == trainable


def test_mixed_precision_of_code_that_names_no_types():
    def code(x):
        w = tf1.get_variable("w", [3, 2])
        count = tf1.get_variable("count", [], initializer=tf1.zeros_initializer(), trainable=False)
        tf1.add_to_collection(UPDATES, tf1.assign_add(count, 1))
        return x @ w

    keras.config.set_dtype_policy("mixed_bfloat16")
    layer = VariableScopeLayer(code)
    assert layer(X, training=True).dtype == tf.bfloat16
    assert {variable.dtype for variable in layer.weights} == {"float32"}
    assert layer.variables_by_name["count"].numpy() == 1
