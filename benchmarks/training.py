"""Layers and models in training, against Keras, the bare kernel and torch."""

from __future__ import annotations

import keras
import numpy as np
import tensorflow as tf
from measure import Row, Run, compare

import tfbn


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
    return found
