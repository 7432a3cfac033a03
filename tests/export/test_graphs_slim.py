"""Whole networks of tf_slim as SavedModels of TensorFlow 1, with a placeholder for `is_training`."""

import subprocess
import sys

import numpy as np
import pytest

import tfbn
from exports import operations
from frozen_graphs import BATCH_NORMS
from networks import relative_difference
from paths import HELPERS

# Of the batch norms that inference reaches, how many there are and stay: in ResNetV2 a ReLU lies between
# each unit's first one (and the last one of all) and the next convolution, and a sum before it, but for
# the very first, before which is a convolution and a pooling.
NETWORKS = {"inception_v3": (94, 0), "resnet_v2_50": (49, 16)}


@pytest.mark.sweep
@pytest.mark.parametrize("name", NETWORKS)
def test_slim_networks(name, tmp_path, serve):
    command = [sys.executable, str(HELPERS / "slim_saved_models.py"), str(tmp_path), name]
    subprocess.run(command, check=True, capture_output=True)
    answers = dict(np.load(tmp_path / f"{name}.npz"))
    images, names = answers.pop("images"), answers.pop("names")
    count, stay = NETWORKS[name]
    report = tfbn.export(tmp_path / name, tmp_path / "out")
    assert len([each for each in names if "AuxLogits" not in each]) == count
    assert (len(report.fold.folded), len(report.fold.kept)) == (count - stay, stay), str(report.fold)
    assert len([kind for kind in operations(tmp_path / "out") if kind in BATCH_NORMS]) <= stay
    got = serve(tmp_path / "out", images=images)
    assert set(got.files) == set(answers)
    for key, want in answers.items():
        assert np.ptp(want) > 0
        assert relative_difference(got[key], want) < 1e-5
