"""VariableScopeLayer against the same code in a TF1 graph and session, or float64 NumPy."""

import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf
import tf_slim as slim

from paths import HELPERS
from tf1_layers import LOSSES, TOLERANCE, UPDATES, Session, X, Y, network
from tfbn import compat
from tfbn.compat import VariableScopeLayer

tf1 = tf.compat.v1
pytestmark = [pytest.mark.filterwarnings("ignore:`layer.apply` is deprecated"), pytest.mark.once]


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
    for one in layers:
        one.build((None, 3))
    layers[1].set_weights(layers[0].get_weights())

    def step(layer, x, y):
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean(tf.square(layer(x, training=True) - y)) + tf.add_n(layer.losses)
        values = [one.value for one in layer.trainable_weights]
        for value, gradient in zip(values, tape.gradient(loss, values), strict=True):
            value.assign_sub(0.1 * gradient)
        return loss

    session = Session(network, layers[0], X, Y)
    compiled = tf.function(step)
    for _ in range(4):
        expected = session.step(X, Y)
        np.testing.assert_allclose(step(layers[0], X, Y), expected, rtol=1e-5)
        np.testing.assert_allclose(compiled(layers[1], X, Y), expected, rtol=1e-5)
    for one in layers:
        session.check(one, X, **TOLERANCE)


def test_names_order_and_flags():
    layer = VariableScopeLayer(network, name="mine")
    layer.build((None, 3))
    batch_norm = [f"BatchNorm{n}/{v}" for n in ("", "_1") for v in VARIABLES]
    names = ["fully_connected/weights", *(f"fully_connected/BatchNorm/{v}" for v in VARIABLES)]
    names = [f"net/{one}" for one in [*names, *batch_norm, "count", "weights"]]
    assert list(layer.variables_by_name) == names
    assert {one.path for one in layer.weights} == {f"mine/{one}" for one in names}
    assert all(one.value.name == f"{name}:0" for name, one in layer.variables_by_name.items())
    frozen = ("moving_mean", "moving_variance", "count")
    trainable = {name for name in names if not name.endswith(frozen)}
    assert {one.path for one in layer.trainable_weights} == {f"mine/{one}" for one in trainable}
    assert layer.variables_by_name["net/count"].dtype == "int32"


VARIABLES = ("beta", "gamma", "moving_mean", "moving_variance")


def test_scope_and_arguments():
    layer = VariableScopeLayer(network, scope="outer/inner", arguments={"units": 7})
    assert layer(X).shape == (12, 7)
    assert "outer/inner/net/weights" in layer.variables_by_name


def test_is_training_is_a_bool_and_arguments_win():
    seen = []

    def code(x, is_training):
        seen.append(is_training)
        return x

    layer = VariableScopeLayer(code)
    for training in (None, True, False, np.True_, 1):
        layer(X, training=training)
    assert [type(one) for one in seen] == [bool] * 3  # build, inference, training; then found again
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
    values = {name: one.numpy() for name, one in layer.variables_by_name.items()}
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
        values = {name: one.numpy() for name, one in layer.variables_by_name.items()}
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
    assert [float(one) for one in layer.losses] == [7 + 1, 24]
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


def test_called_twice_and_twins():
    inputs = keras.Input([3])
    one = VariableScopeLayer(network, arguments={"units": 3})
    two = VariableScopeLayer(network)
    model = keras.Model(inputs, two(one(one(inputs))))
    assert len(one.weights) == len(two.weights) == 15
    model.compile("sgd", "mse")
    model.fit(X, Y, batch_size=6, epochs=2, verbose=0)
    assert one.variables_by_name["net/count"].numpy() == 8
    assert two.variables_by_name["net/count"].numpy() == 4
    assert len(model.losses) == 4
    assert not np.array_equal(
        *(each.variables_by_name["net/fully_connected/weights"] for each in (one, two))
    )


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
    with pytest.raises(NotImplementedError, match="does not support stateless_call"):
        layer.stateless_call([one.numpy() for one in layer.trainable_variables], [], X)


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


def test_save_load_clone_and_export(tmp_path):
    inputs = keras.Input([3])
    model = keras.Model(inputs, VariableScopeLayer(network, arguments={"units": 2})(inputs))
    model.compile("sgd", "mse")
    model.fit(X, Y, verbose=0)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(loaded.predict(X, verbose=0), model.predict(X, verbose=0))
    assert list(loaded.layers[1].variables_by_name) == list(model.layers[1].variables_by_name)
    loaded.fit(X, Y, verbose=0)
    model.fit(X, Y, verbose=0)
    np.testing.assert_allclose(loaded(X), model(X), rtol=1e-5, atol=1e-5)
    clone = keras.models.clone_model(model)
    clone.set_weights(model.get_weights())
    np.testing.assert_array_equal(clone(X), model(X))
    model.save_weights(tmp_path / "model.weights.h5")
    clone.set_weights([np.zeros_like(weight) for weight in clone.get_weights()])
    clone.load_weights(tmp_path / "model.weights.h5")
    np.testing.assert_array_equal(clone(X), model(X))
    model.export(tmp_path / "saved", verbose=False)
    served = tf.saved_model.load(tmp_path / "saved")
    np.testing.assert_allclose(served.serve(X), model(X), rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(served.serve(X[:1]), model(X[:1]), rtol=1e-5, atol=1e-5)
    assert len(served.variables) >= 15


def test_saved_in_sequential_and_unregistered_function(tmp_path):
    model = keras.Sequential([VariableScopeLayer(plain)])
    model.build([None, 3])
    model.save(tmp_path / "model.keras")
    with pytest.raises(Exception, match="plain"):
        keras.models.load_model(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras", custom_objects={"plain": plain})
    np.testing.assert_array_equal(loaded(X), model(X))


def plain(x):
    return x @ tf1.get_variable("w", [3, 2])


def test_integers_structures_and_unknown_sizes(tmp_path):
    keras.saving.register_keras_serializable("tests")(embed)
    words = keras.Input([None], dtype="int32")
    factor = keras.Input([1])
    layer = VariableScopeLayer(embed)
    outputs = layer({"words": words, "factor": factor})
    assert outputs["rows"].shape == (None, None, 4)
    assert outputs["pair"][0].shape == (None, 4)
    model = keras.Model([words, factor], outputs)
    table = layer.variables_by_name["embedding/table"].numpy()
    ids, by = np.array([[1, 2], [3, 3]]), np.float32([[2], [3]])
    result = model([ids, by])
    np.testing.assert_allclose(result["pair"][0], table[ids].sum(1) * by, rtol=1e-5)
    np.testing.assert_allclose(result["pair"][1], table[ids].sum((1, 2)), rtol=1e-5)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(loaded([ids, by])["rows"], result["rows"])
    rebuilt = VariableScopeLayer(embed)
    rebuilt.build_from_config(layer.get_build_config())
    assert len(rebuilt.weights) == 1


def embed(inputs):
    with tf1.variable_scope("embedding"):
        table = tf1.get_variable("table", [10, 4])
    rows = tf.nn.embedding_lookup(table, inputs["words"])
    total = tf.reduce_sum(rows, 1)
    return {"rows": rows, "pair": (total * inputs["factor"], tf.reduce_sum(total, 1))}


def test_mixed_precision():
    keras.config.set_dtype_policy("mixed_float16")
    layer = VariableScopeLayer(network_of_half)
    output = layer(X, training=True)
    assert output.dtype == tf.float16
    weights = layer.variables_by_name
    assert {weights[one].dtype for one in weights} == {"float32"}
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
        assert [one.name for one in tf1.get_collection("mine")] == ["c:0"]
        assert [one.name for one in tf1.trainable_variables("p/")] == [
            f"p/w/part_{n}:0" for n in range(3)
        ]
        return x @ tf.convert_to_tensor(w) + c

    layer = VariableScopeLayer(code)
    y = layer(X)
    values = {name: one.numpy() for name, one in layer.variables_by_name.items()}
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


def test_mixed_precision_of_code_that_names_no_types():
    def code(x):
        w = tf1.get_variable("w", [3, 2])
        count = tf1.get_variable("count", [], initializer=tf1.zeros_initializer(), trainable=False)
        tf1.add_to_collection(UPDATES, tf1.assign_add(count, 1))
        return x @ w

    keras.config.set_dtype_policy("mixed_bfloat16")
    layer = VariableScopeLayer(code)
    assert layer(X, training=True).dtype == tf.bfloat16
    assert {one.dtype for one in layer.weights} == {"float32"}
    assert layer.variables_by_name["count"].numpy() == 1


def test_updates_inside_a_conditional_are_refused():
    def code(x):
        call = lambda: compat.batch_norm(x, scope="bn")  # noqa: E731
        return tf.cond(tf.reduce_sum(x) > 0, call, lambda: x)

    with pytest.raises(ValueError, match=r"^UPDATE_OPS has .* Pass updates_collections=None there\.$"):
        VariableScopeLayer(code)(X, training=True)
