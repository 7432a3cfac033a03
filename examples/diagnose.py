"""Training accuracy 1.0 and evaluation like guessing: what is wrong, in words and a picture, and mended.

Trains a small network on scikit-learn's handwritten digits for six epochs at decay 0.999, as much legacy
code does: after 258 steps its moving averages still hold 77 % of their initial values. Diagnoses it,
recalibrates it, and diagnoses it again. Exit status 1 if that does not mend it.

    python examples/diagnose.py [PICTURE.png]
"""

import sys
from pathlib import Path

from quiet_start import starting_tensorflow

with starting_tensorflow():
    import keras

    import tfbn

import numpy as np
from rich.console import Console
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split


def build_network(decay: float) -> keras.Model:
    layers = keras.layers
    inputs = x = keras.Input((8, 8, 1), name="images")
    for number, (filters, strides) in enumerate([(32, 1), (64, 2), (64, 1), (128, 2)]):
        x = layers.Conv2D(filters, 3, strides, padding="same", use_bias=False)(x)
        x = layers.ReLU()(layers.BatchNormalization(momentum=decay, name=f"bn_{number}")(x))
    x = layers.GlobalAveragePooling2D()(x)
    return keras.Model(inputs, layers.Dense(10, activation="softmax")(x), name="digits")


def draw(before: tfbn.Diagnosis, after: tfbn.Diagnosis, path: Path) -> None:
    """The picture in README: variances of channels beside the data's, and drift of layers."""
    from matplotlib.figure import Figure  # noqa: PLC0415  for the picture only

    figure = Figure(figsize=(11, 4.2), layout="constrained")
    variances, drifts = figure.subplots(1, 2)
    names = sorted(before.layers)
    for shift, report, label, color in (
        (-0.2, before, "moving averages", "#ff7f0e"),
        (0.2, after, "recalibrated", "#2a9d5c"),
    ):
        score = report.effect.before["accuracy"] if report.effect else float("nan")
        layers = [report.layers[name].evidence for name in names]
        data = np.concatenate([layer.population.variance for layer in layers])
        moving = np.concatenate([layer.moving.variance for layer in layers])
        variances.scatter(data, moving, s=8, color=color, label=f"{label}: accuracy {score:.0%}")
        drifts.bar(np.arange(len(names)) + shift, [each.drift for each in layers], 0.4, color=color)
    variances.axline((1, 1), slope=1, color="black", linewidth=0.7, linestyle="--")
    variances.set(xscale="log", yscale="log", xlabel="variance of the data", ylabel="moving variance")
    variances.set_title("each channel of every batch norm")
    variances.legend()
    drifts.axhline(1 / 3, color="black", linewidth=0.7, linestyle="--")
    drifts.set_xticks(range(len(names)), names)
    drifts.set_title("drift of normalised values (fine below the line)")
    figure.savefig(path, dpi=100)


def main(epochs: int = 6, picture: str | None = None) -> int:
    """Train, diagnose, recalibrate, diagnose.

    Returns:
        0 if the diagnosis finds every batch norm lagging before and fine after, 1 otherwise.
    """
    keras.utils.set_random_seed(0)
    digits = load_digits()
    images = (digits.images[..., np.newaxis] / 16).astype("float32")
    x, x_test, y, y_test = train_test_split(images, digits.target, test_size=0.25, random_state=0)

    network = build_network(decay=0.999)
    network.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    network.fit(x, y, epochs=epochs, validation_data=(x_test, y_test), verbose=2)

    console = Console(soft_wrap=True)
    before = tfbn.diagnose(network, (x, y), verbose=0)
    print(before)
    tfbn.recalibrate(network, x, verbose=0)
    after = tfbn.diagnose(network, (x, y), verbose=0)
    print(after)
    accuracy = network.evaluate(x_test, y_test, verbose=0, return_dict=True)["accuracy"]
    console.print(f"Test accuracy after recalibration: {accuracy:.2%}")
    if picture is not None:
        draw(before, after, Path(picture))
    mended = {layer.verdict for layer in before.layers.values()} == {"lagging"} and after.fine
    console.print("[green]Mended.[/]" if mended else "[red]Not mended.[/]")
    return 0 if mended else 1


if __name__ == "__main__":
    sys.exit(main(picture=sys.argv[1] if sys.argv[1:] else None))
