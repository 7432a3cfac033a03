"""`tfbn export` of what is no Keras model."""

import click.testing
import numpy as np
import pytest
import tensorflow as tf

import tfbn
from tfbn.cli import main


class Convolution(tf.Module):
    def __init__(self):
        super().__init__()
        rng = np.random.default_rng(0)
        self.kernel = tf.Variable(rng.normal(size=(3, 3, 3, 4)), dtype=tf.float32)
        self.statistics = tf.Variable(rng.uniform(0.5, 2, (4, 4)), dtype=tf.float32)

    @tf.function(input_signature=[tf.TensorSpec((None, 8, 8, 3), name="image")])
    def __call__(self, image):
        y = tf.nn.conv2d(image, self.kernel, 1, "SAME")
        return {"found": tf.nn.batch_normalization(y, *tf.unstack(self.statistics), 1e-3)}


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    path, module = tmp_path_factory.mktemp("saved") / "model", Convolution()
    both = {"serving_default": module.__call__, "again": module.__call__}
    tf.saved_model.save(module, str(path), signatures=both)
    return path


def invoke(*arguments):
    return click.testing.CliRunner().invoke(main, ["export", *map(str, arguments)])


def test_a_saved_model_is_folded_and_keeps_its_signatures(saved, tmp_path):
    done = invoke(saved, tmp_path / "new")
    assert done.exit_code == 0, done.output
    assert "1 of 1 batch norms folded" in done.output
    assert "input 'image'" in done.output
    old, new = (tf.saved_model.load(str(path)).signatures for path in (saved, tmp_path / "new"))
    assert set(new) == {"serving_default", "again"}
    x = tf.constant(np.random.default_rng(1).normal(size=(2, 8, 8, 3)), tf.float32)
    for name in new:
        np.testing.assert_allclose(new[name](image=x)["found"], old[name](image=x)["found"], atol=1e-5)
        assert "Mul" not in {operation.type for operation in new[name].graph.get_operations()}


def test_one_signature(saved, tmp_path):
    assert invoke(saved, tmp_path / "new", "--signature", "again").exit_code == 0
    assert set(tf.saved_model.load(str(tmp_path / "new")).signatures) == {"again"}
    done = invoke(saved, tmp_path / "other", "--signature", "missing")
    assert done.exit_code == 1
    assert "has no signature 'missing'; it has " in done.output
    assert not (tmp_path / "other").exists()


def test_a_frozen_graph(tmp_path):
    module = Convolution()
    graph = tfbn.runtime.freeze(module.__call__.get_concrete_function()).graph
    (tmp_path / "frozen.pb").write_bytes(graph.as_graph_def().SerializeToString())
    done = invoke(tmp_path / "frozen.pb", tmp_path / "new.tflite", "--inputs", "image:0")
    assert done.exit_code == 0, done.output
    assert "1 of 1 batch norms folded" in done.output
    assert (tmp_path / "new.tflite").is_file()
    done = invoke(tmp_path / "frozen.pb", tmp_path / "new", "--outputs", "nothing")
    assert done.exit_code == 1
    assert "has no tensor 'nothing'" in done.output


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--data-format", "channels_last"), "--data-format is for Keras models. Leave it out."),
        (("--input-name", "x"), "is for Keras models. Leave it out."),
        (("--inputs", "x"), "name tensors of a frozen graph"),
    ],
)
def test_options_of_other_sources(saved, tmp_path, arguments, message):
    done = invoke(saved, tmp_path / "new", *arguments)
    assert done.exit_code == 1
    assert message in done.output
    assert not (tmp_path / "new").exists()


def test_a_damaged_file(tmp_path):
    (tmp_path / "frozen.pb").write_bytes(b"not a graph")
    done = invoke(tmp_path / "frozen.pb", tmp_path / "new")
    assert done.exit_code == 1
    assert "cannot be read as a frozen graph" in done.output
