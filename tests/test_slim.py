"""compat.slim: tf_slim 1.1.0, its layers, its training and its networks, with this batch norm."""

import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf
import tf_slim
from sklearn.datasets import load_digits
from tf_slim.nets import inception_v1, inception_v2, inception_v3, resnet_utils, resnet_v1, resnet_v2

from tfbn import compat

tf1 = tf.compat.v1
UPDATES = tf1.GraphKeys.UPDATE_OPS
pytestmark = pytest.mark.filterwarnings("ignore:`layer.apply` is deprecated")
X = np.random.default_rng(0).normal(3, [1, 2, 5], [12, 3]).astype("float32")


def attributes():
    """What every module of tf_slim holds, and the modules of TensorFlow that it takes for its own."""
    names = ["tensorflow.python.framework.ops", "tensorflow.python.ops.control_flow_ops"]
    names += [name for name in sys.modules if name.split(".")[0] == "tf_slim"]
    return {name: dict(vars(sys.modules[name])) for name in names}


def differences(before):
    """The attributes that are others now, by the last part of their module's name."""
    return {
        f"{module.split('.')[-1]}.{name}"
        for module, now in attributes().items()
        for name in now.keys() | before[module].keys()
        if now.get(name) is not before[module].get(name)
    }


def trainable(function, *args, **kwargs):
    """The names of the trainable variables that the function makes."""
    with tf.Graph().as_default():
        function(*args, **kwargs)
        return [one.op.name for one in tf1.trainable_variables()]


def zeros():
    return tf.zeros([2, 8, 8, 3])


def test_only_what_is_needed_is_replaced_and_leaving_restores_it():
    before = attributes()
    with compat.slim() as slim:
        assert slim is tf_slim
        replaced = differences(before)
        assert {name for name in replaced if not name.endswith("ops")} == {
            f"{module}.batch_norm" for module in ("tf_slim", "layers")
        }  # tf_slim.layers, a package, and tf_slim.layers.layers
        assert tf_slim.batch_norm is tf_slim.layers.batch_norm is compat.batch_norm
        assert sys.modules["tf_slim.layers"].batch_norm is compat.batch_norm
        assert replaced >= {"utils.control_flow_ops", "learning.ops"}
    assert not differences(before)
    with pytest.raises(ZeroDivisionError), compat.slim():
        1 / 0  # noqa: B018
    assert not differences(before)


def test_a_call_lasts_nests_and_can_be_left_and_entered_again():
    before = attributes()
    called = compat.slim()
    try:
        assert tf_slim.batch_norm is compat.batch_norm
        replaced = differences(before)
        with compat.slim(), compat.slim():
            assert differences(before) == replaced
        assert differences(before) == replaced
    finally:
        with called:
            pass
    assert not differences(before)
    with called, called:
        assert differences(before) == replaced
    assert not differences(before)


def test_without_tf_slim(monkeypatch):
    monkeypatch.setitem(sys.modules, "tf_slim", None)
    with pytest.raises(ImportError) as caught:
        compat.slim()
    assert str(caught.value) == (
        "compat.slim() needs tf_slim, which is not installed. Install it with: "
        "pip install tf-slim==1.1.0"
    )


def test_what_tf_slim_itself_misses_is_said(monkeypatch, tmp_path):
    (tmp_path / "tf_slim.py").write_text("import absent_dependency")
    monkeypatch.delitem(sys.modules, "tf_slim")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ModuleNotFoundError, match="No module named 'absent_dependency'"):
        compat.slim()


def test_compat_does_not_need_tf_slim(tmp_path):
    code = (
        "import sys, tensorflow as tf; sys.modules['tf_slim'] = None; from tfbn import compat\n"
        "with tf.Graph().as_default(), compat.arg_scope([compat.batch_norm], scale=True):\n"
        "    compat.batch_norm(tf.zeros([2, 3]))\n"
        "    assert len(tf.compat.v1.trainable_variables()) == 2"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=tmp_path)


def test_scopes_reach_it_from_old_code_and_from_before():
    with tf_slim.arg_scope([tf_slim.batch_norm], scale=True, center=False) as saved:
        pass
    with compat.slim() as slim:
        for scope in (saved, [slim.batch_norm], [compat.batch_norm]):
            arguments = {} if scope is saved else {"scale": True, "center": False}
            for arg_scope in (slim.arg_scope, compat.arg_scope):
                with arg_scope(scope, **arguments) as again:
                    for function in (slim.batch_norm, compat.batch_norm):
                        names = trainable(lambda function=function: function(zeros()))
                        assert names == ["BatchNorm/gamma"]
    with tf_slim.arg_scope(again):
        assert trainable(lambda: compat.batch_norm(zeros())) == ["BatchNorm/gamma"]


LAYERS = {
    "Conv": lambda **kwargs: tf_slim.conv2d(zeros(), 4, 3, **kwargs),
    "Conv2d_transpose": lambda **kwargs: tf_slim.conv2d_transpose(zeros(), 4, 3, **kwargs),
    "SeparableConv2d": lambda **kwargs: tf_slim.separable_conv2d(zeros(), 4, 3, 1, **kwargs),
    "fully_connected": lambda **kwargs: tf_slim.fully_connected(zeros(), 4, **kwargs),
}


@pytest.mark.parametrize("scope", LAYERS)
def test_as_normalizer_fn_without_compat_slim(scope):
    layer = LAYERS[scope]
    with tf.Graph().as_default():
        output = layer(normalizer_fn=compat.batch_norm)
        names = [one.op.name.removeprefix(f"{scope}/") for one in tf1.global_variables()]
        normalized = [f"BatchNorm/{name}" for name in ("beta", "moving_mean", "moving_variance")]
        assert [name for name in names if "weights" not in name] == normalized  # and no biases
        assert len(tf1.get_collection(UPDATES)) == 2
        assert output.op.type == "Relu"  # the activation comes last
        models = [one.op.name for one in tf1.model_variables()]
        assert len(models) == len(set(models)) == len(names)
    for function in (tf_slim.batch_norm, compat.batch_norm):
        for arg_scope in (tf_slim.arg_scope, compat.arg_scope):
            with tf.Graph().as_default(), arg_scope([function], is_training=False, scale=True):
                layer(normalizer_fn=compat.batch_norm, normalizer_params={"center": False})
                assert f"{scope}/BatchNorm/gamma" in [one.op.name for one in tf1.trainable_variables()]
                assert not tf1.get_collection(UPDATES)


def test_normalizer_params_beat_the_scope_and_the_numbers_are_right():
    with tf.Graph().as_default(), tf_slim.arg_scope([compat.batch_norm], decay=0.5, epsilon=1.0):
        y = tf_slim.fully_connected(
            X, 4, None, compat.batch_norm, {"decay": 0.9}, weights_initializer=tf1.ones_initializer()
        )
        with tf1.Session() as session:
            session.run(tf1.global_variables_initializer())
            y, _ = session.run([y, tf1.get_collection(UPDATES)])
            mean = session.run(tf1.global_variables("fully_connected/BatchNorm/moving_mean")[0])
    total = X.astype("float64").sum(1)
    expected = (total - total.mean()) / np.sqrt(total.var() + 1)
    np.testing.assert_allclose(y, np.stack([expected] * 4, 1), rtol=1e-5, atol=1e-6)  # float32
    np.testing.assert_allclose(mean, [0.1 * total.mean()] * 4, rtol=1e-5)


def test_training_and_dropout_that_a_tensor_switches():
    with compat.slim() as slim, tf.Graph().as_default():
        training = tf1.placeholder(tf.bool, [])
        with slim.arg_scope([slim.batch_norm, slim.dropout], is_training=training):
            x = slim.fully_connected(X, 64, normalizer_fn=slim.batch_norm, scope="fc")
            dropped = slim.dropout(x, 0.5)
        loss = tf.reduce_mean(tf.square(slim.linear(dropped, 1) - 100.0))
        optimizer = tf1.train.GradientDescentOptimizer(1.0)
        train = slim.learning.create_train_op(loss, optimizer, clip_gradient_norm=0.01)
        step, bias = tf1.train.get_global_step(), tf1.global_variables("fully_connected/biases")[0]
        mean = tf1.global_variables("fc/BatchNorm/moving_mean")[0]
        with tf1.Session() as session:
            session.run(tf1.global_variables_initializer())
            y, all_of_it = session.run([dropped, x], {training: False})
            np.testing.assert_array_equal(y, all_of_it)
            y, all_of_it = session.run([dropped, x], {training: True})
            assert 0.3 < np.mean(y[all_of_it > 0] == 0) < 0.7  # of some 380, each with chance 1/2
            assert session.run(train, {training: False}) > 0
            assert not session.run(mean).any()
            assert session.run(train, {training: True}) > 0
            assert session.run(mean).any()  # create_train_op runs the updates
            assert session.run(step) == 2
            assert 0 < session.run(bias)[0] <= 0.02 * 1.0001  # two clipped steps; nearly 400 without


def digits(size, count):
    """Digits as images of `size` pixels, a multiple of 8, and their labels."""
    images, labels = load_digits(return_X_y=True)
    images = np.kron(images[:count].reshape(-1, 8, 8, 1) / 8 - 1, np.ones([1, size // 8, size // 8, 3]))
    return images.astype("float32"), labels[:count]


class Net:
    """A network in a TF1 graph, as old code trains and evaluates it."""

    def __init__(self, module, name, size, rate):
        arg_scope = getattr(module, f"{name}_arg_scope", None) or resnet_utils.resnet_arg_scope
        self.x = tf1.placeholder(tf.float32, [None, size, size, 3])
        self.labels = tf1.placeholder(tf.int64, [None])
        with tf_slim.arg_scope(arg_scope()):
            logits, _ = getattr(module, name)(self.x, 10, is_training=True)
            self.updates = tf1.get_collection(UPDATES)
            self.inference, _ = getattr(module, name)(self.x, 10, is_training=False, reuse=True)
        self.loss = tf1.losses.sparse_softmax_cross_entropy(self.labels, tf.reshape(logits, [-1, 10]))
        with tf.control_dependencies(self.updates):
            self.train = tf1.train.GradientDescentOptimizer(rate).minimize(self.loss)


def session():
    """A session that starts at once: for a few steps, optimizing the graph would take longer."""
    config = tf1.ConfigProto()
    config.graph_options.rewrite_options.disable_meta_optimizer = True
    config.graph_options.optimizer_options.opt_level = tf1.OptimizerOptions.L0
    return tf1.Session(config=config)


# Smallest size that is a multiple of 8, rate, decay; and what the original has: batch norms, variables,
# trainable ones.
NETS = {
    "inception_v1": (inception_v1, 200, 0.05, 0.9997, 57, 230, 116),
    "inception_v2": (inception_v2, 32, 0.05, 0.9997, 68, 277, 141),
    "inception_v3": (inception_v3, 112, 0.05, 0.9997, 96, 388, 196),
    "resnet_v1_50": (resnet_v1, 32, 0.002, 0.997, 53, 267, 161),
    "resnet_v2_50": (resnet_v2, 32, 0.01, 0.997, 49, 272, 174),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", NETS)
def test_network(name):
    module, size, rate, decay, layers, variables, trained = NETS[name]
    images, labels = digits(size, 8)
    with compat.slim(), tf.Graph().as_default():
        tf1.set_random_seed(0)
        net = Net(module, name, size, rate)
        means = [one for one in tf1.global_variables() if one.op.name.endswith("/moving_mean")]
        assert len(means) == layers
        assert len(net.updates) == len(tf1.get_collection(UPDATES)) == 2 * layers
        assert len(tf1.global_variables()) == variables
        assert len(tf1.trainable_variables()) == trained
        # What the first batch norm takes.
        layer = means[0].op.name.split("/")[-3]
        source = "pool1/MaxPool" if name == "resnet_v2_50" else f"{layer}/Conv2D"
        operations = tf1.get_default_graph().get_operations()
        first = next(one for one in operations if one.name.endswith(f"/{source}")).outputs[0]
        with session() as sess:
            sess.run(tf1.global_variables_initializer())
            feed = {net.x: images, net.labels: labels}
            loss, _, value = sess.run([net.loss, net.train, first], feed)
            expected = (1 - decay) * value.astype("float64").mean((0, 1, 2))
            # 1 − decay in float32 has three digits less than decay.
            scale = np.abs(expected).max()
            np.testing.assert_allclose(sess.run(means[0]), expected, rtol=1e-3, atol=1e-3 * scale)
            losses = [loss]
            for _ in range(3):
                losses.append(sess.run([net.loss, net.train], feed)[0])
            assert losses[-1] < losses[0] - 0.1, losses
            values = sess.run(means)
            assert all(one.any() and np.isfinite(one).all() for one in values)
            whole = sess.run(net.inference, feed)
            part = sess.run(net.inference, {net.x: images[:2]})
            scale = np.abs(whole).max()
            np.testing.assert_allclose(part, whole[:2], atol=1e-3 * scale)  # float32 through 50 layers
            for before, after in zip(values, sess.run(means), strict=True):
                np.testing.assert_array_equal(before, after)


@keras.saving.register_keras_serializable("tests")
def resnet_50(x, is_training):
    with tf_slim.arg_scope(resnet_utils.resnet_arg_scope(batch_norm_decay=0.9)):
        return resnet_v1.resnet_v1_50(x, 10, is_training=is_training)


@pytest.mark.slow
def test_resnet_as_one_keras_layer(tmp_path):
    images, labels = digits(32, 16)
    with compat.slim():  # as long as the model is used: each tf.function traces the code anew
        inputs = keras.Input([32, 32, 3])
        layer = compat.VariableScopeLayer(resnet_50)
        net, end_points = layer(inputs)
        model = keras.Model(inputs, net[:, 0, 0])
        assert len(layer.weights) == 267
        assert len(layer.losses) == 54
        assert layer.variables_by_name["resnet_v1_50/conv1/weights"].shape == (7, 7, 3, 64)
        assert end_points["resnet_v1_50/block4"].shape == (None, 1, 1, 2048)
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        model.compile(keras.optimizers.SGD(0.005), loss, jit_compile=False)
        losses = model.fit(images, labels, batch_size=16, epochs=6, verbose=0).history["loss"]
        assert losses[-1] < losses[0] - 0.5
        outputs = model.predict(images, verbose=0)
        assert np.isfinite(outputs).all()
        model.save(tmp_path / "resnet.keras")
        loaded = keras.models.load_model(tmp_path / "resnet.keras")
        np.testing.assert_array_equal(loaded.predict(images, verbose=0), outputs)


def test_what_the_call_gives_is_tf_slim_too():
    with compat.slim():
        slim = compat.slim()
        assert slim.conv2d is tf_slim.conv2d
        assert slim.batch_norm is compat.batch_norm
        with pytest.raises(AttributeError, match="no_such_layer"):
            slim.no_such_layer  # noqa: B018
