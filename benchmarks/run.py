"""Speed against peers, as ratios of medians in one process, subject and peer taken in turns.

    python benchmarks/run.py [--rounds 40]

Prints a table, writes `benchmarks/results.json` and draws `docs/benchmarks.png`. A ratio above 1 means
that tfbn is faster. Where torch is installed, its `BatchNorm2d` is one more peer.
"""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import NamedTuple

import click
import keras
import matplotlib.pyplot as plt
import numpy as np
import tensorflow as tf
from rich.console import Console
from rich.table import Table

import tfbn

RESULTS = Path(__file__).with_name("results.json")
CHART = Path(__file__).parent.parent / "docs" / "benchmarks.png"
Run = Callable[[], object]


class Row(NamedTuple):
    """One comparison: medians in milliseconds, and peer / subject."""

    name: str
    subject: float
    peer: float

    @property
    def ratio(self) -> float:
        return self.peer / self.subject


def compare(name: str, subject: Run, peer: Run, rounds: int) -> Row:
    """Medians of both, taken in turns after three warm-up calls each."""
    for _ in range(3):
        subject(), peer()
    times: tuple[list[float], list[float]] = ([], [])
    for _ in range(rounds):
        for run, taken in zip((subject, peer), times, strict=True):
            start = perf_counter()
            run()
            taken.append(1000 * (perf_counter() - start))
    return Row(name, *map(median, times))


def training_step(layer: keras.layers.Layer, x: tf.Tensor) -> Run:
    """Forward, statistics and backward of one layer in a tf.function."""
    layer.build(x.shape)
    variables = [variable.value for variable in layer.trainable_variables]

    @tf.function
    def step() -> list[tf.Tensor]:
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = layer(x, training=True)
        return tape.gradient(y, [x, *variables], output_gradients=x)

    return step


def bare_step(x: tf.Tensor) -> Run:
    """The fused kernel alone, forward and backward: the least that a training step can cost."""
    images = x if len(x.shape) == 4 else x[:, tf.newaxis, tf.newaxis]
    ones, zeros, empty = tf.ones(x.shape[-1]), tf.zeros(x.shape[-1]), tf.zeros(0)

    @tf.function
    def step() -> list[tf.Tensor]:
        with tf.GradientTape() as tape:
            tape.watch([images, ones, zeros])
            y = tf.raw_ops.FusedBatchNormV3(
                x=images, scale=ones, offset=zeros, mean=empty, variance=empty, epsilon=1e-3
            )[0]
        return tape.gradient(y, [images, ones, zeros], output_gradients=images)

    return step


def torch_step(shape: tuple[int, ...]) -> Run | None:
    """The same step of torch's `BatchNorm2d` on the same values' shape; `None` without torch."""
    try:
        import torch  # noqa: PLC0415
    except ImportError:
        return None
    images = torch.randn(*(shape if len(shape) == 4 else (shape[0], 1, 1, shape[1])))
    x = images.permute(0, 3, 1, 2).requires_grad_()  # channels last in memory, as ours
    layer = torch.nn.BatchNorm2d(shape[-1])
    slope = x.detach()

    def step() -> None:
        x.grad = None
        layer.zero_grad()
        layer(x).backward(slope)

    return step


def fit_step(model: keras.Model, x: tf.Tensor, labels: tf.Tensor) -> Run:
    """One training step of a whole model, as Keras' `fit` runs it."""
    model.compile(keras.optimizers.SGD(1e-3), "sparse_categorical_crossentropy")
    return lambda: model.train_on_batch(x, labels)


def inference(model: keras.Model, x: tf.Tensor) -> Run:
    function = tf.function(lambda: model(x, training=False))
    return function


def rows(rounds: int) -> list[Row]:
    rng = np.random.default_rng(0)

    def data(*shape: int) -> tf.Tensor:
        return tf.constant(rng.standard_normal(shape), tf.float32)

    found = []
    for shape in ((32, 56, 56, 64), (32, 14, 14, 512), (256, 1024)):
        x = data(*shape)
        ours = training_step(tfbn.BatchNorm(), x)
        keras_own = training_step(keras.layers.BatchNormalization(), x)
        found.append(compare(f"training step {shape} vs Keras", ours, keras_own, rounds))
        found.append(compare(f"training step {shape} vs bare kernel", ours, bare_step(x), rounds))
        if (torch_run := torch_step(shape)) is not None:
            found.append(compare(f"training step {shape} vs torch", ours, torch_run, rounds))
    for shape, axis, dtype in (
        ((32, 56, 56, 64), -1, "float16"),
        ((32, 56, 56, 64), -1, "bfloat16"),
        ((32, 256, 64), -1, "float32"),
        ((8, 16, 28, 28, 32), -1, "float32"),
        ((32, 64, 56, 56), 1, "float32"),
    ):
        x = tf.cast(data(*shape), dtype)
        policy = "float32" if dtype == "float32" else f"mixed_{dtype}"
        ours = training_step(tfbn.BatchNorm(axis=axis, dtype=policy), x)
        keras_own = training_step(keras.layers.BatchNormalization(axis=axis, dtype=policy), x)
        name = f"training step {shape} axis {axis} {dtype} vs Keras"
        found.append(compare(name, ours, keras_own, rounds))
    x, layer, stock = data(32, 56, 56, 64), tfbn.BatchNorm(), keras.layers.BatchNormalization()
    layer.build(x.shape), stock.build(x.shape)
    found.append(compare("inference vs Keras", inference(layer, x), inference(stock, x), rounds))
    channels = x.shape[-1]
    statistics = {"mean": tf.zeros(channels), "variance": tf.ones(channels)}
    bare = tf.function(
        lambda: tf.raw_ops.FusedBatchNormV3(
            x=x,
            scale=tf.ones(channels),
            offset=tf.zeros(channels),
            epsilon=1e-3,
            is_training=False,
            **statistics,
        )[0]
    )
    found.append(compare("inference vs bare kernel", inference(layer, x), bare, rounds))
    for name, batch in (("MobileNetV2", 32), ("DenseNet121", 16), ("ResNet50", 16)):
        stock_model = getattr(keras.applications, name)(
            weights=None, input_shape=(96, 96, 3), classes=10
        )
        x, labels = data(batch, 96, 96, 3), tf.constant(rng.integers(0, 10, batch))
        runs = [fit_step(model, x, labels) for model in (tfbn.convert(stock_model), stock_model)]
        found.append(compare(f"{name} fit step, converted vs stock", *runs, max(5, rounds // 4)))
    for name in ("MobileNetV2", "ResNet50"):
        model = getattr(keras.applications, name)(weights=None, input_shape=(96, 96, 3))
        folded, x = tfbn.fold(model)[0], data(8, 96, 96, 3)
        row = f"{name} batch 8, folded vs not"
        found.append(compare(row, inference(folded, x), inference(model, x), rounds))
    model = keras.applications.MobileNetV2(weights=None, input_shape=(96, 96, 3))

    def clone() -> None:
        keras.models.clone_model(model).set_weights(model.get_weights())

    found.append(compare("fold vs clone_model", lambda: tfbn.fold(model), clone, max(3, rounds // 10)))
    return found


def fold_memory() -> float:
    """What `tfbn.fold` adds to the peak memory of a process that holds a ResNet50, in models."""
    done = subprocess.run([sys.executable, "-c", MEMORY], check=True, capture_output=True, text=True)
    return float(done.stdout)


MEMORY = """
import resource, keras, tfbn
tfbn.fold(keras.applications.MobileNet(weights=None, input_shape=(32, 32, 3)))  # all code is loaded
model = keras.applications.ResNet50(weights=None, input_shape=(96, 96, 3))
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
folded = tfbn.fold(model)
grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
print(1024 * grown / sum(variable.value.numpy().nbytes for variable in model.variables))
"""


def draw(measured: list[Row], title: str) -> None:
    """A bar for each ratio, the peer's time at 1."""
    figure, axes = plt.subplots(figsize=(9, 0.32 * len(measured) + 1.2))
    names = [row.name for row in reversed(measured)]
    bars = axes.barh(names, [row.ratio for row in reversed(measured)], color="#3b6ea5")
    axes.bar_label(bars, fmt="%.2f×", padding=3, fontsize=8)
    axes.axvline(1, color="black", linewidth=0.8)
    axes.set_xlabel("times as fast as the peer (median of interleaved runs)")
    axes.set_title(title, fontsize=9)
    axes.tick_params(axis="y", labelsize=8)
    axes.margins(x=0.12)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    figure.tight_layout()
    CHART.parent.mkdir(exist_ok=True)
    figure.savefig(CHART, dpi=130)


@click.command()
@click.option("--rounds", default=40, show_default=True, help="Timed calls of each side.")
def main(rounds: int) -> None:
    """Run all comparisons."""
    measured = rows(rounds)
    versions = {"tensorflow": tf.__version__, "keras": keras.__version__, "tfbn": tfbn.__version__}
    gpus = len(tf.config.list_logical_devices("GPU"))
    machine = f"{os.cpu_count()} {platform.machine()} cores, {gpus} GPUs"
    title = f"{machine}; " + ", ".join(f"{name} {version}" for name, version in versions.items())
    table = Table(title=title)
    for column in ("", "tfbn ms", "peer ms", "ratio"):
        table.add_column(column, justify="right" if column else "left")
    for row in measured:
        table.add_row(row.name, f"{row.subject:.2f}", f"{row.peer:.2f}", f"{row.ratio:.2f}")
    Console().print(table)
    draw(measured, title)
    memory = fold_memory()
    Console().print(f"fold adds {memory:.2f} times the weights to the peak memory of the process")
    report = {
        "machine": machine,
        **versions,
        "fold memory / weights": memory,
        "rows": [row._asdict() for row in measured],
    }
    RESULTS.write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
