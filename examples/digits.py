"""From a training run to a verified, folded SavedModel, on real images.

Trains a small network with batch normalisation on scikit-learn's handwritten digits, replaces the
moving averages by population statistics, folds the batch norms away, exports, and serves the
result from a second process that knows nothing of tfbn. Exit status 1 if a comparison fails.

    python examples/digits.py
"""

import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import NamedTuple

import keras
import numpy as np
from rich.console import Console
from rich.table import Table
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

import tfbn

CLOSE = 1e-5  # relative to the largest probability: float32 rounding over some ten layers


class Images(NamedTuple):
    """Training and test images [count, 8, 8, 1] in 0…1, and their labels [count] in 0…9."""

    train: np.ndarray
    test: np.ndarray
    train_labels: np.ndarray
    test_labels: np.ndarray


def load_images() -> Images:
    digits = load_digits()
    images = (digits.images[..., np.newaxis] / 16).astype("float32")
    return Images(*train_test_split(images, digits.target, test_size=0.25, random_state=0))


def build_network() -> keras.Model:
    """Convolution, depthwise and dense layers, each followed by a batch norm; one follows a ReLU."""
    layers = keras.layers
    inputs = x = keras.Input((8, 8, 1), name="images")
    x = layers.Conv2D(32, 3, padding="same", use_bias=False, name="conv")(x)
    x = layers.ReLU()(tfbn.BatchNorm(name="conv_bn")(x))
    x = layers.DepthwiseConv2D(3, padding="same", use_bias=False, name="depthwise")(x)
    x = layers.ReLU()(tfbn.BatchNorm(name="depthwise_bn")(x))
    x = layers.Conv2D(64, 3, strides=2, activation="relu", name="conv_relu")(x)
    x = tfbn.BatchNorm(name="after_relu_bn")(x)  # after a ReLU: folds forwards, into `dense`
    x = layers.Dropout(0.3)(layers.Flatten()(x))
    x = layers.Dense(64, use_bias=False, name="dense")(x)
    x = layers.ReLU()(tfbn.BatchNorm(name="dense_bn")(x))
    return keras.Model(inputs, layers.Dense(10, activation="softmax", name="classes")(x))


def predictions_of_second_process(saved_model: Path, images: np.ndarray) -> np.ndarray:
    given, answer = saved_model.with_name("images.npy"), saved_model.with_name("answer.npy")
    np.save(given, images)
    script = Path(__file__).with_name("serve.py")
    command = [sys.executable, script, saved_model, given, answer]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"The serving process failed:\n{done.stderr}")
    return np.load(answer)


def milliseconds(models: list[keras.Model], batch: np.ndarray, rounds: int = 50) -> list[float]:
    """Median time of an inference call of each model, taken in turns."""
    calls = [model.predict_on_batch for model in models]
    for call in calls:
        call(batch)  # so that tracing is not measured
    times: list[list[float]] = [[] for _ in calls]
    for _ in range(rounds):
        for call, taken in zip(calls, times, strict=True):
            start = perf_counter()
            call(batch)
            taken.append(1000 * (perf_counter() - start))
    return [median(taken) for taken in times]


def difference(got: np.ndarray, want: np.ndarray) -> float:
    return float(np.abs(got - want).max() / np.abs(want).max())


def main(epochs: int = 8) -> int:
    """Run all steps and print the results.

    Returns:
        0 if folding and serving changed no probability by more than `CLOSE`, 1 otherwise.
    """
    keras.utils.set_random_seed(0)
    images = load_images()
    network = build_network()
    network.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    network.fit(images.train, images.train_labels, batch_size=64, epochs=epochs)

    def accuracy(probabilities: np.ndarray) -> str:
        return f"{(probabilities.argmax(-1) == images.test_labels).mean():.2%}"

    moving = network.predict(images.test, verbose=0)
    print("Population statistics of the training images:")
    tfbn.recalibrate(network, images.train)
    population = network.predict(images.test, verbose=0)

    folded_network, report = tfbn.fold(network)
    folded = folded_network.predict(images.test, verbose=0)
    with tempfile.TemporaryDirectory() as folder:
        exported = tfbn.export(network, Path(folder) / "digits", samples=images.test[:64])
        served = predictions_of_second_process(exported.path, images.test)
    before, after = milliseconds([network, folded_network], images.test[:64])

    table = Table(title=f"{len(images.test)} test images")
    for column in ("", "accuracy", "batch norms", "difference", "ms / 64 images"):
        table.add_column(column, justify="left" if not column else "right")
    count = str(len(report.entries))
    left = str(len(tfbn.batch_norms(folded_network)))
    table.add_row("moving averages", accuracy(moving), count)
    table.add_row("population statistics", accuracy(population), count, "", f"{before:.2f}")
    table.add_row(
        "folded", accuracy(folded), left, f"{difference(folded, population):.1e}", f"{after:.2f}"
    )
    table.add_row("served", accuracy(served), left, f"{difference(served, population):.1e}")
    console = Console()
    console.print(table)
    steps = epochs * -(-len(images.train) // 64)
    decay = network.get_layer("conv_bn").decay
    console.print(
        f"After {steps} steps at decay {decay} a moving average still holds {decay**steps:.0%} of its "
        "initial value: the first row is what that costs. Differences are from the second row, the "
        "largest of any probability."
    )
    console.print(str(report))
    close = max(difference(folded, population), difference(served, population)) <= CLOSE
    console.print("[green]All comparisons hold.[/]" if close else "[red]A comparison failed.[/]")
    return 0 if close else 1


if __name__ == "__main__":
    sys.exit(main())
