"""tfbn.export of frozen graphs: which tensors they take and give, told or guessed."""

import pytest
import tensorflow as tf

import reference
import tfbn
from exports import operations
from frozen_graphs import BATCH_NORMS, Parts, frozen
from networks import relative_difference

C = 4
IMAGE = (6, 5, C)


def function(x):
    """A convolution, a batch norm and a Relu."""
    parts = Parts("float32")
    return tf.reduce_mean(tf.nn.relu(parts.fused(parts.linear(x, 6))), (1, 2))


@pytest.fixture
def graph_file(tmp_path):
    """A frozen graph of one placeholder `x` and one output, and what it computes."""
    definition, _, outputs = frozen(function, tf.TensorSpec((None, *IMAGE), name="x"))
    path = tmp_path / "frozen.pb"
    path.write_bytes(definition.SerializeToString())
    return path, outputs[0].split(":")[0]


@pytest.mark.parametrize(
    "told", [{}, {"inputs": ["x:0"]}, {"outputs": ["Mean"]}, {"inputs": ["x"], "outputs": ["Mean:0"]}]
)
def test_a_frozen_graph(told, graph_file, tmp_path, serve):
    path, output = graph_file
    x = reference.data((3, *IMAGE))
    report = tfbn.export(path, tmp_path / "out", **told)
    name = "Mean" if "outputs" in told else output
    assert [len(report.fold.folded), len(report.fold.kept)] == [1, 0]
    assert report.outputs == {name: ((None, 6), "float32")}
    assert not BATCH_NORMS & set(operations(tmp_path / "out"))
    assert relative_difference(serve(tmp_path / "out", x=x)[name], function(tf.constant(x))) < 1e-5


@pytest.mark.parametrize(
    ("told", "message"),
    [
        ({"inputs": ["y"]}, "has no tensor 'y'"),
        ({"outputs": ["Mean:7"]}, "has no tensor 'Mean:7'"),
        ({"inputs": ["^x"]}, "has no tensor"),
        ({"inputs": ["Relu:0"], "outputs": ["x"]}, "depends|placeholder|x"),
    ],
)
def test_wrong_names_of_tensors(told, message, graph_file, tmp_path):
    with pytest.raises(ValueError, match=message):
        tfbn.export(graph_file[0], tmp_path / "out", **told)
    assert not (tmp_path / "out").exists()


def test_tensors_inside_a_graph_can_be_fed_and_fetched(graph_file, tmp_path, serve):
    tfbn.export(graph_file[0], tmp_path / "out", inputs=["Conv2D"], outputs=["Relu"])
    x = abs(reference.data((2, 6, 5, 6)))
    (got,) = dict(serve(tmp_path / "out", Conv2D=x)).values()
    assert got.shape == x.shape
    assert got.min() == 0 < got.max()


def test_a_graph_whose_outputs_are_not_clear(tmp_path):
    definition, _, _ = frozen(lambda x: (tf.tanh(x), tf.nn.relu(x)), tf.TensorSpec((None, 3), name="x"))
    (tmp_path / "two.pb").write_bytes(definition.SerializeToString())
    with pytest.raises(ValueError, match=r"is not clear: nothing reads .*Identity.*Name them: outputs="):
        tfbn.export(tmp_path / "two.pb", tmp_path / "out")
    tfbn.export(tmp_path / "two.pb", tmp_path / "out", outputs=["Tanh", "Relu"])
    assert tf.saved_model.load(str(tmp_path / "out")).signatures[
        "serving_default"
    ].structured_outputs.keys() == {"Tanh", "Relu"}


def test_a_graph_without_placeholders_or_with_variables(tmp_path):
    with tf.Graph().as_default() as graph:
        tf.tanh(tf.constant([1.0]))
    (tmp_path / "none.pb").write_bytes(graph.as_graph_def().SerializeToString())
    with pytest.raises(ValueError, match="no placeholder to feed. Name its inputs"):
        tfbn.export(tmp_path / "none.pb", tmp_path / "out")
    with tf.Graph().as_default() as graph:
        x = tf.compat.v1.placeholder("float32", (None, 3))
        tf.identity(x @ tf.compat.v1.get_variable("kernel", (3, 3)))
    (tmp_path / "variables.pb").write_bytes(graph.as_graph_def().SerializeToString())
    with pytest.raises(ValueError, match="is not frozen"):
        tfbn.export(tmp_path / "variables.pb", tmp_path / "out")


@pytest.mark.parametrize("suffix", [".tflite", ".onnx"])
def test_other_formats_of_a_frozen_graph(suffix, graph_file, tmp_path):
    report = tfbn.export(graph_file[0], (tmp_path / "model").with_suffix(suffix))
    assert report.relative_difference < 1e-5
    assert len(report.fold.folded) == 1
