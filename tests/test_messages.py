"""Other libraries' errors, as ours quote them."""

import keras
import pytest
import tensorflow as tf
import tf_keras

import tfbn
from tfbn.messages import one_line


def test_the_error_of_a_layer_loses_its_decoration():
    class Broken(keras.layers.Layer):
        def call(self, x):
            raise ValueError("two\nlines")

    with pytest.raises(ValueError, match="Arguments received by") as caught:
        Broken()(tf.ones((1, 2)))
    assert one_line(caught.value) == "Exception encountered when calling Broken.call(). two lines"


def test_the_error_of_a_kernel_loses_its_name():
    with pytest.raises(tf.errors.InvalidArgumentError, match="function_node") as caught:
        tf.linalg.matmul(tf.ones((2, 3)), tf.ones((2, 3)))
    assert one_line(caught.value).startswith("Matrix size-incompatible: In[0]: [2,3], In[1]: [2,3]")
    assert "Op:" not in one_line(caught.value)


def test_an_error_without_a_message_is_named():
    assert one_line(MemoryError()) == "MemoryError"


def test_a_long_quotation_is_cut():
    assert len(one_line(ValueError("word " * 100))) < 250
    assert one_line(ValueError("word " * 100)).endswith("word …")


def old_model():
    return tf_keras.Sequential([tf_keras.Input((3,)), tf_keras.layers.Dense(2)])


def saved(tmp_path):
    tf.saved_model.save(tf.Module(), str(tmp_path / "m"))
    return tmp_path / "m"


WRONG = {
    "tf_keras": (
        lambda _: old_model(),
        r"of tf_keras, which is Keras 2\. Save it, .* tfbn\.compat\.load_model\('old\.keras'\)",
    ),
    "SavedModel": (saved, r"this is a SavedModel, .*TFSMLayer\(path, call_endpoint='serving_default'\)"),
    "loaded": (
        lambda path: tf.saved_model.load(str(saved(path))),
        "a loaded SavedModel, which has functions and no layers",
    ),
    "graph": (lambda _: "frozen.pb", r"this is a graph of TensorFlow, .*tfbn\.export\("),
    "checkpoint": (lambda _: "model.ckpt.index", r"a TensorFlow checkpoint, .*compat\.load_checkpoint"),
    "file": (lambda _: __file__, r"received str: '.*\.py'\. Load it first, with keras\.models\.load"),
    "nothing": (lambda path: path / "m.h5", r"m\.h5', where there is nothing\. Check the path"),
    "number": (lambda _: 3, r"received int: 3\. Pass a model; one in a file is loaded with"),
}


@pytest.mark.parametrize("name", WRONG)
@pytest.mark.parametrize(
    "function",
    [
        tfbn.fold,
        tfbn.convert,
        lambda given: tfbn.export(given, "never"),
        lambda given: tfbn.recalibrate(given, 0),
        tfbn.batch_norms,
    ],
    ids=["fold", "convert", "export", "recalibrate", "batch_norms"],
)
def test_what_is_no_model_of_keras_3(function, name, tmp_path, request):
    make, message = WRONG[name]
    kind = TypeError
    if "export-SavedModel" in request.node.name:  # which it takes, if it serves something
        kind, message = ValueError, "has no signatures, so nothing says what it serves"
    with pytest.raises(kind, match=message):
        function(make(tmp_path))
