"""Networks folded in their graphs: no fewer batch norms go than of the Keras model."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import tfbn
from frozen_graphs import frozen, run
from networks import FLOAT32, let_through, relative_difference
from sweeps import some
from tfbn.folding.graphdef import fold_graph

# The smallest images that they take.
NETWORKS = {
    "MobileNet": 32,
    "MobileNetV2": 32,
    "MobileNetV3Small": 32,
    "MobileNetV3Large": 32,
    "ResNet50": 32,
    "ResNet50V2": 32,
    "DenseNet121": 32,
    "InceptionV3": 75,
    "InceptionResNetV2": 75,
    "Xception": 71,
    "NASNetMobile": 32,
    "EfficientNetB0": 32,
    "EfficientNetV2B0": 32,
}


def network(name):
    """With random weights and batch norms, and images for it."""
    size = NETWORKS[name]
    arguments = {"weights": None, "input_shape": (size, size, 3), "classes": 10}
    model = let_through(getattr(keras.applications, name)(**arguments, classifier_activation=None))
    x = np.random.default_rng(1).normal(size=(4, size, size, 3)).astype("float32")
    pixels = any(isinstance(layer, keras.layers.Rescaling) for layer in model.layers)
    return model, x * 255 if pixels else x


@pytest.mark.parametrize("name", some(NETWORKS, ["EfficientNetB0"]))
def test_no_fewer_batch_norms_go_than_of_the_keras_model(name):
    model, x = network(name)
    _, in_keras = tfbn.fold(model)
    graph = frozen(lambda x: model(x, training=False), tf.TensorSpec((None, *x.shape[1:]), "float32"))
    new, in_graph = fold_graph(*graph)
    assert len(in_graph.folded) >= len(in_keras.folded) > 0, str(in_graph)
    assert len(in_graph.kept) <= max(1, len(in_keras.kept)), str(in_graph)  # one normalises the input
    wanted, got = (run(definition, *graph[1:], [x]) for definition in (graph[0], new))
    assert relative_difference(got, wanted) < FLOAT32


@pytest.mark.parametrize("name", some(["MobileNet", "EfficientNetB0"], ["MobileNet"]))
def test_networks_that_keras_exported(name, tmp_path):
    model, x = network(name)
    _, in_keras = tfbn.fold(model)
    model.export(str(tmp_path / "given"), verbose=False)
    report = tfbn.export(tmp_path / "given", tmp_path / "out", samples=x)
    assert len(report.fold.folded) >= len(in_keras.folded), str(report.fold)
    assert report.relative_difference < FLOAT32
    served = tf.saved_model.load(str(tmp_path / "out")).signatures["serving_default"]
    (got,) = served(tf.constant(x)).values()
    assert relative_difference(got, model(x)) < FLOAT32
