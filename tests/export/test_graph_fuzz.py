"""Damaged SavedModels and frozen graphs: one clear error or a right export, and nothing left."""

import subprocess
import sys

import pytest
import tensorflow as tf

import fuzz_child
import tfbn
from frozen_graphs import Parts, frozen
from sweeps import some

CASES, SHARDS = 1000, 4
SPEC = tf.TensorSpec((None, 4), "float32", "x")


def write_sources(folder):
    parts = Parts("float32")
    kernels = [tf.Variable(parts.normal(4, 4)) for _ in range(2)]
    scale, offset = parts.scale(4), parts.normal(4)

    def function(x):
        x = tf.nn.relu(tf.nn.bias_add(x @ kernels[0], offset) * scale + offset)
        return tf.nn.tanh(x @ kernels[1])

    definition, _, _ = frozen(function, SPEC)
    (folder / "frozen.pb").write_bytes(definition.SerializeToString())
    module = tf.Module()
    module.kernels = kernels
    serve = tf.function(lambda x: {"y": function(x)}, input_signature=[SPEC], autograph=False)
    tf.saved_model.save(module, str(folder / "model"), signatures=serve)


@pytest.mark.parametrize("shard", some(range(SHARDS), [0]))
def test_damaged_files_give_one_clear_error(shard, tmp_path):
    write_sources(tmp_path)
    size = CASES // SHARDS
    first, last = shard * size, (shard + 1) * size
    lines, crashed = [], []
    while first < last:
        command = [sys.executable, fuzz_child.__file__, str(tmp_path), str(first), str(last)]
        child = subprocess.run(
            command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, check=False
        )
        lines += child.stdout.splitlines()
        begun = [int(line.split()[1]) for line in lines if line.startswith("begins")]
        if child.returncode:  # in TensorFlow's own code, which reads the file
            assert child.returncode < 0, child.returncode
            crashed.append(begun[-1])
            assert not (tmp_path / "out").exists()
        first = begun[-1] + 1
    assert sorted({int(line.split()[1]) for line in lines if line.startswith("begins")}) == list(
        range(shard * size, last)
    )
    kinds = {"begins", "exported", "ValueError"}
    assert not [line for line in lines if line.split()[0] not in kinds]
    errors = [line for line in lines if line.startswith("ValueError")]
    assert len(errors) > size / 2
    assert len([line for line in lines if line.startswith("exported")]) > size / 20
    assert len(crashed) < size / 20, crashed
    print(len(errors), len(crashed), crashed)


def test_cycles_are_refused(tmp_path):
    write_sources(tmp_path)
    definition = tf.compat.v1.GraphDef()
    definition.ParseFromString((tmp_path / "frozen.pb").read_bytes())
    relu = next(node for node in definition.node if node.op == "Relu")
    first = next(node for node in definition.node if node.op == "MatMul")
    first.input[0] = relu.name
    (tmp_path / "cyclic.pb").write_bytes(definition.SerializeToString())
    with pytest.raises(ValueError, match="cannot be read as a frozen graph.*cycle"):
        tfbn.export(tmp_path / "cyclic.pb", tmp_path / "out")
    assert not (tmp_path / "out").exists()
