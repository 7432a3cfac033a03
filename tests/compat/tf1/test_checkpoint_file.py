"""Where load_checkpoint finds a TF1 checkpoint, and what it says where there is none."""

import re

import keras
import numpy as np
import pytest
import tensorflow as tf

from tf1_checkpoints import (
    TOLERANCE,
    V1,
    X,
    both,
    check_values,
    network,
    refused,
    sgd_step,
    value,
    values,
    weights,
    write,
)
from tfbn.compat import VariableScopeLayer, load_checkpoint

pytestmark = pytest.mark.filterwarnings("ignore:`layer.apply` is deprecated")


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
        for given in (path, str(path), bytes(path)):
            layer = weights("a", shape=(3,))
            load_checkpoint(given, layer)
            check_values(layer, stored)
    layer = weights("a", shape=(3,))
    load_checkpoint(f"{folder}/", layer)
    check_values(layer, stored)


@pytest.mark.parametrize("fmt", [1, 2])
def test_shards_of_partitioned_variables(tmp_path, fmt):
    def code(x):
        with V1.variable_scope("p", partitioner=V1.fixed_size_partitioner(2)):
            return x @ tf.convert_to_tensor(V1.get_variable("w", [3, 3]))

    with tf.Graph().as_default():
        V1.set_random_seed(0)
        outputs = code(tf.constant(X))
        averages = V1.train.ExponentialMovingAverage(0.5).apply(V1.trainable_variables())
        with V1.Session() as session:
            session.run(V1.global_variables_initializer())
            expected = session.run(outputs)
            session.run(averages)
            V1.train.Saver(sharded=True, write_version=fmt).save(session, str(tmp_path / "model"))
    for path in (tmp_path, tmp_path / "model"):
        layer = VariableScopeLayer(code)
        layer.build((None, 3))
        assert load_checkpoint(path, layer).unused == ["p/w/ExponentialMovingAverage"]
        np.testing.assert_allclose(layer(X), expected, **TOLERANCE)
        assert load_checkpoint(path, layer, moving_averages=True).unused == ["p/w"]
        np.testing.assert_allclose(layer(X), expected, **TOLERANCE)  # the shadows began there


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
    data, index = (tmp_path / f"f2.{suffix}" for suffix in ("data-00000-of-00001", "index"))
    whole = {file: file.read_bytes() for file in (data, index, tmp_path / "f1")}
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
