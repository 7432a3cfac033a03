"""Networks as Keras exports them, folded in their graphs: no fewer batch norms go than of the Keras model."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import tfbn
from networks import FLOAT32, let_through, relative_difference

# The smallest images that they take, and whether they are tested in each run.
NETWORKS = {
    "MobileNet": (32, True),
    "MobileNetV2": (32, True),
    "MobileNetV3Small": (32, True),
    "MobileNetV3Large": (32, False),
    "ResNet50": (32, True),
    "ResNet50V2": (32, False),
    "DenseNet121": (32, False),
    "InceptionV3": (75, False),
    "InceptionResNetV2": (75, False),
    "Xception": (71, False),
    "NASNetMobile": (32, False),
    "EfficientNetB0": (32, True),
    "EfficientNetV2B0": (32, False),
}
CASES = [
    pytest.param(name, marks=[] if often else pytest.mark.once) for name, (_, often) in NETWORKS.items()
]


@pytest.mark.parametrize("name", CASES)
def test_networks_that_keras_exported(name, tmp_path):
    size, _ = NETWORKS[name]
    arguments = {"weights": None, "input_shape": (size, size, 3), "classes": 10}
    model = let_through(getattr(keras.applications, name)(**arguments, classifier_activation=None))
    _, in_keras = tfbn.fold(model)
    model.export(str(tmp_path / "given"), verbose=False)
    x = np.random.default_rng(1).normal(size=(4, size, size, 3)).astype("float32")
    x *= 255 if any(isinstance(layer, keras.layers.Rescaling) for layer in model.layers) else 1
    report = tfbn.export(tmp_path / "given", tmp_path / "out", samples=x)
    assert len(report.fold.folded) >= len(in_keras.folded), str(report.fold)
    assert report.relative_difference < FLOAT32
    served = tf.saved_model.load(str(tmp_path / "out")).signatures["serving_default"]
    (got,) = served(tf.constant(x)).values()
    assert relative_difference(got, model(x)) < FLOAT32
