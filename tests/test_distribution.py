"""Synchronized batch norm: replicas and workers against one process on the whole batch."""

import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf

import reference
import tfbn
from sweeps import some
from workers import run_two_workers

# A training step of a synchronized layer; `parts` are the replicas' or workers' shares of the batch.
STEP = """
import json, os, sys
import numpy as np, tensorflow as tf
cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * DEVICES)
STRATEGY
import keras, tfbn
source, target, *sizes = sys.argv[1:]
parts = np.split(np.load(source), np.cumsum([int(size) for size in sizes])[:-1])
with strategy.scope():
    layer = tfbn.BatchNorm(decay=0.5, synchronized=True, dtype="float64")
    layer.build((None, parts[0].shape[1]))
part = strategy.experimental_distribute_values_from_function(
    lambda context: tf.constant(parts[context.replica_id_in_sync_group]))

@tf.function
def step(part):
    def replica(value):
        with tf.GradientTape() as tape:
            tape.watch(value)
            y = layer(value, training=True)
            loss = tf.reduce_sum(y ** 3)
        return y, tape.gradient(loss, value)
    return strategy.run(replica, [part])

y, slope = (np.concatenate([tensor.numpy() for tensor in strategy.experimental_local_results(value)])
            for value in step(part))
mean, variance = layer.moving_mean.numpy(), layer.moving_variance.numpy()
np.savez(target, y=y, slope=slope, mean=mean, variance=variance)
"""
MIRRORED = STEP.replace("DEVICES", "2").replace(
    "STRATEGY", 'strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])'
)
WORKER = STEP.replace("DEVICES", "1").replace(
    "STRATEGY", "strategy = tf.distribute.MultiWorkerMirroredStrategy()"
)


def whole_batch(x):
    """Output, gradient and statistics of one process on the whole batch."""
    layer = tfbn.BatchNorm(decay=0.5, dtype="float64")
    with tf.GradientTape() as tape:
        inputs = tf.constant(x)
        tape.watch(inputs)
        y = layer(inputs, training=True)
        loss = tf.reduce_sum(y**3)
    slope = tape.gradient(loss, inputs)
    return {"y": y, "slope": slope, "mean": layer.moving_mean, "variance": layer.moving_variance}


def assert_same(got, want):
    for name, value in want.items():
        np.testing.assert_allclose(got[name], value, rtol=1e-6, atol=1e-7, err_msg=name)


@pytest.fixture
def x(tmp_path):
    values = reference.data((8, 3), dtype="float64") + 1e3
    np.save(tmp_path / "x.npy", values)
    return values


@pytest.mark.parametrize("sizes", some([(4, 4), (3, 5), (8, 0)], [(3, 5), (8, 0)]))
def test_two_replicas(x, sizes, tmp_path):
    arguments = [str(tmp_path / "x.npy"), str(tmp_path / "out.npz"), *map(str, sizes)]
    subprocess.run([sys.executable, "-c", MIRRORED, *arguments], check=True, cwd=tmp_path)
    assert_same(np.load(tmp_path / "out.npz"), whole_batch(x))


def test_two_workers_in_processes_of_their_own(x, tmp_path):
    run_two_workers(WORKER, tmp_path, "3", "5")
    first, second = (np.load(tmp_path / f"out{index}.npz") for index in range(2))
    whole = whole_batch(x)
    assert_same(
        {name: np.concatenate([first[name], second[name]]) for name in ("y", "slope")}
        | {name: first[name] for name in ("mean", "variance")},
        whole,
    )
    for name in ("mean", "variance"):
        np.testing.assert_array_equal(first[name], second[name])


FIT = """
import sys
import numpy as np, tensorflow as tf
cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
import keras, tfbn
x = np.load(sys.argv[1])
strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
results = []
for layer in (lambda: tfbn.BatchNorm(decay=0.5, synchronized=True),
              lambda: keras.layers.BatchNormalization(momentum=0.5, synchronized=True)):
    with strategy.scope():
        keras.utils.set_random_seed(0)
        layers = [keras.Input((3,)), keras.layers.Dense(4), layer(), keras.layers.Dense(1)]
        model = keras.Sequential(layers)
        model.compile(keras.optimizers.SGD(0.01), "mse")
    model.fit(x, x[:, :1], batch_size=4, epochs=3, shuffle=False, verbose=0)
    results.append([variable.numpy() for variable in model.weights])
for ours, stock in zip(*results, strict=True):
    np.testing.assert_allclose(ours, stock, rtol=1e-4, atol=1e-5)  # six float32 steps
"""


def test_fit_on_two_replicas_equals_keras_own_layer(tmp_path):
    np.save(tmp_path / "x.npy", reference.data((8, 3)))
    subprocess.run([sys.executable, "-c", FIT, str(tmp_path / "x.npy")], check=True, cwd=tmp_path)


def test_one_collective_for_each_layer_and_step(monkeypatch):
    calls = []

    class Counting:
        num_replicas_in_sync = 2

        def all_gather(self, value, axis):
            calls.append(value.shape)
            return tf.concat([value, value], axis)

    layer = tfbn.BatchNorm(synchronized=True)
    layer.build((None, 3))
    monkeypatch.setattr(tf.distribute, "get_replica_context", Counting)
    layer(np.ones((4, 3), "float32"), training=True)
    assert calls == [(1, 3, 3)]  # mean, variance and count of three channels, together
