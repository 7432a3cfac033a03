"""Layers and models in training, against Keras, tf_keras, torch and the bare kernel."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from time import perf_counter
from typing import Any

import keras
import kinds
import numpy as np
import tensorflow as tf
from measure import Row, Run, compare, milliseconds, row, tell

import tfbn

BOTH = tfbn.BatchNorm, keras.layers.BatchNormalization
SHAPES = (
    (32, 56, 56, 64),
    (32, 14, 14, 512),
    (32, 28, 28, 128),
    (32, 7, 7, 1280),
    (32, 112, 112, 32),
    (256, 1024),
)
OTHERS = (
    ((32, 56, 56, 64), -1, "float16"),
    ((32, 56, 56, 64), -1, "bfloat16"),
    ((32, 256, 64), -1, "float32"),
    ((8, 16, 28, 28, 32), -1, "float32"),
    ((32, 64, 56, 56), 1, "float32"),
)
# Of ranks 2 to 5, with batches of 1 to 1024 samples.
MANY_SHAPES = (
    *((1, 1024), (8, 1024), (32, 64), (32, 1024), (64, 256), (128, 512), (256, 64), (256, 256)),
    *((1024, 1024), (128, 4096)),
    *((8, 128, 64), (32, 128, 64), (16, 50, 768), (32, 512, 128), (64, 256, 32), (1, 1000, 64)),
    *((1, 56, 56, 64), (1, 224, 224, 32), (1, 7, 7, 1280), (8, 14, 14, 256), (16, 3, 3, 960)),
    *((16, 3, 3, 1280), (16, 6, 6, 576), (16, 7, 7, 512), (32, 1, 1, 512), (32, 4, 4, 256)),
    *((64, 8, 8, 128), (16, 112, 112, 64), (16, 28, 28, 192), (128, 32, 32, 16), (256, 8, 8, 64)),
    *((2, 16, 28, 28, 32), (8, 8, 14, 14, 64), (4, 4, 7, 7, 128)),
    *((64, 1000, 3), (64, 128, 8), (128, 28, 28, 1), (128, 32, 32, 3), (32, 24, 24, 24)),
    *((1, 16, 16, 64),),
)
# Images in a batch, and their size.
MODELS = {
    "MobileNetV2": ((32, 96), (16, 224)),
    "DenseNet121": ((16, 96),),
    "ResNet50": ((16, 96),),
}
# The network and size of image whose step is compiled by XLA, too. On a CPU that takes a minute, and so
# does a handful of such steps: 2 s and more on two cores, where TensorFlow's own kernels take 0.3 s.
MODEL_XLA = ("MobileNetV2", 96)


def training_step(layer: Any, x: tf.Tensor, xla: bool = False) -> Run:
    """A training step of one layer in a tf.function: forward, moving statistics and backward.

    As in a network, the result is written, too, and the slope is another tensor than the input. The
    graph is for batches of any size, as that of `fit`. The layer is Keras' or tf_keras', whose variables
    are TensorFlow's own.
    """
    layer.build(x.shape)
    trained = layer.trainable_variables
    variables = [each if isinstance(each, tf.Variable) else each.value for each in trained]

    @tf.function(jit_compile=xla, input_signature=[tf.TensorSpec((None, *x.shape[1:]), x.dtype)] * 2)
    def step(x: tf.Tensor, slope: tf.Tensor) -> list[tf.Tensor]:
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = layer(x, training=True)
        return [y, *tape.gradient(y, [x, *variables], output_gradients=slope)]

    slope = x + 1
    return lambda: step(x, slope)


def bare_step(x: tf.Tensor) -> Run:
    """The fused kernel alone, forward and backward: the least that a training step can cost."""
    images = x if len(x.shape) == 4 else x[:, tf.newaxis, tf.newaxis]
    ones, zeros, empty = tf.ones(x.shape[-1]), tf.zeros(x.shape[-1]), tf.zeros(0)

    @tf.function
    def step(images: tf.Tensor, slope: tf.Tensor) -> list[tf.Tensor]:
        with tf.GradientTape() as tape:
            tape.watch([images, ones, zeros])
            y = tf.raw_ops.FusedBatchNormV3(
                x=images, scale=ones, offset=zeros, mean=empty, variance=empty, epsilon=1e-3
            )[0]
        return [y, *tape.gradient(y, [images, ones, zeros], output_gradients=slope)]

    slope = images + 1
    return lambda: step(images, slope)


def tf_keras_step(x: tf.Tensor) -> Run | None:
    """The same step of tf_keras' layer, the Keras 2 of TensorFlow; `None` if it is not installed."""
    try:
        import tf_keras  # noqa: PLC0415
    except ImportError:
        return None
    return training_step(tf_keras.layers.BatchNormalization(), x)


def torch_step(shape: tuple[int, ...]) -> Run | None:
    """The same step of torch's `BatchNorm2d` for the same shape; `None` if torch is not installed."""
    try:
        import torch  # noqa: PLC0415
    except ImportError:
        return None
    images = torch.randn(*(shape if len(shape) == 4 else (shape[0], 1, 1, shape[1])))
    x = images.permute(0, 3, 1, 2).requires_grad_()  # channels last in memory, as ours
    layer = torch.nn.BatchNorm2d(shape[-1])
    slope = x.detach() + 1

    def step() -> None:
        x.grad = None
        layer.zero_grad()
        layer(x).backward(slope)

    return step


def fit_step(model: keras.Model, x: tf.Tensor, labels: tf.Tensor, xla: bool = False) -> Run:
    """One training step of a whole model, as Keras' `fit` runs it."""
    jit_compile = xla or "auto"
    model.compile(keras.optimizers.SGD(1e-3), "sparse_categorical_crossentropy", jit_compile=jit_compile)
    return lambda: model.train_on_batch(x, labels)


def frozen_step(model: keras.Model, x: tf.Tensor, labels: tf.Tensor) -> Run:
    """The same of a model whose batch norms are frozen, from then on."""
    for batch_norm in tfbn.batch_norms(model).values():
        batch_norm.trainable = False
    return fit_step(model, x, labels)


def any_step(model: keras.Model, x: tf.Tensor, labels: tf.Tensor) -> Run:
    """The same where the graph is for batches of any size, as where the last one is a partial one."""
    model.compile(keras.optimizers.SGD(1e-3), "sparse_categorical_crossentropy")
    samples = tf.data.Dataset.from_tensor_slices((x, labels))
    batches = iter(samples.repeat().batch(len(x)))
    model.make_train_function()
    return lambda: model.train_function(batches)


def data(*shape: int) -> tf.Tensor:
    return tf.constant(np.random.default_rng(0).standard_normal(shape), tf.float32)


def steps(rounds: int) -> Iterator[Row]:
    """Common shapes against all peers."""
    for shape in SHAPES:
        x, name = data(*shape), f"{shape}"
        ours, stock = (training_step(layer(), x) for layer in BOTH)
        yield compare(kinds.LAYER, name, ours, stock, rounds)
        compiled = (training_step(layer(), x, xla=True) for layer in BOTH)
        yield compare(kinds.LAYER_XLA, name, *compiled, rounds)
        frozen = (training_step(layer(trainable=False), x) for layer in BOTH)
        yield compare(kinds.LAYER_FROZEN, name, *frozen, rounds)
        yield compare(kinds.LAYER_KERNEL, name, ours, bare_step(x), rounds)
        if (tf_keras_run := tf_keras_step(x)) is not None:
            yield compare(kinds.LAYER_TF_KERAS, name, ours, tf_keras_run, rounds)
        if (torch_run := torch_step(shape)) is not None:
            yield compare(kinds.LAYER_TORCH, name, ours, torch_run, rounds)


def other_steps(rounds: int) -> Iterator[Row]:
    """Short types, other ranks and channels first against Keras' layer."""
    for shape, axis, dtype in OTHERS:
        x = tf.cast(data(*shape), dtype)
        policy = "float32" if dtype == "float32" else f"mixed_{dtype}"
        name = f"{shape}" + ", channels first" * (axis == 1) + f", {dtype}" * (dtype != "float32")
        runs = (training_step(layer(axis=axis, dtype=policy), x) for layer in BOTH)
        yield compare(kinds.LAYER, name, *runs, rounds)


def many_steps(rounds: int) -> Iterator[Row]:
    """Many shapes against Keras' layer, to find those where ours is slow; small ones take more turns."""
    for shape in MANY_SHAPES:
        x, turns = data(*shape), rounds * (1 if np.prod(shape) > 2**20 else 8)
        runs = (training_step(layer(), x) for layer in BOTH)
        yield compare(kinds.LAYER_OTHERS, f"{shape}", *runs, turns)


def inferences(rounds: int) -> Iterator[Row]:
    x = data(*SHAPES[0])
    ones, zeros = tf.ones(x.shape[-1]), tf.zeros(x.shape[-1])

    def inference(layer: keras.layers.Layer) -> Run:
        layer.build(x.shape)
        return tf.function(lambda: layer(x, training=False))

    @tf.function
    def bare() -> tf.Tensor:
        return tf.raw_ops.FusedBatchNormV3(
            x=x, scale=ones, offset=zeros, mean=zeros, variance=ones, epsilon=1e-3, is_training=False
        )[0]

    name, (ours, stock) = f"{SHAPES[0]}", (inference(layer()) for layer in BOTH)
    yield compare(kinds.INFERENCE, name, ours, stock, rounds)
    yield compare(kinds.INFERENCE_KERNEL, name, ours, bare, rounds)


def network(name: str, size: int) -> keras.Model:
    return getattr(keras.applications, name)(weights=None, input_shape=(size, size, 3), classes=10)


def models(rounds: int, networks: int | None) -> Iterator[Row]:
    rounds = max(5, rounds // 4)
    for name, batches in [*MODELS.items()][:networks]:
        for batch, size in batches:
            stock, title = network(name, size), kinds.images(name, batch, size)
            x = data(batch, size, size, 3)
            labels = tf.constant(np.random.default_rng(0).integers(0, 10, batch))
            both = tfbn.convert(stock), stock
            runs = [any_step(model, x, labels) for model in both]
            yield row(kinds.FIRST_STEP_ANY, title, *([milliseconds(run)] for run in runs))
            yield compare(kinds.MODEL_ANY, title, *runs, rounds)
            runs = [fit_step(model, x, labels) for model in both]
            yield row(kinds.FIRST_STEP, title, *([milliseconds(run)] for run in runs))
            yield compare(kinds.MODEL, title, *runs, rounds)
            yield measured(stock, x, title, rounds)
            if (name, size) == MODEL_XLA:
                compiled = (fit_step(model, x, labels, xla=True) for model in both)
                yield compare(kinds.MODEL_XLA, title, *compiled, max(5, rounds // 2))
            runs = [frozen_step(model, x, labels) for model in both]
            yield compare(kinds.MODEL_FROZEN, title, *runs, rounds)
            keras.backend.clear_session()


def measured(model: keras.Model, x: tf.Tensor, title: str, rounds: int) -> Row:
    """`population_statistics` of each batch but the first ones, against a forward pass in training."""
    peer = keras.models.clone_model(model)  # it trains, which nothing that is measured should
    forward = tf.function(lambda: peer(x, training=True))
    ends, peers, starts = [], [], []

    def take_turns(x: tf.Tensor) -> tf.Tensor:
        ends.append(1000 * perf_counter())
        peers.append(milliseconds(forward))
        starts.append(1000 * perf_counter())
        return x

    # Where a KerasHub task has its preprocessor: called before each batch, in the pass' own thread.
    model.preprocess_samples = take_turns
    tfbn.population_statistics(model, [(x,)] * (4 + rounds), verbose=0)
    passes = [end - start for start, end in zip(starts, ends[1:], strict=False)]
    return row(kinds.POPULATION, title, passes[3:], peers[3:])


def rows(rounds: int, networks: int | None = None) -> Iterator[Row]:
    """All rows; of the models, those of the first `networks`."""
    yield from steps(rounds)
    yield from other_steps(rounds)
    yield from many_steps(rounds)
    yield from inferences(rounds)
    yield from models(rounds, networks)


if __name__ == "__main__":
    tell(rows(*map(int, sys.argv[1:])))
