"""tf_slim's networks, as projects have copies of them, migrated: their own tests pass."""

import json
import re
import subprocess
import sys

import pytest

import slim_nets
from paths import HELPERS

# Three minutes: the long tests that build a network at each of its layers are left out of two of them.
SHORT = ["testBuildClassificationNetwork", "testModelHasExpectedNumberOfParameters", "testEvaluation"]
NETWORKS = {
    "alexnet": [],
    "overfeat": [],
    "vgg": [],
    "inception_v1": SHORT,
    "inception_v2": SHORT,
    "inception_v3": [],
    "resnet_v1": [],
    "resnet_v2": [],
}
# One forward pass, shape or count of parameters of each.
FEW = {
    "alexnet": ["testBuild"],
    "overfeat": ["testBuild"],
    "vgg": ["testBuild"],
    "inception_v1": ["testModelHasExpectedNumberOfParameters"],
    "inception_v2": ["testModelHasExpectedNumberOfParameters"],
    "inception_v3": ["testModelHasExpectedNumberOfParameters"],
    "resnet_v1": ["testClassificationEndPoints", "testEndPointsV1"],
    "resnet_v2": ["testClassificationEndPoints", "testEndPointsV2"],
}


def named_in(folder, networks):
    """The ids that unittest gives the tests in the files, found without running them."""
    for network, methods in networks.items():
        name, case = f"{network}_test", None
        for line in (folder / "nets" / f"{name}.py").read_text().splitlines():
            case = found[1] if (found := re.match(r"class (\w+)", line)) else case
            method = re.match(r"  def (test\w+)", line)
            if method and (not methods or method[1] in methods):
                yield f"nets.{name}.{case}.{method[1]}"


@pytest.mark.sweep
@pytest.mark.parametrize(
    ("old", "networks", "count"),
    [
        pytest.param(True, NETWORKS, 86, id="contrib"),
        pytest.param(False, FEW, 12, id="tf_slim"),
    ],
)
def test_the_networks_own_tests_pass(old, networks, count, run, tmp_path):
    """The originals pass all of them with tf_keras' layers; without, all that has a batch norm fails."""
    slim_nets.copy(tmp_path, old)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*.py")}
    assert run("migrate", "nets", "--write").exit_code == 0
    migrated = {path: path.read_bytes() for path in before}
    contrib = [path for path, text in migrated.items() if b"tensorflow.contrib" in text]
    assert not contrib
    assert sum(migrated[path] != before[path] for path in before) == (17 if old else 8)
    assert run("migrate", "nets", "--check").exit_code == 0  # nothing would change
    names = [":".join([f"nets.{network}_test", *methods]) for network, methods in networks.items()]
    slim = "" if old else "slim"  # as the command says
    command = [sys.executable, str(HELPERS / "slim_nets.py"), slim, "out.json", *names]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    results = json.loads((tmp_path / "out.json").read_text())
    expected = set(named_in(tmp_path, networks))
    assert results["failed"] == {}
    assert set(results["passed"]) == expected
    assert len(expected) == count
