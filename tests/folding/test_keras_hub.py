"""KerasHub's backbones: how many of their batch norms fold, convert and are exported.

Custom layers within layers, which call Keras layers and operations, and know nothing of tfbn.
"""

import re
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, NamedTuple

import keras
import keras_hub
import numpy as np
import pytest
import tensorflow as tf

import hub_backbones as hub
import tfbn
from networks import FLOAT32, let_through, outputs, relative_difference
from sweeps import some
from tfbn.batch_norms import batch_norms
from tfbn.export.graphs.graph import frozen
from tfbn.export.graphs.signatures import of_named
from tfbn.in_place import has_our_kernels

# A model of a list of one tensor that KerasHub calls on the tensor; Keras 3.8 says so in each call.
pytestmark = pytest.mark.filterwarnings(r"ignore:(?s).*structure of `inputs` doesn't match")


class Case(NamedTuple):
    """A model, and what may become of its batch norms.

    Attributes:
        build: makes it.
        called: how many it calls.
        unused: how many more its code makes; Keras 3.8 does not show all of them.
        kept: how many of those called mathematics keeps: behind what others read, too, and before a
            ReLU or a convolution that pads with zeros; or what TensorFlow would compute wrongly.
    """

    build: Any
    called: int
    unused: int = 0
    kept: int = 0

    @property
    def allowed(self):
        return self.called - self.kept


# By the folder of KerasHub that they are in, and a variant.
CASES = {
    "resnet": Case(hub.resnet, 15),
    "resnet bottleneck": Case(partial(hub.resnet, "bottleneck_block"), 22),
    "resnet vd": Case(partial(hub.resnet, "basic_block_vd", stem=3), 18),
    "resnet bottleneck vd": Case(partial(hub.resnet, "bottleneck_block_vd", stem=3), 24),
    "resnet v2": Case(partial(hub.resnet, use_pre_activation=True), 13, kept=7),
    "resnet v2 bottleneck": Case(
        partial(hub.resnet, "bottleneck_block", use_pre_activation=True), 19, kept=7
    ),
    "densenet": Case(hub.densenet, 16, kept=9),
    "efficientnet v1": Case(partial(hub.efficientnet, "v1", "v1", "v1"), 16),
    "efficientnet v2": Case(partial(hub.efficientnet, "fused", "unfused", "unfused"), 16),
    "efficientnet edge": Case(partial(hub.efficientnet, "fused", "fused", "v1", activation="relu"), 14),
    "efficientnet lite": Case(
        partial(hub.efficientnet, "cba", "fused", "unfused", activation="relu6"), 13
    ),
    "mobilenet v2": Case(partial(hub.mobilenet, None, "relu6", residual=False), 19),
    "mobilenet v3": Case(hub.mobilenet, 19),
    "mobilenetv5": Case(hub.mobilenet_v5, 26, kept=1),
    "hgnetv2": Case(hub.hgnet, 16),
    "hgnetv2 plain": Case(partial(hub.hgnet, False, (False, False)), 14),
    "xception": Case(hub.xception, 10),
    "cspnet dark": Case(partial(hub.cspnet, "dark", "dark_block"), 14),
    "cspnet": Case(partial(hub.cspnet, "csp", "dark_block", block_ratio=[0.5]), 23),
    "cspnet bottleneck": Case(
        partial(hub.cspnet, "csp", "bottleneck_block", block_ratio=[0.5]), 28, kept=5
    ),
    "cspnet cs3": Case(partial(hub.cspnet, "cs3", "edge_block", block_ratio=[0.5], avg_down=True), 20),
    "deeplab_v3": Case(hub.deeplab, 19),
    "retinanet": Case(hub.retinanet, 17, unused=3, kept=2),
    "retinanet with P5": Case(partial(hub.retinanet, use_p5=True), 17, unused=3, kept=2),
    "basnet": Case(hub.basnet, 53, unused=1),
    "segformer": Case(hub.segformer, 1),
    "d_fine": Case(hub.d_fine, 67),
    "mobilenet classifier": Case(
        lambda: hub.classifier(hub.MODELS.MobileNetImageClassifier, hub.mobilenet()), 19
    ),
    "resnet classifier": Case(
        lambda: hub.classifier(hub.MODELS.ResNetImageClassifier, hub.resnet()), 15
    ),
}

# What the reports say of those that mathematics keeps, and of those that no call reaches.
MATHEMATICS = (
    r"is used by more than this batch norm|a negative scale does not pass|with a slope of 0\.2",
    r"an offset does not pass .*, only a scale does|pads its input with zeros|would scale some inputs",
)
UNUSED = "nothing calls it at inference"


# Of several kinds one; those of more than fifty batch norms take a minute each.
FEW = ["resnet v2", "densenet", "efficientnet v2", "mobilenet v3", "segformer", "mobilenet classifier"]


@pytest.fixture(scope="module", params=some(CASES, FEW))
def name(request):
    return request.param


# A fixture of the module would be kept where a test has names of its own, with the name before.
@lru_cache(maxsize=1)
def built(name):
    """Not changed by any test."""
    keras.utils.set_random_seed(0)
    return let_through(CASES[name].build())


@pytest.fixture
def model(name):
    return built(name)


@pytest.fixture
def images(model):
    return np.random.default_rng(1).normal(size=(3, *model.inputs[0].shape[1:])).astype("float32")


def computed(model, images):
    # Told that this is no training: Keras' Resizing, which is so by default, tells the layers behind it.
    return [np.asarray(array) for array in outputs(model, images, training=False)]


def largest_difference(got, want):
    return max(relative_difference(*pair) for pair in zip(got, want, strict=True))


def test_a_backbone_folds(name, model, images):
    case = CASES[name]
    folded, report = tfbn.fold(model)
    reasons = [entry.reason.split("; forwards, ") for entry in report.kept]
    unused = reasons.count([UNUSED])
    kept = sum(len(both) == 2 and all(map(re.search, MATHEMATICS, both)) for both in reasons)
    assert len(report.entries) - unused == case.called, str(report)
    assert unused <= case.unused, str(report)
    assert len(report.folded) >= case.allowed, str(report)
    assert kept <= case.kept, str(report)
    assert len(reasons) == unused + kept, str(report)
    want = computed(model, images)
    difference = largest_difference(computed(folded, images), want)
    assert difference < FLOAT32
    assert max(np.std(array, axis=0).max() / abs(array).max() for array in want) > 100 * FLOAT32
    print(f"{name:20} {len(report.folded):2} of {case.allowed} folded, to {difference:.0e}")


def test_a_backbone_folds_in_the_graph_of_its_call(name, model, images):
    def call(x):
        inputs = tf.nest.map_structure(lambda _: x, model.input)
        found = tf.nest.flatten(model(inputs, training=False))
        return {f"output_{number}": tensor for number, tensor in enumerate(found)}

    function = of_named(call, {"x": tf.TensorSpec((None, *images.shape[1:]))})
    graph = frozen(function, True, name)
    want = function(x=tf.constant(images))
    got = graph.concrete(graph.definition, {})(x=tf.constant(images))
    assert len(graph.fold.folded) >= CASES[name].allowed, str(graph.fold)
    assert largest_difference(*([found[key] for key in sorted(want)] for found in (got, want))) < FLOAT32


def test_a_backbone_converts_and_back(name, model, images):
    stock, want = batch_norms(model), computed(model, images)
    kinds = [type(layer) for layer in stock.values()]
    assert tfbn.convert(model, in_place=True) is model
    assert all(map(has_our_kernels, stock.values()))
    assert len(stock) >= CASES[name].called
    assert largest_difference(computed(model, images), want) < FLOAT32
    tfbn.convert(model, to=keras.layers.BatchNormalization, in_place=True)
    assert [type(layer) for layer in batch_norms(model).values()] == kinds
    assert not any(map(has_our_kernels, stock.values()))
    assert largest_difference(computed(model, images), want) == 0


@pytest.mark.parametrize("name", ["retinanet"], scope="module")
def test_what_is_unused_is_never_called(name, images):
    model = let_through(CASES[name].build())
    before = {path: layer.moving_mean.numpy() for path, layer in batch_norms(model).items()}
    model(images, training=True)
    same = [
        path for path, layer in batch_norms(model).items() if (before[path] == layer.moving_mean).all()
    ]
    reasons = {entry.path: entry.reason for entry in tfbn.fold(model)[1].kept}
    assert [path for path, reason in reasons.items() if reason == UNUSED] == same


def test_the_infinite_padding_of_resnet_v2_is_crossed():
    """With positive gammas, as trained ones are: the pooling behind the padding keeps no others."""
    model = let_through(CASES["resnet v2 bottleneck"].build())
    for layer in batch_norms(model).values():
        layer.gamma.assign(abs(layer.gamma))
    _, report = tfbn.fold(model)
    into = {entry.path: entry.into for entry in report.folded}
    assert into["stack0_block0_pre_activation_bn"] == ("conv1_conv",)


def test_every_backbone_with_batch_norms_is_here():
    sources = Path(keras_hub.__file__).parent.glob("src/models/*/*.py")
    found = {path.parent.name for path in sources if "layers.BatchNormalization" in path.read_text()}
    assert found == {name.split()[0] for name in CASES}


@pytest.mark.filterwarnings("ignore:The inputs of these batch norms are far")  # of random statistics
@pytest.mark.parametrize("name", ["resnet v2 bottleneck", "mobilenet classifier"], scope="module")
def test_a_backbone_is_exported(name, model, images, tmp_path):
    report = tfbn.export(model, tmp_path / "model", samples=images)
    assert len(report.fold.folded) >= CASES[name].allowed, str(report.fold)
    assert report.frozen, report.reason_for_variables
    assert report.relative_difference < FLOAT32
    served = tf.saved_model.load(str(report.path)).signatures["serving_default"]
    got = served(**dict.fromkeys(report.inputs, tf.constant(images[:1])))
    assert largest_difference(got.values(), computed(model, images[:1])) < FLOAT32
