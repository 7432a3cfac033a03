"""tfbn.fold on the networks of keras.applications: how many batch norms go, and the same predictions."""

import keras
import numpy as np
import pytest

import tfbn
from networks import FLOAT32, relative_difference
from tfbn.batch_norms import batch_norms

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


def randomized(model):
    """Random weights that let the images through, whatever the depth, and uneven batch norms.

    Kernels of variance 1 / inputs; gammas of either sign; a channel in eight
    with a variance of 1e-9, and the gamma that makes its scale as large as the others'.
    """
    rng = np.random.default_rng(0)
    for layer in model.layers:
        for weight in layer.trainable_variables:
            alone = isinstance(layer, keras.layers.DepthwiseConv2D) or "depthwise" in weight.name
            inputs = np.prod(weight.shape[:2] if alone else weight.shape[:-1])
            weight.assign(
                rng.normal(0, np.sqrt(1 / inputs) if "kernel" in weight.name else 0.1, weight.shape)
            )
    for layer in batch_norms(model).values():
        shape = layer.moving_mean.shape
        variance = np.where(np.arange(shape[0]) % 8, rng.uniform(0.5, 2, shape), 1e-9)
        layer.moving_mean.assign(rng.normal(0, 0.3, shape))
        layer.moving_variance.assign(variance)
        if layer.gamma is not None:
            scale = rng.uniform(0.5, 1.5, shape) * rng.choice([-1, 1], shape)
            layer.gamma.assign(scale * np.sqrt(variance + layer.epsilon))
        else:
            layer.moving_variance.assign(np.maximum(variance, 0.5))
    return model


CASES = [
    pytest.param(name, policy, marks=pytest.mark.once if policy == "float64" else [])
    for name in NETWORKS
    for policy in TOLERANCES
]


@pytest.mark.parametrize(("name", "policy"), CASES)
def test_networks_fold(name, policy, unchanged):
    folds, of, size = NETWORKS[name]
    keras.config.set_dtype_policy(policy)
    arguments = {"weights": None, "input_shape": (size, size, 3), "classes": 10}
    # Logits: probabilities of random networks are often 0 and 1, whatever the layers compute.
    model = randomized(getattr(keras.applications, name)(**arguments, classifier_activation=None))
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
