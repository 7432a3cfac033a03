"""By which names load_checkpoint finds what TF1 graphs saved."""

import keras
import numpy as np
import pytest
import tensorflow as tf
import tf_slim as slim

from tf1_checkpoints import (
    IMAGES,
    STATE,
    TOLERANCE,
    UPDATES,
    V1,
    X,
    both,
    check_values,
    network,
    refused,
    sgd_step,
    unfit,
    value,
    values,
    weights,
    write,
)
from tfbn import compat
from tfbn.compat import CheckpointError, VariableScopeLayer, load_checkpoint

pytestmark = pytest.mark.filterwarnings("ignore:`layer.apply` is deprecated")


def test_slim_into_keras_layers(tmp_path):
    def old(x):
        convolutions = slim.arg_scope(
            [slim.conv2d, slim.separable_conv2d], normalizer_fn=compat.batch_norm
        )
        with convolutions, slim.arg_scope([compat.batch_norm], is_training=False, scale=True):
            x = slim.conv2d(x, 4, 3, scope="conv1")
            x = slim.separable_conv2d(x, None, 3, scope="depth")
            x = slim.separable_conv2d(x, 5, 3, scope="block/both")
        return [
            slim.fully_connected(tf.reshape(x, [-1, 180]), 2, activation_fn=None, scope="logits")
        ] * 2

    expected, stored = write(tmp_path / "model", old, x=IMAGES)
    layers, inputs = keras.layers, keras.Input(IMAGES.shape[1:])

    def normalized(x, scope):
        return compat.batch_norm(x, scale=True, is_training=False, scope=scope, activation_fn=tf.nn.relu)

    more = {"padding": "same", "use_bias": False}
    x = normalized(layers.Conv2D(4, 3, name="conv1", **more)(inputs), "conv1/BatchNorm")
    x = normalized(layers.DepthwiseConv2D(3, name="depth", **more)(x), "depth/BatchNorm")
    x = normalized(layers.SeparableConv2D(5, 3, name="block_both", **more)(x), "block/both/BatchNorm")
    model = keras.Model(inputs, layers.Dense(2, name="logits")(layers.Flatten()(x)))
    report = load_checkpoint(tmp_path / "model", model)
    assert set(report.loaded.values()) == set(stored)
    assert report.loaded["block_both/pointwise_kernel"] == "block/both/pointwise_weights"
    assert report.loaded["block_both_BatchNorm/gamma"] == "block/both/BatchNorm/gamma"
    np.testing.assert_allclose(model(IMAGES), expected, **TOLERANCE)


def test_tf_layers_names_and_what_an_optimizer_left(tmp_path):
    def old(x):
        with V1.variable_scope("dense"):
            x = x @ V1.get_variable("kernel", [3, 4]) + V1.get_variable("bias", [4])
        V1.train.create_global_step()
        y = compat.batch_normalization(x, training=True)
        return y, compat.batch_normalization(x, name="batch_normalization", reuse=True)

    def train(outputs):
        loss, step = tf.reduce_sum(outputs**2), V1.train.get_global_step()
        with tf.control_dependencies(V1.get_collection(UPDATES)):
            momentum = V1.train.MomentumOptimizer(0.1, 0.9).minimize(loss, step)
            return momentum, V1.train.AdamOptimizer(0.1).minimize(loss)

    expected, _ = write(tmp_path / "model", old, train=train)
    inputs = keras.Input([3])
    x = keras.layers.Dense(4, name="dense")(inputs)
    model = keras.Model(inputs, compat.batch_normalization(x, name="batch_normalization"))
    report = load_checkpoint(tmp_path / "model", model)
    assert report.loaded == {
        name: name
        for name in ["dense/kernel", "dense/bias", *(f"batch_normalization/{part}" for part in STATE)]
    }
    trained = ["dense/kernel", "dense/bias", "batch_normalization/beta", "batch_normalization/gamma"]
    slots = [f"{name}/{slot}" for name in trained for slot in ("Adam", "Adam_1", "Momentum")]
    slots += ["beta1_power", "beta2_power", "global_step"]
    assert report.unused == sorted(slots)
    shown = ", ".join(sorted(slots)[:10])
    assert str(report) == f"6 variables loaded.\nUnused in the checkpoint: {shown} and 5 more."
    np.testing.assert_allclose(model(X), expected, **TOLERANCE)


def test_names_of_other_models(tmp_path):
    names = ["a/kernel", "a/bias", "inner/b/kernel", "inner/b/bias", "scale"]
    shapes = [(3, 2), (2,), (2, 2), (2,), (2,)]
    arrays = {
        name.replace("/", "__"): np.full(shape, number + 1, "float32")
        for number, (name, shape) in enumerate(zip(names, shapes, strict=True))
    }
    path = values(tmp_path / "model", **arrays)

    class Subclass(keras.Model):
        def __init__(self):
            super().__init__(name="mine")
            self.a = keras.layers.Dense(2, name="a")
            self.inner = keras.Sequential([keras.layers.Dense(2, name="b")], name="inner")
            self.scale = self.add_weight(shape=(2,), name="scale")

        def call(self, x):
            return self.inner(self.a(x)) * self.scale

    model = Subclass()
    model(X)
    assert load_checkpoint(path, model).loaded == {name: name for name in names}
    np.testing.assert_array_equal(
        [variable.numpy().mean() for variable in model.weights], [5, 1, 2, 3, 4]
    )
    alone = keras.layers.Dense(2, name="b")
    alone.build((None, 2))
    assert load_checkpoint(path, alone, {"": "inner"}).loaded == {
        "b/kernel": "inner/b/kernel",
        "b/bias": "inner/b/bias",
    }
    np.testing.assert_array_equal(alone.kernel.numpy(), np.full((2, 2), 3))


def test_slashes_that_became_underscores_must_be_unique(tmp_path):
    path = values(
        tmp_path / "m", a_b__c__kernel=np.ones([3, 2], "f"), a__b_c__kernel=np.ones([3, 2], "f")
    )
    model = keras.Sequential([keras.Input([3]), keras.layers.Dense(2, use_bias=False, name="a_b_c")])
    details = (
        "0 of 1 variables fit.\nWrong: a_b_c/kernel: a/b_c/kernel or a_b/c/kernel, which name_map must "
        "decide.\nUnused in the checkpoint: a/b_c/kernel, a_b/c/kernel."
    )
    with refused(CheckpointError, unfit(path, details), model):
        load_checkpoint(path, model)
    load_checkpoint(path, model, {"a_b_c": "a/b_c"})
    # The code knows its TF1 names exactly, and last parts keep their underscores.
    layer, path = weights("a_b/c"), values(tmp_path / "n", a__b__c=np.float32([1, 2]))
    details = (
        "0 of 1 variables fit.\nMissing in the checkpoint: a_b/c.\nUnused in the checkpoint: a/b/c."
    )
    with refused(CheckpointError, unfit(path, details), layer):
        load_checkpoint(path, layer)
    dense = keras.Sequential([keras.Input([3]), keras.layers.Dense(2, use_bias=False, name="a")])
    path = values(tmp_path / "o", a_kernel=np.ones([3, 2], "f"))
    with pytest.raises(CheckpointError):
        load_checkpoint(path, dense)


def test_zero_debias(tmp_path):
    def code(x, is_training):
        with V1.variable_scope("net"):
            return compat.batch_norm(x, is_training=is_training, decay=0.9, zero_debias_moving_mean=True)

    def plain(x, is_training):
        return compat.batch_norm(x, is_training=is_training, decay=0.9, scope="net/BatchNorm")

    expected, stored = write(tmp_path / "model", both(code), train=sgd_step)
    outer = "net/BatchNorm/"
    names = [f"{outer}{outer}moving_mean/{part}" for part in ("biased", "local_step")]
    doubled = {name.replace("/", "__"): array for name, array in stored.items()}
    # The first releases did not put them below the path once more.
    once = {name.replace("net__BatchNorm__" * 2, "net__BatchNorm__"): doubled[name] for name in doubled}
    values(tmp_path / "first", **once)
    for path, repeated in (("model", outer), ("first", "")):
        layer = VariableScopeLayer(code)
        layer.build((None, 3))
        report = load_checkpoint(tmp_path / path, layer)
        found = {name: repeated + name.removeprefix(outer) for name in names}
        assert {name: report.loaded[name] for name in names} == found
        check_values(layer, stored)
        np.testing.assert_allclose(layer(X), expected, **TOLERANCE)
        without = VariableScopeLayer(plain)
        without.build((None, 3))
        report = load_checkpoint(tmp_path / path, without)
        assert report.unused == sorted(found.values())
        np.testing.assert_allclose(without(X), expected, **TOLERANCE)
    renamed = {name.replace("net__BatchNorm", "b"): array for name, array in doubled.items()}
    path, layer = values(tmp_path / "renamed", **renamed), VariableScopeLayer(code)
    layer.build((None, 3))
    load_checkpoint(path, layer, {"net/BatchNorm": "b"})
    check_values(layer, stored)


def test_shadows_of_moving_averages_on_request(tmp_path):
    def train(outputs):
        averages = V1.train.ExponentialMovingAverage(0.5)
        with tf.control_dependencies([sgd_step(outputs)]):
            return averages.apply(V1.trainable_variables())

    _, stored = write(tmp_path / "model", both(network), train=train)
    ending = "/ExponentialMovingAverage"
    layer = VariableScopeLayer(network)
    layer.build((None, 3))
    for shadows in (False, True):
        report = load_checkpoint(tmp_path / "model", layer, moving_averages=shadows)
        for name in layer.variables_by_name:
            key = name + ending if shadows and name + ending in stored else name
            assert report.loaded[name] == key
            np.testing.assert_array_equal(value(layer, name), stored[key])
    key = f"first/weights{ending}"
    assert np.abs(stored[key] - stored["first/weights"]).max() > 1e-4
    assert report.loaded["first/BatchNorm/moving_mean"] == "first/BatchNorm/moving_mean"
    load_checkpoint(tmp_path / "model", layer, {"first/weights": key})
    np.testing.assert_array_equal(value(layer, "first/weights"), stored[key])


@pytest.mark.parametrize("kind", ["whole names", "scopes and last parts", "function"])
def test_name_maps(tmp_path, kind):
    new = dict(zip(STATE, ("offset", "scale", "pop_mean", "pop_var"), strict=True))
    arrays = {f"old__conv1_bn__{last}": np.float32([n, n + 9]) for n, last in enumerate(new.values())}
    path = values(tmp_path / "model", **arrays, other=np.float32([0, 0]))
    layer = weights(*(f"net/conv1/BatchNorm/{part}" for part in STATE))
    name_map = {
        "whole names": {f"net/conv1/BatchNorm/{a}": f"old/conv1_bn/{b}" for a, b in new.items()},
        "scopes and last parts": {
            "net": "nowhere",
            "net/conv1/BatchNorm": "old/conv1_bn",
            "net/conv1/Batch": "nowhere",
            **new,
        },
        "function": lambda name: f"old/conv1_bn/{new[name.rpartition('/')[2]]}",
    }[kind]
    report = load_checkpoint(path, layer, name_map)
    assert report.loaded == {f"net/conv1/BatchNorm/{a}": f"old/conv1_bn/{b}" for a, b in new.items()}
    assert report.unused == ["other"]
    for number, part in enumerate(STATE):
        np.testing.assert_array_equal(value(layer, f"net/conv1/BatchNorm/{part}"), [number, number + 9])


def test_outermost_scopes_come_and_go(tmp_path):
    path = values(
        tmp_path / "model",
        tower__a=np.float32([1, 2]),
        tower__s__a=np.float32([5, 6]),
        b=np.float32([3, 4]),
    )
    layer = weights("a", "s/a")
    load_checkpoint(path, layer, {"": "tower"})
    np.testing.assert_array_equal(value(layer, "a"), [1, 2])
    np.testing.assert_array_equal(value(layer, "s/a"), [5, 6])
    layer = weights("net/b")
    load_checkpoint(path, layer, {"net": ""})
    np.testing.assert_array_equal(value(layer, "net/b"), [3, 4])


def test_exclude(tmp_path):
    path = values(tmp_path / "model", body__a=np.float32([1, 2]), head__a=np.float32([3, 4]))
    for exclude in ("head", ["head/"], ("head/a", "head/b", "header")):
        layer = weights("body/a", "head/a", "head/b", "header")
        more = [] if "header" in exclude else ["header"]
        report = load_checkpoint(path, layer, exclude=[*np.atleast_1d(exclude).tolist(), *more])
        assert report.loaded == {"body/a": "body/a"}
        assert report.unused == ["head/a"]
        assert not value(layer, "head/a").any()
    before = layer.get_weights()
    assert load_checkpoint(path, layer, exclude=["body", "head", "header"]).loaded == {}
    np.testing.assert_array_equal(layer.get_weights(), before)
