"""compat.slim: tf_slim 1.1.0, its layers, its training and its networks, with this batch norm."""

import json
import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf
import tf_slim
from tf_slim.nets import resnet_utils, resnet_v1

import tf1_networks
from networks import relative_difference
from sweeps import some
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
        return [variable.op.name for variable in tf1.trainable_variables()]


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
        names = [variable.op.name.removeprefix(f"{scope}/") for variable in tf1.global_variables()]
        normalized = [f"BatchNorm/{name}" for name in ("beta", "moving_mean", "moving_variance")]
        assert [name for name in names if "weights" not in name] == normalized  # and no biases
        assert len(tf1.get_collection(UPDATES)) == 2
        assert output.op.type == "Relu"  # the activation comes last
        models = [variable.op.name for variable in tf1.model_variables()]
        assert len(models) == len(set(models)) == len(names)
    for function in (tf_slim.batch_norm, compat.batch_norm):
        for arg_scope in (tf_slim.arg_scope, compat.arg_scope):
            with tf.Graph().as_default(), arg_scope([function], is_training=False, scale=True):
                layer(normalizer_fn=compat.batch_norm, normalizer_params={"center": False})
                assert f"{scope}/BatchNorm/gamma" in [
                    variable.op.name for variable in tf1.trainable_variables()
                ]
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
        tf1.set_random_seed(0)
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


# What the original has: batch norms, variables, trainable ones.
NETS = {
    "inception_v1": (57, 230, 116),
    "inception_v2": (68, 277, 141),
    "inception_v3": (96, 388, 196),
    "resnet_v1_50": (53, 267, 161),
    "resnet_v2_50": (49, 272, 174),
}
ORIGINAL = json.loads(tf1_networks.RECORD.read_text())


def assert_same(found, name):
    """What `Network.train` gives is what the original gave, through fifty layers in float64."""
    assert found.keys() == ORIGINAL[name].keys()
    for key, value in ORIGINAL[name].items():
        # float64; but 1 − decay of the statistics, from which inference follows, is float32 in tf_slim.
        assert relative_difference(found[key], value) < {"losses": 1e-8}.get(key, 1e-5), key


@pytest.mark.parametrize("name", some(NETS, ["inception_v2"]))
def test_a_network_trains_as_the_original(name):
    layers, variables, trained = NETS[name]
    with compat.slim(), tf.Graph().as_default():
        net = tf1_networks.Network(name)
        assert len(net.updates) == len(tf1.get_collection(UPDATES)) == 2 * layers
        assert len(net.variables) == variables
        assert len(tf1.trainable_variables()) == trained
        assert_same(net.train(), name)


def test_the_original_is_what_the_record_says(tmp_path):
    record = tmp_path / "record.json"
    command = [sys.executable, tf1_networks.__file__, record, "inception_v2"]
    subprocess.run(command, check=True, cwd=tmp_path)
    assert_same(json.loads(record.read_text())["inception_v2"], "inception_v2")


def test_a_network_with_the_fused_kernels():
    with compat.slim(), tf.Graph().as_default():
        found = tf1_networks.Network("inception_v2", "float32", fused=True).train(steps=1)
    assert all(np.isfinite(value).all() for value in found.values())
    # float32 through seventy layers, which amplify rounding a hundred times
    np.testing.assert_allclose(found["losses"], ORIGINAL["inception_v2"]["losses"][:1], rtol=1e-4)


@keras.saving.register_keras_serializable("tests")
def resnet_50(x, is_training):
    with tf_slim.arg_scope(resnet_utils.resnet_arg_scope()):
        return resnet_v1.resnet_v1_50(x, 10, is_training=is_training)


@pytest.fixture
def _float64():
    keras.config.set_floatx("float64")
    keras.config.set_dtype_policy("float64")
    yield
    keras.config.set_floatx("float32")


@pytest.mark.sweep
@pytest.mark.usefixtures("_float64")
def test_resnet_as_one_keras_layer(tmp_path):
    size, count, rate, *_ = tf1_networks.NETWORKS["resnet_v1_50"]
    images, labels = tf1_networks.digits(size, count)
    with compat.slim():  # as long as the model is used: each tf.function traces the code anew
        inputs = keras.Input([32, 32, 3])
        layer = compat.VariableScopeLayer(resnet_50)
        net, end_points = layer(inputs)
        model = keras.Model(inputs, net[:, 0, 0])
        assert len(layer.weights) == 267
        assert len(layer.losses) == 54
        assert layer.variables_by_name["resnet_v1_50/conv1/weights"].shape == (7, 7, 3, 64)
        assert end_points["resnet_v1_50/block4"].shape == (None, 1, 1, 2048)
        for name, variable in layer.variables_by_name.items():
            variable.assign(tf1_networks.initial(name, variable.shape))
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        model.compile(keras.optimizers.SGD(rate), loss, jit_compile=False)
        losses = model.fit(images, labels, batch_size=count, epochs=2, verbose=0).history["loss"]
        outputs = model.predict(images, verbose=0)
        original = ORIGINAL["resnet_v1_50"]
        assert relative_difference(losses, original["losses"]) < 1e-8
        assert relative_difference(outputs, original["inference"]) < 1e-5
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
