"""How much `tfbn.fold` adds to the peak memory of a process, as a multiple of a ResNet50's weights."""

from __future__ import annotations

from pathlib import Path

import keras

import tfbn


def peak() -> int:
    """The peak memory of this process so far, in bytes, on Linux; `resource` starts at the parent's."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:"))


def main() -> None:
    small = keras.applications.MobileNet(weights=None, input_shape=(32, 32, 3))
    tfbn.fold(small)  # so that all code is loaded before
    model = keras.applications.ResNet50(weights=None, input_shape=(96, 96, 3))
    before = peak()
    folded = tfbn.fold(model)
    grown = peak() - before
    print(grown / sum(variable.value.numpy().nbytes for variable in model.variables))
    del folded


if __name__ == "__main__":
    main()
