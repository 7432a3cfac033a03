"""Population statistics under `tf.distribute`: replicas and workers give what one process gives."""

import subprocess
import sys

import numpy as np
import pytest

import reference
from sweeps import some
from workers import run_two_workers

# The statistics of two batch norms, the second of which sees each batch through the first.
COMMON = """
import sys
import numpy as np, tensorflow as tf
cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * DEVICES)
STRATEGY
import keras, tfbn
x = np.load(sys.argv[1])

def made():
    keras.utils.set_random_seed(0)
    inputs = keras.Input((3,), dtype="float64")
    y = tfbn.BatchNorm(dtype="float64", name="first")(inputs)
    y = keras.layers.Dense(4, "relu", dtype="float64")(y)
    return keras.Model(inputs, keras.layers.BatchNormalization(dtype="float64", name="second")(y))

def dataset():
    return tf.data.Dataset.from_tensor_slices((x, x[:, 0])).batch(16)

def batches():
    return [(x[start : start + 16],) for start in range(0, len(x), 16)]

found = {}
def note(name, measured):
    for path, moments in measured.items():
        count = np.full_like(moments.mean, moments.count)
        found[f"{name} {path}"] = np.stack([moments.mean, moments.variance, count])
"""
MIRRORED = (
    COMMON.replace("DEVICES", "2").replace(
        "STRATEGY", 'strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])'
    )
    + """
outside = made()
note("one process", tfbn.population_statistics(made(), batches(), verbose=0))
with strategy.scope():
    inside = made()
    distributed = strategy.experimental_distribute_dataset(dataset())
    note("arrays", tfbn.population_statistics(inside, dataset(), verbose=0))
    note("generator", tfbn.population_statistics(inside, (batch for batch in batches()), verbose=0))
    note("distributed", tfbn.population_statistics(inside, distributed, verbose=0))
    note("model of outside", tfbn.population_statistics(outside, dataset(), verbose=0))
    note("steps", tfbn.population_statistics(inside, dataset(), steps=-(-len(x) // 16), verbose=0))
note("distributed, outside", tfbn.population_statistics(inside, distributed, verbose=0))
note("distributed, all outside", tfbn.population_statistics(outside, distributed, verbose=0))
with strategy.scope():
    note("recalibrated", tfbn.recalibrate(inside, dataset(), verbose=0))
for replica in range(2):
    values = inside.get_layer("second").moving_mean.value
    found[f"replica {replica}"] = strategy.experimental_local_results(values)[replica].numpy()
np.savez(sys.argv[2], **found)
"""
)
WORKER = (
    COMMON.replace("DEVICES", "1").replace(
        "STRATEGY", "strategy = tf.distribute.MultiWorkerMirroredStrategy()"
    )
    + """
with strategy.scope():
    model = made()
    distributed = strategy.experimental_distribute_dataset(dataset())
    note("dataset", tfbn.population_statistics(model, dataset(), verbose=0))
    note("distributed", tfbn.population_statistics(model, distributed, verbose=0))
np.savez(sys.argv[2], **found)
"""
)
ALONE = (
    COMMON.replace("DEVICES", "1").replace("STRATEGY", "")
    + """
note("one process", tfbn.population_statistics(made(), batches(), verbose=0))
np.savez(sys.argv[2], **found)
"""
)


# The last batch leaves the second replica one value less, or none.
@pytest.mark.parametrize("samples", some([64, 71, 65], [71]))
def test_two_replicas(samples, tmp_path):
    x = reference.data((samples, 3), dtype="float64") + 1e2
    np.save(tmp_path / "x.npy", x)
    arguments = [str(tmp_path / "x.npy"), str(tmp_path / "out.npz")]
    subprocess.run([sys.executable, "-c", MIRRORED, *arguments], check=True, cwd=tmp_path)
    found = np.load(tmp_path / "out.npz")
    exact = np.stack([x.mean(0), x.var(0, ddof=1), np.full(3, float(samples))])
    for name in found.files:
        if name.startswith("replica"):
            np.testing.assert_array_equal(found[name], found["recalibrated second"][0])
            continue
        way, path = name.rsplit(" ", 1)
        np.testing.assert_allclose(found[name], found[f"one process {path}"], rtol=1e-12, err_msg=way)
        if path == "first":
            np.testing.assert_allclose(found[name], exact, rtol=1e-12, err_msg=way)


@pytest.mark.sweep
def test_two_workers(tmp_path):
    np.save(tmp_path / "x.npy", reference.data((71, 3), dtype="float64") + 1e2)
    alone = [sys.executable, "-c", ALONE, str(tmp_path / "x.npy"), str(tmp_path / "alone.npz")]
    subprocess.run(alone, check=True, cwd=tmp_path)
    run_two_workers(WORKER, tmp_path)
    want = np.load(tmp_path / "alone.npz")
    for index in range(2):
        found = np.load(tmp_path / f"out{index}.npz")
        for name in found.files:
            alone = want["one process " + name.rsplit(" ", 1)[1]]
            # Which samples share a batch may differ: the first batch norm does not depend on it.
            if name.endswith("first"):
                np.testing.assert_allclose(found[name], alone, rtol=1e-12, err_msg=name)
