"""tfbn.fold on the networks of keras.applications: how many batch norms go, and the same predictions."""

import keras
import numpy as np
import pytest

import tfbn
from networks import FLOAT32, let_through, relative_difference
from sweeps import some
from tfbn.batch_norms import batch_norms

pytestmark = pytest.mark.both

# (at least so many, of so many, the smallest images that the network takes)
NETWORKS = {
    "MobileNet": (27, 27, 32),
    "MobileNetV2": (52, 52, 32),
    "MobileNetV3Small": (34, 34, 32),
    "MobileNetV3Large": (46, 46, 32),
    "ResNet50": (53, 53, 32),
    # The rest stand before a ReLU, behind sums and concatenations that other layers read too.
    "ResNet50V2": (32, 49, 32),
    "DenseNet121": (59, 121, 32),
    "InceptionV3": (94, 94, 75),
    "InceptionResNetV2": (204, 204, 75),
    "Xception": (40, 40, 71),
    "NASNetMobile": (192, 192, 32),
    "EfficientNetB0": (49, 49, 32),
    "EfficientNetV2B0": (59, 59, 32),
}
# float32's is the contract; in float64 a network's rounding is 1e-15 times what it is amplified by.
TOLERANCES = {"float32": FLOAT32, "float64": 1e-11}


FEW = ["MobileNetV2", "MobileNetV3Small", "ResNet50V2", "Xception"]


@pytest.mark.parametrize("policy", some(TOLERANCES, ["float32"]))
@pytest.mark.parametrize("name", some(NETWORKS, FEW))
def test_networks_fold(name, policy, unchanged):
    folds, of, size = NETWORKS[name]
    keras.config.set_dtype_policy(policy)
    arguments = {"weights": None, "input_shape": (size, size, 3), "classes": 10}
    # Logits: probabilities of random networks are often 0 and 1, whatever the layers compute.
    model = let_through(getattr(keras.applications, name)(**arguments, classifier_activation=None))
    with unchanged(model):
        folded, report = tfbn.fold(model)
    assert (len(report.folded) >= folds, len(report.entries)) == (True, of), str(report)
    assert len(batch_norms(folded)) == len(report.kept)
    pixels = any(isinstance(layer, keras.layers.Rescaling) for layer in model.layers)
    x = np.random.default_rng(1).normal(size=(4, size, size, 3)) * (255 if pixels else 1)
    want = model(x)
    assert relative_difference(folded(x), want) < TOLERANCES[policy]
    change = np.std(want, axis=0).max() / np.abs(want).max()
    assert policy == "float32" or change > 1e3 * TOLERANCES[policy]  # the images do reach the outputs
