"""load_checkpoint against checkpoints that TF1 graphs and sessions wrote, and their own outputs."""

import re
from contextlib import contextmanager

import keras
import numpy as np
import pytest
import tensorflow as tf
import tf_slim as slim
from sklearn.datasets import load_digits
from tf_slim.nets import resnet_utils, resnet_v1

from tfbn import compat
from tfbn.compat import CheckpointError, VariableScopeLayer, load_checkpoint
from tfbn.compat.checkpoints import warn_if_never_updated

V1 = tf.compat.v1
UPDATES = V1.GraphKeys.UPDATE_OPS
pytestmark = pytest.mark.filterwarnings("ignore:`layer.apply` is deprecated")
X = np.random.default_rng(0).normal(3, [1, 2, 5], [12, 3]).astype("float32")
IMAGES = np.random.default_rng(1).normal(1, 2, [4, 6, 6, 2]).astype("float32")
STATE = ("beta", "gamma", "moving_mean", "moving_variance")
TOLERANCE = {"rtol": 1e-5, "atol": 1e-5}  # float32, another order of sums


def write(path, build, *, x=X, train=None, fmt=2, partitions=None, parts_apart=False):
    """Build in a TF1 graph, give every variable values of its own, save.

    `train` gets the output and returns an operation to run once, after that. Returns the second output
    of `build`, and the variables' values by name.
    """
    parts = V1.fixed_size_partitioner(partitions) if partitions else None
    rng = np.random.default_rng(2)
    with tf.Graph().as_default(), V1.variable_scope("", partitioner=parts):
        inputs = V1.placeholder(tf.float32, [None, *x.shape[1:]])
        outputs, inference = build(inputs)
        operation = train(outputs) if train else tf.no_op()
        variables = V1.global_variables()
        whole = {} if not parts_apart else {"var_list": {v.op.name: v for v in variables}}
        saver = V1.train.Saver(write_version=fmt, **whole)
        with V1.Session() as session:
            session.run(V1.global_variables_initializer())
            for one in variables:
                if one.dtype.base_dtype.is_floating and not one.op.name.startswith("step"):
                    one.load(rng.uniform(0.5, 1.5, one.shape).astype("float32"), session)
            session.run(operation, {inputs: x})
            saver.save(session, str(path))
            result = session.run(inference, {inputs: x})
            return result, {v.op.name: session.run(v) for v in variables}


def values(path, **arrays):
    """A checkpoint of these arrays; `__` in a name stands for `/`."""
    with tf.Graph().as_default():
        variables = {
            name.replace("__", "/"): V1.Variable(array, use_resource=False, name=f"v{number}")
            for number, (name, array) in enumerate(arrays.items())
        }
        saver = V1.train.Saver(variables)
        with V1.Session() as session:
            session.run(V1.global_variables_initializer())
            saver.save(session, str(path))
    return str(path)


def both(function):
    """The function in training and in inference, which share their variables."""

    def build(x):
        scope = V1.get_variable_scope()
        with V1.variable_scope(scope):  # which starts the numbering of default scopes
            outputs = function(x, is_training=True)
        with V1.variable_scope(scope, reuse=True):
            return outputs, function(x, is_training=False)

    return build


def sgd_step(outputs):
    with tf.control_dependencies(V1.get_collection(UPDATES)):
        return V1.train.GradientDescentOptimizer(0.1).minimize(tf.reduce_mean(tf.square(outputs)))


def network(x, is_training=True):
    """Slim layers with a normalizer_fn, contrib's and tf.layers' batch norm."""
    with slim.arg_scope([compat.batch_norm], is_training=is_training, scale=True, decay=0.9):
        x = slim.fully_connected(x, 4, normalizer_fn=compat.batch_norm, scope="first")
        x = compat.batch_norm(x)
    x = compat.batch_normalization(x, training=is_training)
    return slim.fully_connected(x, 2, activation_fn=None, scope="out/last")


def weights(*names, shape=(2,), layer_name=None, dtype=tf.float32):
    """A built VariableScopeLayer with variables of these names, all of one shape."""

    def code(x):
        for name in names:
            V1.get_variable(name, shape, dtype, V1.zeros_initializer(), trainable=dtype == tf.float32)
        return x

    layer = VariableScopeLayer(code, name=layer_name)
    layer.build((None, 3))
    return layer


def value(layer, name):
    return layer.variables_by_name[name].numpy()


def check_values(layer, expected):
    for name, variable in layer.variables_by_name.items():
        np.testing.assert_array_equal(variable.numpy(), expected[name], err_msg=name)


@contextmanager
def refused(kind, message, model=None):
    """The whole message, and nothing changed."""
    before = [] if model is None else [one.numpy() for one in model.variables]
    with pytest.raises(kind, match=f"^{re.escape(message)}$") as caught:
        yield caught
    for old, new in zip(before, model.variables if model is not None else [], strict=True):
        np.testing.assert_array_equal(old, new.numpy())


def unfit(path, details, remedy="Map the names with name_map, or leave variables out with exclude."):
    return f"The checkpoint '{path}' does not fit, and nothing was changed. {remedy}\n{details}"


# Where it is.


@pytest.mark.parametrize("fmt", [1, 2])
def test_trained_in_a_session_and_loaded(tmp_path, fmt):
    expected, stored = write(tmp_path / "model", both(network), train=sgd_step, fmt=fmt)
    layer = VariableScopeLayer(network)
    layer.build((None, 3))
    report = load_checkpoint(tmp_path / "model", layer)
    assert report.loaded == {name: name for name in stored}
    assert (report.missing, report.wrong, report.unused) == ({}, {}, [])
    assert str(report) == f"{len(stored)} variables loaded."
    check_values(layer, stored)
    np.testing.assert_allclose(layer(X), expected, **TOLERANCE)


@pytest.mark.parametrize("fmt", [1, 2])
def test_every_way_to_say_where_it_is(tmp_path, fmt):
    def build(x):
        return [x * V1.get_variable("a", [3])] * 2

    folder = tmp_path / "run"
    folder.mkdir()
    if fmt == 2:
        (folder / "model-7").mkdir()  # a folder of that name does not matter
    _, stored = write(folder / "model-7", build, fmt=fmt)
    names = ["model-7", "model-7.meta", "", "."]
    names += ["model-7.index", "model-7.data-00000-of-00001"] if fmt == 2 else []
    for path in [folder / name for name in names]:
        for one in (path, str(path), bytes(path)):
            layer = weights("a", shape=(3,))
            load_checkpoint(one, layer)
            check_values(layer, stored)
    layer = weights("a", shape=(3,))
    load_checkpoint(f"{folder}/", layer)
    check_values(layer, stored)


def test_a_prefix_whose_base_name_is_empty(tmp_path):
    (tmp_path / "run").mkdir()
    values(f"{tmp_path}/run/", a=np.float32([1, 2]))
    assert (tmp_path / "run" / ".index").exists()
    for path in (
        f"{tmp_path}/run/",
        tmp_path / "run",
        f"{tmp_path}/run/.index",
        tmp_path / "run/.index",
    ):
        layer = weights("a")
        load_checkpoint(path, layer)
        np.testing.assert_array_equal(value(layer, "a"), [1, 2])
    (tmp_path / "run" / "checkpoint").unlink()
    load_checkpoint(tmp_path / "run", weights("a"))
    values(tmp_path / "run" / "later", a=np.float32([3, 4]))
    for path, expected in ((tmp_path / "run", [3, 4]), (f"{tmp_path}/run/", [1, 2])):
        layer = weights("a")
        load_checkpoint(path, layer)
        np.testing.assert_array_equal(value(layer, "a"), expected)


def test_no_checkpoint_there(tmp_path):
    message = (
        "No TF1 checkpoint at {!r}. Pass the prefix of its files, for model.ckpt-7.index "
        "'model.ckpt-7', or a folder whose file 'checkpoint' names it."
    )
    layer = weights("a")
    (tmp_path / "empty").mkdir()
    with refused(FileNotFoundError, message.format(str(tmp_path / "none")), layer):
        load_checkpoint(tmp_path / "none", layer)
    with refused(FileNotFoundError, message.format(str(tmp_path / "empty")), layer):
        load_checkpoint(tmp_path / "empty", layer)


def test_damaged_files(tmp_path):
    layer = weights("a", "b")
    for fmt in (1, 2):
        write(
            tmp_path / f"f{fmt}",
            lambda x: [x * tf.reduce_sum(V1.get_variable(n, [2])) for n in "ab"],
            fmt=fmt,
        )
    data, index = (tmp_path / f"f2.{one}" for one in ("data-00000-of-00001", "index"))
    whole = {one: one.read_bytes() for one in (data, index, tmp_path / "f1")}
    flipped = whole[data][:-1] + bytes([whole[data][-1] ^ 255])  # of b, so that a can be read
    cases = [
        (data, whole[data][:-1], "Read less bytes than requested"),
        (data, flipped, "Checksum does not match"),
        (data, None, "No such file or directory"),
        (index, whole[index][:50], "not an sstable"),
        (tmp_path / "f1", whole[tmp_path / "f1"][:50], "Unable to open table file"),
        (tmp_path / "f1", b"hello", "file is too short to be an sstable"),
    ]
    before = layer.get_weights()
    for file, content, why in cases:
        file.unlink()
        if content is not None:
            file.write_bytes(content)
        prefix = tmp_path / file.name.split(".")[0]
        start = f"The checkpoint '{prefix}' cannot be read, and nothing was changed: "
        end = ". It is damaged, incomplete or something else: copy all of its files again."
        pattern = f"^{re.escape(start)}.*{why}.*{re.escape(end)}$"
        with pytest.raises(OSError, match=pattern) as caught:
            load_checkpoint(prefix, layer)
        assert "function_node" not in str(caught.value)
        np.testing.assert_array_equal(layer.get_weights(), before)
        file.write_bytes(whole[file])
    load_checkpoint(tmp_path / "f1", layer)
    load_checkpoint(tmp_path / "f2", layer)


def test_wrong_arguments(tmp_path):
    layer, path = weights("a"), values(tmp_path / "model", a=np.float32([1, 2]))
    with refused(TypeError, "load_checkpoint needs a Keras layer or model, received [1]."):
        load_checkpoint(path, [1])
    with refused(TypeError, "path must be a string or a pathlib.Path, received None."):
        load_checkpoint(None, layer)
    with refused(TypeError, "name_map must be a mapping of names or a function, received 'a'.", layer):
        load_checkpoint(path, layer, "a")
    message = (
        "name_map gave None for 'a'. It must give a name to look for: that one itself, if it is the "
        "same. What is to stay as it is belongs into exclude."
    )
    for name_map in ({}.get, {"a": None}):
        with refused(TypeError, message, layer):
            load_checkpoint(path, layer, name_map)
    message = "exclude has 'A', 'b', which is no variable or scope of the model. It has a."
    with refused(ValueError, message, layer):
        load_checkpoint(path, layer, exclude=["A", "a", "b/"])
    with refused(ValueError, message.replace("'A', ", ""), layer):
        load_checkpoint(path, layer, exclude="b")
    message = (
        "{!r} {}, so there is nothing to load into. Call it on data once, or its build((None, …)), "
        "before load_checkpoint."
    )
    with refused(ValueError, message.format("lazy", "is not built")):
        load_checkpoint(path, keras.Sequential([keras.layers.Dense(2)], name="lazy"))
    with refused(ValueError, message.format("empty", "has no weights")):
        load_checkpoint(path, keras.Sequential([keras.Input([2]), keras.layers.ReLU()], name="empty"))
    message = (
        "load_checkpoint was called while a graph is being built, where nothing can be assigned. "
        "Call it outside of tf.function and `with graph.as_default()`."
    )
    with tf.Graph().as_default(), pytest.raises(RuntimeError, match=f"^{re.escape(message)}$"):
        load_checkpoint(path, layer)
    assert not value(layer, "a").any()


# Under which names.


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
        for name in ["dense/kernel", "dense/bias", *(f"batch_normalization/{one}" for one in STATE)]
    }
    trained = ["dense/kernel", "dense/bias", "batch_normalization/beta", "batch_normalization/gamma"]
    slots = [f"{one}/{slot}" for one in trained for slot in ("Adam", "Adam_1", "Momentum")]
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
    np.testing.assert_array_equal([one.numpy().mean() for one in model.weights], [5, 1, 2, 3, 4])
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
    names = [f"net/BatchNorm/moving_mean/{one}" for one in ("biased", "local_step")]
    doubled = {
        (f"net/BatchNorm/{name}" if name in names else name).replace("/", "__"): array
        for name, array in stored.items()
    }
    values(tmp_path / "last", **doubled)
    for path, outer in (("model", ""), ("last", "net/BatchNorm/")):
        layer = VariableScopeLayer(code)
        layer.build((None, 3))
        report = load_checkpoint(tmp_path / path, layer)
        assert {name: report.loaded[name] for name in names} == {name: outer + name for name in names}
        check_values(layer, stored)
        np.testing.assert_allclose(layer(X), expected, **TOLERANCE)
        without = VariableScopeLayer(plain)
        without.build((None, 3))
        report = load_checkpoint(tmp_path / path, without)
        assert report.unused == sorted(outer + name for name in names)
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
    layer = weights(*(f"net/conv1/BatchNorm/{one}" for one in STATE))
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
    for number, one in enumerate(STATE):
        np.testing.assert_array_equal(value(layer, f"net/conv1/BatchNorm/{one}"), [number, number + 9])


def test_outermost_scopes_come_and_go(tmp_path):
    path = values(tmp_path / "model", tower__a=np.float32([1, 2]), b=np.float32([3, 4]))
    layer = weights("a")
    load_checkpoint(path, layer, {"": "tower"})
    np.testing.assert_array_equal(value(layer, "a"), [1, 2])
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
    names = ("a/part_0", "a/part_1", "a/part_x", "b/part_7", "part_0", "part_1/c")
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
        unused = ", ".join(one for one in "abc" if one != name)
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
        f"The batch norms {scopes} were trained, but their moving statistics are still 0 and 1: the "
        "operations in UPDATE_OPS were not run, and at inference nothing is normalised. Run them with "
        "the training step, or call tfbn.recalibrate(model, data)."
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
    assert [one.filename for one in caught] == [__file__]
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
        warn_if_never_updated({f"bn/{name}": array for name, array in arrays.items()})
        warn_if_never_updated(arrays)
    trained = {"moving_mean": zeros, "moving_variance": ones, "gamma": other}
    with pytest.warns(UserWarning, match=f"^{re.escape(never('moving_mean'))}$"):
        warn_if_never_updated(trained)
    many = {f"bn{n}/{name}": array for n in range(12) for name, array in trained.items()}
    shown = ", ".join(f"bn{n}" for n in range(10))
    with pytest.warns(UserWarning, match=f"^{re.escape(never(shown + ' and 2 more'))}$"):
        warn_if_never_updated(many)


# A whole network.


def test_a_whole_resnet(tmp_path):
    digits, labels = load_digits(return_X_y=True)
    images = np.repeat(digits[:4].reshape(-1, 8, 8, 1) / 16, 3, -1).astype("float32")
    images = tf.image.resize(images, [32, 32]).numpy()
    with compat.slim():

        def resnet(x, is_training):
            with slim.arg_scope(resnet_utils.resnet_arg_scope(batch_norm_decay=0.9)):
                return resnet_v1.resnet_v1_50(x, 10, is_training=is_training)[0][:, 0, 0]

        with tf.Graph().as_default():
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
    trainable = [name for name, one in layer.variables_by_name.items() if one.trainable]
    assert report.unused == sorted(f"{name}/Momentum" for name in trainable)
    scale = np.abs(expected).max()
    np.testing.assert_allclose(outputs / scale, expected / scale, atol=1e-5, rtol=0)
