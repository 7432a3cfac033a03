"""A training run that evaluates badly, mended, folded, exported and served, on real images.

Trains a small network on scikit-learn's handwritten digits at decay 0.999, as much legacy code does,
once with Keras' batch norms and once with ours: both evaluate like guessing. Replaces the moving
averages by population statistics, folds the batch norms away, exports, and serves the result from a
second process that knows nothing of tfbn. Exit status 1 if a comparison fails.

    python examples/digits.py
"""

import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any, NamedTuple

from quiet_start import starting_tensorflow

with starting_tensorflow():
    import keras
    import tensorflow as tf

    import tfbn

import numpy as np
from rich.console import Console
from rich.table import Table
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

DECAY = 0.999  # what contrib's batch_norm had by default; Keras' layer calls it momentum
BATCH = 64
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


def build_network(batch_norm: Callable[..., keras.layers.Layer]) -> keras.Model:
    """Depthwise and pointwise convolutions and a dense layer, each with a batch norm behind it.

    Args:
        batch_norm: makes one that has a name.
    """
    layers = keras.layers
    inputs = x = keras.Input((8, 8, 1), name="images")
    x = layers.UpSampling2D(4, interpolation="bilinear")(x)
    x = layers.Conv2D(32, 3, strides=2, padding="same", use_bias=False, name="conv")(x)
    x = layers.ReLU()(batch_norm(name="conv_bn")(x))
    for number, (filters, strides) in enumerate([(64, 1), (64, 2), (64, 1)], 1):
        x = layers.DepthwiseConv2D(3, strides, "same", use_bias=False, name=f"depthwise_{number}")(x)
        x = layers.ReLU()(batch_norm(name=f"depthwise_{number}_bn")(x))
        x = layers.Conv2D(filters, 1, use_bias=False, name=f"pointwise_{number}")(x)
        x = layers.ReLU()(batch_norm(name=f"pointwise_{number}_bn")(x))
    x = layers.Conv2D(32, 3, strides=2, activation="relu", name="conv_relu")(x)
    x = batch_norm(name="after_relu_bn")(x)  # after a ReLU: folds forwards, into `dense`
    x = layers.Dropout(0.3)(layers.Flatten()(x))
    x = layers.Dense(64, use_bias=False, name="dense")(x)
    x = layers.ReLU()(batch_norm(name="dense_bn")(x))
    return keras.Model(inputs, layers.Dense(10, activation="softmax", name="classes")(x))


def trained(batch_norm: Callable[..., keras.layers.Layer], images: Images, epochs: int) -> Any:
    """A network after `fit`, and the accuracy that `fit` saw last, on the training images."""
    keras.utils.set_random_seed(0)  # so that both networks start from the same weights
    network = build_network(batch_norm)
    network.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    fitted = network.fit(images.train, images.train_labels, batch_size=BATCH, epochs=epochs, verbose=0)
    return network, fitted.history["accuracy"][-1]


def predictions_of_second_process(saved_model: Path, images: np.ndarray) -> np.ndarray:
    given, answer = saved_model.with_name("images.npy"), saved_model.with_name("answer.npy")
    np.save(given, images)
    script = Path(__file__).with_name("serve.py")
    command = [sys.executable, script, saved_model, given, answer]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"The serving process failed:\n{done.stderr}")
    return np.load(answer)


def milliseconds(saved_models: list[Path], batch: np.ndarray, rounds: int = 50) -> list[float]:
    """Median time of an answer of each SavedModel, asked in turns."""
    served = [tf.saved_model.load(str(path)) for path in saved_models]
    calls = [each.signatures["serving_default"] for each in served]
    given = tf.constant(batch)
    names = [next(iter(call.structured_input_signature[1])) for call in calls]
    times: list[list[float]] = [[] for _ in calls]
    for number in range(rounds + 5):
        for call, name, taken in zip(calls, names, times, strict=True):
            start = perf_counter()
            call(**{name: given})
            if number >= 5:  # the first ones prepare kernels
                taken.append(1000 * (perf_counter() - start))
    return [median(taken) for taken in times]


def difference(got: np.ndarray, want: np.ndarray) -> float:
    return float(np.abs(got - want).max() / np.abs(want).max())


def main(epochs: int = 8) -> int:
    """Run all steps and print the results.

    Returns:
        0 if folding and serving changed no probability by more than `CLOSE`, 1 otherwise.
    """
    console = Console()
    images = load_images()

    def accuracy(network: keras.Model) -> str:
        return correct(network.predict(images.test, verbose=0))

    def correct(probabilities: np.ndarray) -> str:
        return f"{(probabilities.argmax(-1) == images.test_labels).mean():.2%}"

    console.print(f"Training on {len(images.train)} images, {epochs} epochs, with Keras' layer …")
    stock, seen = trained(
        lambda name: keras.layers.BatchNormalization(momentum=DECAY, name=name), images, epochs
    )
    console.print("… and from the same weights with tfbn.BatchNorm …")
    network, _ = trained(lambda name: tfbn.BatchNorm(decay=DECAY, name=name), images, epochs)
    moving = accuracy(network)

    console.print("tfbn.recalibrate(network, images):")
    console.print(str(tfbn.recalibrate(network, images.train, verbose=0)), soft_wrap=True)
    population = network.predict(images.test, verbose=0)

    console.print("tfbn.fold(network):")
    folded_network, report = tfbn.fold(network)
    console.print(str(report))
    folded = folded_network.predict(images.test, verbose=0)

    console.print("tfbn.export(network, …), and a second process that answers …")
    with tempfile.TemporaryDirectory() as folder:
        exported = tfbn.export(network, Path(folder) / "digits", samples=images.test[:64])
        served = predictions_of_second_process(exported.path, images.test)
        stock.export(Path(folder) / "stock", verbose=False)
        before, after = milliseconds([Path(folder) / "stock", exported.path], images.test[:64])

    table = Table(title=f"{len(images.test)} test images")
    for column in ("", "accuracy", "batch norms", "difference", "ms / 64 images"):
        table.add_column(column, justify="left" if not column else "right")
    count, left = str(len(report.entries)), str(len(tfbn.batch_norms(folded_network)))
    table.add_row("Keras, in training", f"{seen:.2%}", count)
    table.add_row("Keras, evaluated", accuracy(stock), count, "", f"{before:.2f}")
    table.add_row("tfbn, evaluated", moving, count)
    table.add_row("recalibrated", correct(population), count)
    table.add_row("folded", correct(folded), left, f"{difference(folded, population):.1e}")
    table.add_row(
        "served", correct(served), left, f"{difference(served, population):.1e}", f"{after:.2f}"
    )
    console.print(table)
    steps = epochs * -(-len(images.train) // BATCH)
    console.print(
        f"After {steps} steps at decay {DECAY} a moving average still holds {DECAY**steps:.0%} of its "
        "initial value, whoever computes it, and evaluation uses it. What to do: "
        "tfbn.recalibrate(model, images) after training, as here, or "
        "callbacks=[tfbn.callbacks.Recalibrate(images)] in fit. Differences are from the recalibrated "
        "network, the largest of any probability. The served model "
        f"answers {before / after:.1f} times as fast as Keras' own export of the network.",
        markup=False,
    )
    close = max(difference(folded, population), difference(served, population)) <= CLOSE
    console.print("[green]All comparisons hold.[/]" if close else "[red]A comparison failed.[/]")
    return 0 if close else 1


if __name__ == "__main__":
    sys.exit(main())
