"""load_checkpoint against checkpoints that TF1 graphs and sessions wrote, and their own outputs."""

import re

import keras
import numpy as np
import pytest
import tensorflow as tf
import tf_slim as slim
from sklearn.datasets import load_digits
from tf_slim.nets import resnet_utils, resnet_v1

from tf1_checkpoints import (
    TOLERANCE,
    UPDATES,
    V1,
    X,
    both,
    check_values,
    refused,
    unfit,
    value,
    values,
    weights,
    write,
)
from tfbn import compat
from tfbn.compat import CheckpointError, VariableScopeLayer, load_checkpoint
from tfbn.compat.tf1.checkpoints.load import warn_if_variables_never_updated

pytestmark = pytest.mark.filterwarnings("ignore:`layer.apply` is deprecated")

# Values that fit, and that do not.


@pytest.mark.parametrize("fmt", [1, 2])
@pytest.mark.parametrize("apart", [False, True])
def test_partitioned_variables(tmp_path, fmt, apart):
    def code(x, parts=None):
        with V1.variable_scope("p", partitioner=V1.fixed_size_partitioner(parts) if parts else None):
            w = V1.get_variable("w", [7, 3])
            x = tf.pad(x, [[0, 0], [0, 4]]) @ tf.convert_to_tensor(w)
            return compat.batch_norm(x, is_training=False, scale=True)

    path = tmp_path / "model"
    for written in (None, 2, 3):
        build = lambda x, n=written: [code(x, n)] * 2  # noqa: E731
        if apart and fmt == 1 and written:
            continue  # the format keeps slices of a whole only
        expected, stored = write(path, build, fmt=fmt, parts_apart=apart)
        for read in (None, 2, 3):
            layer = VariableScopeLayer(code, arguments={"parts": read})
            layer.build((None, 3))
            report = load_checkpoint(path, layer)
            assert report.unused == []
            np.testing.assert_allclose(layer(X), expected, **TOLERANCE)
            if read == written:
                check_values(layer, stored)
    if apart and fmt == 2:
        whole = VariableScopeLayer(code)
        whole.build((None, 3))
        loaded = load_checkpoint(path, whole).loaded
        assert loaded["p/w"] == "p/w/part_0, p/w/part_1, p/w/part_2"


def test_a_map_knows_partitioned_variables_as_a_whole(tmp_path):
    def code(x):
        with V1.variable_scope("p", partitioner=V1.fixed_size_partitioner(2)):
            return x @ tf.convert_to_tensor(V1.get_variable("w", [3, 2]))

    path = values(tmp_path / "model", old__v=np.arange(6, dtype="f").reshape(3, 2))
    for name_map in ({"p/w": "old/v"}, {"p/w": "old/v"}.get, {"p": "old", "w": "v"}):
        layer = VariableScopeLayer(code)
        layer.build((None, 3))
        load_checkpoint(path, layer, name_map)
        np.testing.assert_array_equal(value(layer, "p/w/part_0"), [[0, 1], [2, 3]])
        np.testing.assert_array_equal(value(layer, "p/w/part_1"), [[4, 5]])


def test_names_that_only_look_like_parts(tmp_path):
    names = ("a/part_0", "a/part_1", "a/part_x", "b/part_7", "part_0", "part_1/c", "d", "d/part_0")
    arrays = {name.replace("/", "__"): np.float32([n, n + 1]) for n, name in enumerate(names)}
    path = values(tmp_path / "model", **arrays, a__part_2=np.ones([3], "f"))
    layer = weights(*names)
    report = load_checkpoint(path, layer)
    assert report.loaded == {name: name for name in names}
    assert report.unused == ["a/part_2"]
    for number, name in enumerate(names):
        np.testing.assert_array_equal(value(layer, name), [number, number + 1])


def test_what_does_not_fit_is_all_said_and_nothing_changed(tmp_path):
    path = values(
        tmp_path / "model",
        fits=np.float32([1, 2]),
        shape=np.float32([1, 2, 3]),
        rank=np.float32(1),
        kind=np.int32([1, 2]),
        words=np.array(["a", "b"]),
        flags=np.array([True, False]),
        step=np.int64(3),
    )
    layer = weights("fits", "shape", "rank", "kind", "words", "flags", "gone", "net/gone")
    details = (
        "1 of 8 variables fit.\n"
        "Missing in the checkpoint: gone (looked for lost); net/gone.\n"
        "Wrong: shape: shape has shape (3,) where the model has (2,); rank: rank has shape () where the "
        "model has (2,); kind: kind is int32 where the model has float32; words: words is string where "
        "the model has float32; flags: flags is bool where the model has float32.\n"
        "Unused in the checkpoint: step."
    )
    with refused(CheckpointError, unfit(path, details), layer) as caught:
        load_checkpoint(path, layer, {"gone": "lost", "net/gone": "net/gone"})
    report = caught.value.report
    assert str(report) == details
    assert report.loaded == {"fits": "fits"}
    assert report.missing == {"gone": ["lost"], "net/gone": ["net/gone"]}
    assert list(report.wrong) == ["shape", "rank", "kind", "words", "flags"]
    assert report.unused == ["step"]


def test_types_that_hold_the_values(tmp_path):
    path = values(
        tmp_path / "model", a=np.float64([1, 1e30]), b=np.int64([1, 2]), c=np.int64([1, 2**40])
    )
    layer = weights("a")
    load_checkpoint(path, layer)
    np.testing.assert_array_equal(value(layer, "a"), np.float32([1, 1e30]))
    for name, dtype, fits in (("b", tf.int32, True), ("c", tf.int32, False), ("a", tf.float16, False)):
        layer = weights(name, dtype=dtype)
        if fits:
            load_checkpoint(path, layer)
            np.testing.assert_array_equal(value(layer, name), [1, 2])
            continue
        unused = ", ".join(other for other in "abc" if other != name)
        details = (
            f"0 of 1 variables fit.\nWrong: {name}: {name} has values that {dtype.name} cannot hold."
        )
        with refused(
            CheckpointError, unfit(path, f"{details}\nUnused in the checkpoint: {unused}."), layer
        ):
            load_checkpoint(path, layer)


def test_one_value_for_two_variables_is_refused(tmp_path):
    path = values(tmp_path / "model", conv__weights=np.float32([1, 2]), other=np.float32([3, 4]))
    layer = weights("a", "conv/weights", "other")
    details = (
        "1 of 3 variables fit.\nWrong: a: conv/weights would be the value of conv/weights too; "
        "conv/weights: conv/weights would be the value of a too."
    )
    with refused(CheckpointError, unfit(path, details), layer):
        load_checkpoint(path, layer, {"a": "conv/weights"})
    load_checkpoint(path, layer, {"a": "conv/weights"}, exclude="conv")


def test_two_variables_of_one_name_are_refused(tmp_path):
    path = values(tmp_path / "model", a=np.float32([1, 2]))
    layers = [weights("a", layer_name=name) for name in ("one", "two")]
    inputs = keras.Input([3])
    model = keras.Model(inputs, layers[1](layers[0](inputs)), name="twice")
    message = (
        "Two variables of 'twice' are called 'a' in TF1: one/a and two/a. Load into one layer at a "
        "time, load_checkpoint(path, layer)."
    )
    with refused(ValueError, message, model):
        load_checkpoint(path, model)
    for layer in layers:
        load_checkpoint(path, layer)
        np.testing.assert_array_equal(value(layer, "a"), [1, 2])


def test_a_checkpoint_of_objects_says_what_it_is(tmp_path):
    path = tf.train.Checkpoint(a=tf.Variable([1.0, 2.0])).write(str(tmp_path / "model"))
    layer = weights("a")
    key = "a/.ATTRIBUTES/VARIABLE_VALUE"
    details = (
        "0 of 1 variables fit.\nMissing in the checkpoint: a.\n"
        f"Unused in the checkpoint: _CHECKPOINTABLE_OBJECT_GRAPH, {key}."
    )
    remedy = "tf.train.Checkpoint wrote it, and restores it; it has no TF1 names."
    with refused(CheckpointError, unfit(path, details, remedy), layer):
        load_checkpoint(path, layer)
    load_checkpoint(path, layer, {"a": key})
    np.testing.assert_array_equal(value(layer, "a"), [1, 2])


# The classic failure.


def never(scopes):
    return (
        f"The batch norms {scopes} were trained, but their moving statistics are still 0 and 1, and at "
        "inference nothing is normalised: the operations in TF1's UPDATE_OPS were not run, or the model "
        "was called without training=True. Run them with each training step, or call "
        "tfbn.recalibrate(model, data)."
    )


@pytest.mark.parametrize("partitions", [None, 2])
@pytest.mark.parametrize("run", [False, True])
def test_update_operations_that_were_never_run(tmp_path, run, partitions):
    def code(x, is_training=True):
        x = compat.batch_norm(x, is_training=is_training, scale=True, center=False, scope="net/one")
        return compat.batch_norm(x, is_training=is_training)

    def train(outputs):
        loss = tf.reduce_mean(tf.square(outputs - 1))
        with tf.control_dependencies(V1.get_collection(UPDATES) if run else []):
            return V1.train.GradientDescentOptimizer(0.1).minimize(loss)

    parts = V1.fixed_size_partitioner(partitions) if partitions else None
    with tf.Graph().as_default(), V1.variable_scope("", partitioner=parts):
        operation = train(code(tf.constant(X)))
        with V1.Session() as session:
            session.run(V1.global_variables_initializer())
            session.run(operation)
            V1.train.Saver().save(session, str(tmp_path / "model"))

    def partitioned(x, is_training):
        with V1.variable_scope(V1.get_variable_scope(), partitioner=parts):
            return code(x, is_training)

    layer = VariableScopeLayer(partitioned)
    layer.build((None, 3))
    if run:
        load_checkpoint(tmp_path / "model", layer)
        return
    with pytest.warns(UserWarning, match=f"^{re.escape(never('net/one, BatchNorm'))}$") as caught:
        load_checkpoint(tmp_path / "model", layer)
    assert [warning.filename for warning in caught] == [__file__]
    assert value(layer, "BatchNorm/beta" + ("/part_0" if partitions else "")).any()


def test_what_is_no_sign_of_it():
    zeros, ones, other = np.zeros(3), np.ones(3), np.float32([0, 1, 2])
    for arrays in (
        {"moving_mean": zeros, "moving_variance": ones, "beta": zeros, "gamma": ones},  # new
        {"moving_mean": zeros, "moving_variance": ones},  # nothing to train
        {"moving_mean": zeros, "moving_variance": other, "beta": other},
        {"moving_mean": other, "moving_variance": ones, "beta": other},
        {"moving_mean": zeros, "beta": other},  # no batch norm
        {"mean": zeros, "variance": ones, "beta": other},
    ):
        warn_if_variables_never_updated({f"bn/{name}": array for name, array in arrays.items()})
        warn_if_variables_never_updated(arrays)
    trained = {"moving_mean": zeros, "moving_variance": ones, "gamma": other}
    with pytest.warns(UserWarning, match=f"^{re.escape(never('moving_mean'))}$"):
        warn_if_variables_never_updated(trained)
    many = {f"bn{n}/{name}": array for n in range(12) for name, array in trained.items()}
    shown = ", ".join(f"bn{n}" for n in range(10))
    with pytest.warns(UserWarning, match=f"^{re.escape(never(shown + ' and 2 more'))}$"):
        warn_if_variables_never_updated(many)


# A whole network.


@pytest.mark.sweep
def test_a_whole_resnet(tmp_path):
    digits, labels = load_digits(return_X_y=True)
    images = np.repeat(digits[:4].reshape(-1, 8, 8, 1) / 16, 3, -1).astype("float32")
    images = tf.image.resize(images, [32, 32]).numpy()
    with compat.slim():

        def resnet(x, is_training):
            with slim.arg_scope(resnet_utils.resnet_arg_scope(batch_norm_decay=0.9)):
                return resnet_v1.resnet_v1_50(x, 10, is_training=is_training)[0][:, 0, 0]

        with tf.Graph().as_default():
            V1.set_random_seed(0)
            x = V1.placeholder(tf.float32, [None, *images.shape[1:]])
            outputs, inference = both(resnet)(x)
            loss = V1.losses.sparse_softmax_cross_entropy(labels[:4], outputs)
            with tf.control_dependencies(V1.get_collection(UPDATES)):
                train = V1.train.MomentumOptimizer(0.01, 0.9).minimize(loss)
            with V1.Session() as session:
                session.run(V1.global_variables_initializer())
                session.run(train, {x: images})
                V1.train.Saver().save(session, str(tmp_path / "resnet.ckpt"), 1)
                expected = session.run(inference, {x: images})
        layer = VariableScopeLayer(resnet)
        layer.build((None, *images.shape[1:]))
        report = load_checkpoint(tmp_path, layer)
        outputs = layer(images)
    assert len(report.loaded) == len(layer.weights) == 267
    assert all(name == key for name, key in report.loaded.items())
    trainable = [name for name, variable in layer.variables_by_name.items() if variable.trainable]
    assert report.unused == sorted(f"{name}/Momentum" for name in trainable)
    scale = np.abs(expected).max()
    np.testing.assert_allclose(outputs / scale, expected / scale, atol=1e-5, rtol=0)
