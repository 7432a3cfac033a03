"""tfbn.export of SavedModels and frozen graphs of TensorFlow 1."""

import warnings

import numpy as np
import pytest
import tensorflow as tf
import tf_slim as slim
from tensorflow.core.protobuf import saved_model_pb2

import reference
import tfbn
from exports import operations
from frozen_graphs import BATCH_NORMS, check_graph, kinds
from networks import relative_difference
from tfbn import compat

v1 = tf.compat.v1
X = reference.data((3, 8, 8, 3))


def normal(x, is_training, name):
    """A batch norm of TensorFlow 1 with statistics of its own."""
    with v1.variable_scope(name):
        shapes = {"gamma": 1.7, "beta": 1.2, "mean": 1.3, "variance": 2.6}
        draw = v1.random_uniform_initializer
        gamma, beta, mean, variance = (
            v1.get_variable(key, x.shape[-1:], initializer=draw(0.5, largest, seed=3))
            for key, largest in shapes.items()
        )
        if is_training is None:
            made, *_ = v1.nn.fused_batch_norm(x, gamma, beta, mean, variance, 1e-3, is_training=False)
            return made
        moments = tf.nn.moments(x, (0, 1, 2))
        chosen = tf.cond(is_training, lambda: moments, lambda: (mean.value(), variance.value()))
        return tf.nn.batch_normalization(x, *chosen, beta, gamma, 1e-3)


def convolved(x, channels, name):
    with v1.variable_scope(name):
        kernel = v1.get_variable(
            "kernel", (3, 3, x.shape[-1], channels), initializer=v1.random_normal_initializer(seed=5)
        )
    return tf.nn.conv2d(x, kernel, 1, "SAME")


@pytest.fixture(params=["resource", "reference"])
def variables(request):
    """The kind of variables: those of TensorFlow 2, or as TensorFlow 1 made them."""
    if request.param == "reference":
        v1.disable_resource_variables()
    yield request.param
    v1.enable_resource_variables()


@pytest.fixture
def classifier(tmp_path, variables):
    """A SavedModel with a vocabulary in a file, two signatures and two graphs, and what it answers."""
    (tmp_path / "labels.txt").write_text("cat\ndog\nbird\nfish\n")
    given = tmp_path / "given"
    builder = v1.saved_model.Builder(str(given))
    with tf.Graph().as_default(), v1.Session() as session:
        images = v1.placeholder("float32", (None, 8, 8, 3), "Images")
        x = tf.nn.relu(normal(convolved(images, 6, "first"), None, "norm"))
        pooled = tf.reduce_mean(normal(convolved(x, 4, "second"), None, "again"), (1, 2))
        v1.add_to_collection(v1.GraphKeys.ASSET_FILEPATHS, tf.constant(str(tmp_path / "labels.txt")))
        (asset,) = v1.get_collection(v1.GraphKeys.ASSET_FILEPATHS)
        table = v1.lookup.StaticHashTable(
            v1.lookup.TextFileInitializer(
                asset,
                tf.int64,
                tf.lookup.TextFileIndex.LINE_NUMBER,
                tf.string,
                tf.lookup.TextFileIndex.WHOLE_LINE,
            ),
            "?",
        )
        classes = tf.expand_dims(table.lookup(tf.argmax(pooled, -1)), -1)
        session.run([v1.global_variables_initializer(), v1.tables_initializer()])
        info = v1.saved_model.utils.build_tensor_info
        make = v1.saved_model.signature_def_utils.build_signature_def
        signatures = {
            "serving_default": make(
                {"inputs": info(images)},
                {"classes": info(classes), "scores": info(tf.nn.softmax(pooled))},
                "tensorflow/serving/classify",
            ),
            "features": make(
                {"Image/Pixels": info(images)},
                {"Pooled/Mean": info(pooled)},
                "tensorflow/serving/predict",
            ),
        }
        builder.add_meta_graph_and_variables(
            session,
            ["serve"],
            signatures,
            assets_collection=v1.get_collection(v1.GraphKeys.ASSET_FILEPATHS),
            main_op=v1.tables_initializer(),
            strip_default_attrs=True,
        )
        builder.add_meta_graph(["train"], signatures)
        builder.save()
        want = session.run([classes, tf.nn.softmax(pooled), pooled], {images: X})
    return given, want


@pytest.mark.parametrize("freeze", [None, False])
def test_a_saved_model_with_a_table_a_file_and_method_names(classifier, freeze, tmp_path):
    given, (classes, scores, pooled) = classifier
    report = tfbn.export(given, tmp_path / "out", freeze=freeze)
    assert len(report.fold.folded) == 2, str(report.fold)
    (tmp_path / "labels.txt").unlink()
    given.rename(tmp_path / "away")
    read = saved_model_pb2.SavedModel()
    read.ParseFromString((tmp_path / "out/saved_model.pb").read_bytes())
    (graph,) = read.meta_graphs
    assert list(graph.meta_info_def.tags) == ["serve"]
    signatures = graph.signature_def
    assert signatures["serving_default"].method_name == "tensorflow/serving/classify"
    assert signatures["features"].method_name == "tensorflow/serving/predict"
    assert list(signatures["features"].inputs) == ["Image/Pixels"]
    assert list(signatures["features"].outputs) == ["Pooled/Mean"]
    assert not BATCH_NORMS & set(operations(tmp_path / "out"))
    # As TensorFlow Serving runs it: a session, by the signatures' tensors.
    with tf.Graph().as_default(), v1.Session() as session:
        v1.saved_model.load(session, ["serve"], str(tmp_path / "out"))
        first, second = signatures["serving_default"], signatures["features"]
        got = session.run(
            [first.outputs["classes"].name, first.outputs["scores"].name],
            {first.inputs["inputs"].name: X},
        )
        np.testing.assert_array_equal(got[0], classes)
        assert relative_difference(got[1], scores) < 1e-5
        (got,) = session.run(
            [second.outputs["Pooled/Mean"].name], {second.inputs["Image/Pixels"].name: X}
        )
        assert relative_difference(got, pooled) < 1e-5


@pytest.mark.parametrize("control_flow", ["v1", "v2"])
def test_is_training_with_a_default_that_the_signature_does_not_name(
    control_flow, variables, tmp_path, serve
):
    given = str(tmp_path / "given")
    if control_flow == "v1":
        v1.disable_control_flow_v2()
    try:
        want = save_with_placeholder(given)
    finally:
        v1.enable_control_flow_v2()
    report = tfbn.export(given, tmp_path / "out")
    assert len(report.fold.folded) == 1
    assert relative_difference(serve(tmp_path / "out", images=X)["y"], want) < 1e-5


def test_variables_that_are_written_to_are_refused(variables, tmp_path):
    given = str(tmp_path / "given")
    with tf.Graph().as_default(), v1.Session() as session:
        x = v1.placeholder("float32", (None, 2))
        count = v1.get_variable("count", (), initializer=v1.zeros_initializer())
        with tf.control_dependencies([v1.assign_add(count, 1.0)]):
            y = tf.tanh(x) + count
        session.run(v1.global_variables_initializer())
        v1.saved_model.simple_save(session, given, {"x": x}, {"y": y})
    with pytest.raises(ValueError, match="'serving_default' writes to variables when it is called"):
        tfbn.export(given, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_names_that_are_none_for_python(tmp_path):
    """Clients of TensorFlow Serving call inputs and outputs by them."""
    given, names = str(tmp_path / "given"), ("Image/A", "image-b", "B")
    with tf.Graph().as_default(), v1.Session() as session:
        inputs = {name: v1.placeholder("float32", (None, 2)) for name in names}
        weights = dict(zip(names, (1.0, 10.0, 100.0), strict=True))
        total = tf.add_n([weights[name] * tensor for name, tensor in inputs.items()])
        v1.saved_model.simple_save(session, given, inputs, {"all/of them": total})
    tfbn.export(given, tmp_path / "out")
    with tf.Graph().as_default(), v1.Session() as session:
        graph = v1.saved_model.load(session, ["serve"], str(tmp_path / "out"))
        signature = graph.signature_def["serving_default"]
        assert signature.inputs.keys() == set(names)
        fed = {signature.inputs[name].name: [[weights[name]] * 2] for name in names}
        got = session.run(signature.outputs["all/of them"].name, fed)
    np.testing.assert_allclose(got, [[10101.0] * 2])


def test_names_that_tensorflow_2_cannot_write_are_refused(tmp_path):
    given = str(tmp_path / "given")
    with tf.Graph().as_default(), v1.Session() as session:
        x = v1.placeholder("float32", (None, 2))
        v1.saved_model.simple_save(session, given, {"the image": x}, {"y": tf.tanh(x)})
    with pytest.raises(
        ValueError, match="argument names for SavedModel signature .* was named 'the image'"
    ):
        tfbn.export(given, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def save_with_placeholder(given):
    with tf.Graph().as_default(), v1.Session() as session:
        images = v1.placeholder("float32", (None, 8, 8, 3), "images")
        training = v1.placeholder_with_default(False, (), "is_training")
        y = tf.reduce_mean(tf.nn.relu(normal(convolved(images, 6, "c"), training, "n")), (1, 2))
        session.run(v1.global_variables_initializer())
        v1.saved_model.simple_save(session, given, {"images": images}, {"y": y})
        return session.run(y, {images: X})


# Of MobileNetV1: how many channels each pair of convolutions makes, and its stride.
PAIRS = [
    (64, 1),
    (128, 2),
    (128, 1),
    (256, 2),
    (256, 1),
    (512, 2),
    *[(512, 1)] * 5,
    (1024, 2),
    (1024, 1),
]


def mobilenet(images):
    """As slim's research models build it, a quarter as wide, with batch norms as slim calls them."""
    depth = lambda channels: max(channels // 4, 8)  # noqa: E731
    ours = {"normalizer_fn": slim.batch_norm, "activation_fn": tf.nn.relu6}
    with (
        slim.arg_scope([slim.conv2d, slim.separable_conv2d], **ours),
        slim.arg_scope([slim.batch_norm], is_training=False, center=True, scale=True),
    ):
        x = slim.conv2d(images, depth(32), 3, stride=2)
        for channels, stride in PAIRS:
            x = slim.separable_conv2d(x, None, 3, 1, stride=stride)
            x = slim.conv2d(x, depth(channels), 1)
        x = tf.reduce_mean(x, (1, 2), keepdims=True)
        x = slim.conv2d(x, 10, 1, activation_fn=None, normalizer_fn=None)
    return tf.squeeze(x, (1, 2), name="logits")


@pytest.fixture(scope="module")
def frozen_mobilenet():
    """As TensorFlow 1 froze it: a session's variables as constants."""
    with warnings.catch_warnings(), tf.Graph().as_default() as graph, v1.Session() as session:
        warnings.simplefilter("ignore")
        images = v1.placeholder("float32", (None, 64, 64, 3), "input")
        with compat.slim():
            logits = mobilenet(images)
        random = np.random.default_rng(0)
        session.run(v1.global_variables_initializer())
        for variable in v1.global_variables():
            shape = variable.shape.as_list()
            if variable.op.name.endswith(("gamma", "moving_variance")):
                variable.load(random.uniform(0.5, 1.5, shape), session)
            elif len(shape) == 1:
                variable.load(random.normal(0, 0.3, shape), session)
            else:  # a depthwise kernel sums over its window alone
                terms = np.prod(shape[:2] if "depthwise" in variable.op.name else shape[:3])
                variable.load(random.normal(0, np.sqrt(2 / terms), shape), session)
        name = logits.op.name
        return v1.graph_util.convert_variables_to_constants(session, graph.as_graph_def(), [name]), name


def test_a_frozen_slim_mobilenet(frozen_mobilenet, tmp_path, serve):
    definition, name = frozen_mobilenet
    x = reference.data((2, 64, 64, 3))
    new, report = check_graph(definition, ["input:0"], [f"{name}:0"], [x], folded=27)
    assert not report.kept
    assert not BATCH_NORMS & set(kinds(new).values())
    path = tmp_path / "mobilenet.pb"
    path.write_bytes(definition.SerializeToString())
    report = tfbn.export(path, tmp_path / "out")
    assert [len(report.fold.folded), len(report.fold.kept)] == [27, 0]
    assert report.relative_difference < 1e-5
    with tf.Graph().as_default(), v1.Session() as session:
        (logits,) = tf.graph_util.import_graph_def(definition, return_elements=[f"{name}:0"], name="")
        want = session.run(logits, {"input:0": x})
    (got,) = dict(serve(tmp_path / "out", input=x)).values()
    assert relative_difference(got, want) < 1e-5
