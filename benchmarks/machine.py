"""What was measured on: the processor, TensorFlow's switch for oneDNN, and the versions."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, NamedTuple

from measure import SWITCH

PROBE = """
import json, keras, tensorflow, tfbn
versions = {"TensorFlow": tensorflow.__version__, "Keras": keras.__version__, "tfbn": tfbn.__version__}
print(json.dumps([versions, len(tensorflow.config.list_physical_devices("GPU"))]))
"""
# The peers that need not be there: the package of each.
PEERS = {
    "tf_keras": "tf-keras",
    "torch": "torch",
    "ONNX Runtime": "onnxruntime",
    "OpenVINO": "openvino",
    "LiteRT": "ai-edge-litert",
}


class Machine(NamedTuple):
    """The machine and the software that rows were measured with."""

    processor: str
    cores: int
    gpus: int
    by_itself: bool  # whether TensorFlow uses oneDNN here by default
    settings: list[bool]  # of the switch; `[False]` where TensorFlow was built without oneDNN
    versions: dict[str, str]
    peers: dict[str, str]  # the versions of those of `PEERS` that are installed

    def __str__(self) -> str:
        return f"{self.hardware}\n{listed(self.versions | self.peers)}"

    @property
    def hardware(self) -> str:
        by_itself = "on" if self.by_itself else "off"
        if True not in self.settings:
            by_itself = "not in this TensorFlow"
        hardware = f"{self.processor}, {self.cores} cores, {self.gpus or 'no'} GPU"
        return f"{hardware}; oneDNN by itself: {by_itself}"


def listed(versions: dict[str, str]) -> str:
    return ", ".join(f"{name} {number}" for name, number in versions.items())


def with_switch(onednn: bool | None) -> dict[str, str]:
    """The environment with the switch set, or, for `None`, without it: TensorFlow's default.

    TensorFlow reads the switch when it is imported, so a process has one setting.
    """
    environment = {name: value for name, value in os.environ.items() if name != SWITCH}
    return environment if onednn is None else environment | {SWITCH: str(int(onednn))}


def processor() -> str:
    """The processor's model name; on Linux `platform` does not know it."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    named = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return named[0] if named else platform.processor() or platform.machine()


def probe(onednn: bool | None) -> tuple[bool, Any]:
    """Whether TensorFlow says in its log that oneDNN is on, and what `PROBE` prints."""
    environment = with_switch(onednn) | {"TF_CPP_MIN_LOG_LEVEL": "0"}
    script = [sys.executable, "-c", PROBE]
    done = subprocess.run(script, env=environment, check=True, capture_output=True, text=True)
    return "oneDNN custom operations are on" in done.stderr, json.loads(done.stdout)


def peers() -> dict[str, str]:
    """The versions of the peers that are installed."""
    found = {}
    for name, package in PEERS.items():
        with suppress(PackageNotFoundError):
            found[name] = version(package)
    return found


def describe() -> Machine:
    by_itself, (versions, gpus) = probe(None)
    settings = [False, True] if by_itself or probe(True)[0] else [False]
    versions = {"Python": platform.python_version(), **versions}
    return Machine(processor(), os.cpu_count() or 1, gpus, by_itself, settings, versions, peers())
