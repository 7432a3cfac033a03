"""Whole networks of tf_slim as SavedModels of TensorFlow 1, with a placeholder for `is_training`."""

import importlib

import numpy as np
import pytest
import tensorflow as tf
import tf_slim as slim

import tfbn
from exports import operations
from frozen_graphs import BATCH_NORMS
from networks import relative_difference
from tf1_networks import NETWORKS, digits, initial

v1 = tf.compat.v1
# Of the batch norms that inference reaches, how many stay: in ResNetV2 a ReLU lies between each unit's
# first one (and the last one of all) and the next convolution, and a sum before it.
STAY = {"inception_v3": 0, "resnet_v2_50": 17}


def saved(name, given):
    """Write the network with weights by name; what it answers, and its batch norms."""
    size, _, _, arguments, scope = NETWORKS[name]
    module = importlib.import_module(f"tf_slim.nets.{name.removesuffix('_50')}")
    resnet_utils = importlib.import_module("tf_slim.nets.resnet_utils")
    arg_scope = getattr(module, f"{name}_arg_scope", resnet_utils.resnet_arg_scope)
    images, _ = digits(size, 4)
    with tf.Graph().as_default(), v1.Session() as session:
        given_images = v1.placeholder("float32", (None, size, size, 3), "images")
        training = v1.placeholder_with_default(False, (), "is_training")
        with slim.arg_scope(arg_scope(**scope)):
            logits, ends = getattr(module, name)(given_images, 10, is_training=training, **arguments)
        for variable in v1.global_variables():
            variable.load(initial(variable.op.name, variable.shape.as_list()), session)
        outputs = {"logits": tf.reshape(logits, (-1, 10)), "probabilities": ends.get("Predictions")}
        outputs = {key: tensor for key, tensor in outputs.items() if tensor is not None}
        v1.saved_model.simple_save(session, str(given), {"images": given_images}, outputs)
        want = session.run(outputs, {given_images: images})
        norms = [each.op.name for each in v1.global_variables() if each.op.name.endswith("moving_mean")]
    return images.astype("float32"), want, [name for name in norms if "AuxLogits" not in name]


@pytest.mark.parametrize("name", STAY)
def test_slim_networks(name, tmp_path, serve):
    images, want, norms = saved(name, tmp_path / "given")
    report = tfbn.export(tmp_path / "given", tmp_path / "out")
    assert len(norms) in (49, 94)
    assert len(report.fold.folded) == len(norms) - STAY[name], str(report.fold)
    assert len(report.fold.kept) == STAY[name]
    left = [kind for kind in operations(tmp_path / "out") if kind in BATCH_NORMS]
    assert len(left) <= STAY[name]
    got = serve(tmp_path / "out", images=images)
    assert set(got.files) == set(want)
    for key, value in want.items():
        assert np.ptp(value) > 0
        assert relative_difference(got[key], value) < 1e-5
