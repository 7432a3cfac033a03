"""What `tfbn.fold` adds to the peak memory of a process, in times the weights of a ResNet50."""

from __future__ import annotations

import resource

import keras

import tfbn


def peak() -> int:
    """Bytes, the most so far."""
    return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def main() -> None:
    small = keras.applications.MobileNet(weights=None, input_shape=(32, 32, 3))
    tfbn.fold(small)  # all code is loaded
    model = keras.applications.ResNet50(weights=None, input_shape=(96, 96, 3))
    before = peak()
    folded = tfbn.fold(model)
    grown = peak() - before
    print(grown / sum(variable.value.numpy().nbytes for variable in model.variables))
    del folded


if __name__ == "__main__":
    main()
