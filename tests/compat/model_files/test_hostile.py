"""Damaged and hostile files: one clear error or a model that runs; no crash, no hang, no half model."""

import json
import pathlib
import random
import shutil

import h5py
import keras
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import legacy_files as files
from draws import RANDOM
from sweeps import some
from tfbn import compat


def draw(*shape):
    return np.abs(RANDOM.normal(0.5, 0.2, shape)).astype("float32")


def norm(name):
    return files.layer("BatchNormalization", name, mode=0, axis=-1, epsilon=0.01, momentum=0.9)


def norm_weights(name, size):
    return name, [
        (f"{name}_{weight}", draw(size)) for weight in ("gamma", "beta", "running_mean", "running_std")
    ]


def dense(name, units):
    return files.layer(
        "Dense", name, output_dim=units, init="uniform", activation="relu", bias=True, W_regularizer=None
    )


def small():
    """A Sequential model of Keras 1."""
    model = files.sequential(dense("d", 3), norm("n"), files.layer("Dropout", "p", p=0.5), shape=(2,))
    return model, [("d", [("d_W", draw(2, 3)), ("d_b", draw(3))]), norm_weights("n", 3)], "1.2.2", None


def graph():
    """A functional one with images, a merge, a shared layer and a model within."""
    convolution = files.layer(
        "Convolution2D",
        "c",
        nb_filter=2,
        nb_row=2,
        nb_col=1,
        border_mode="same",
        subsample=[2, 1],
        dim_ordering="tf",
        activation="linear",
    )
    inner = files.sequential(dense("i", 2), norm("n"), shape=(2,)) | {
        "name": "inner",
        "inbound_nodes": [[["g", 0, 0]], [["h", 0, 0]]],
    }
    layers = [
        files.source("x", 4, 3, 1),
        (convolution, [["x"]]),
        (files.layer("GlobalMaxPooling2D", "g", dim_ordering="tf"), [["c"]]),
        (files.layer("GlobalAveragePooling2D", "h", dim_ordering="tf"), [["c"]]),
        (files.layer("Merge", "m", mode="concat", concat_axis=-1), [[("inner", 1, 0), ("inner", 2, 0)]]),
    ]
    config = files.functional(layers, ["x"], ["m"])
    config["config"]["layers"].append(inner)
    flat = [("i_W", draw(2, 2)), ("i_b", draw(2)), *norm_weights("n", 2)[1]]
    return (
        config,
        [("c", [("c_W", draw(2, 1, 1, 2)), ("c_b", draw(2))]), ("inner", flat)],
        "1.2.2",
        "theano",
    )


def keras2():
    """Keras 2: a recurrent layer in a wrapper, a wrapped batch norm."""
    rnn = files.layer(
        "SimpleRNN",
        "r",
        units=2,
        activation="tanh",
        use_bias=False,
        return_sequences=True,
        kernel_initializer={"class_name": "Zeros", "config": {}},
    )
    inner = files.layer(
        "BatchNormalization", "n", axis=[1], epsilon=0.01, momentum=0.9, center=True, scale=False
    )
    layers = [
        files.layer(
            "Bidirectional", "b", layer=rnn, merge_mode="concat", batch_input_shape=[None, 3, 2]
        ),
        files.layer("TimeDistributed", "t", layer=inner),
        files.layer("Flatten", "f", data_format="channels_last"),
    ]
    both = [(f"w{number}", draw(2, 2)) for number in range(4)]
    config = {"class_name": "Sequential", "config": {"name": "s", "layers": layers}}
    return (
        config,
        [("b", both), ("t", [(f"v{number}", draw(4)) for number in range(3)])],
        "2.3.0",
        "tensorflow",
    )


BASES = [small, graph, keras2]


def load(path, weights=None, backend=None):
    """A refusal of ours, or a model that runs and has all its weights."""
    keras.backend.clear_session(free_memory=False)
    try:
        model = compat.load_model(path, weights=weights, backend=backend)
    except compat.LegacyModelError as error:
        named = str(error)
    else:
        return ran(model)
    assert named.startswith(str(path)), named
    return None


def ran(model):
    """The model, after a call where that is not too much."""
    inputs = [tensor.shape for tensor in model.inputs]
    shapes = [[2 if size is None else size for size in shape] for shape in inputs]
    if sum(np.prod(shape, dtype=float) for shape in shapes) < 1e4 and _light(model):
        values = [
            np.ones(shape, tensor.dtype) for shape, tensor in zip(shapes, model.inputs, strict=True)
        ]
        model(values if len(values) > 1 else values[0])
    return model


def _light(model):
    """Whether running it makes no tensor of more than a million numbers."""
    outputs = [
        tensor
        for layer in model._flatten_layers()
        for node in layer._inbound_nodes
        for tensor in node.output_tensors
    ]
    return all(np.prod([size or 2 for size in tensor.shape], dtype=float) < 1e6 for tensor in outputs)


HOSTILE = [
    *(None, True, False, 0, -1, 1, 2, 3, 1.5, -0.5, 10**12, 2**31, 10**400, 1e999, float("nan")),
    *(
        "",
        "x",
        "d",
        "../..",
        "th",
        "same",
        "Lambda",
        "Dense",
        "Merge",
        "Sequential",
        "Model",
        "os.system",
    ),
    *([], {}, [[]], [None], [None, 2], [2, None], [None, 10**9, 2], [None] * 40, [1, 2, 3]),
    *(
        [["d", 0, 0]],
        [["x", 0, 0]],
        [["m", 0, 0]],
        {"class_name": "Dense", "config": {}},
        {"name": "Dense"},
    ),
    {"class_name": "Lambda", "config": {"name": "l", "function": ["4wEAAAA=", None, None]}},
    {"class_name": "__lambda__", "config": {}},
    {"module": "os", "class_name": "system", "config": {"command": "false"}, "registered_name": "x"},
]


def places(value, path=()):
    yield path
    items = (
        value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    )
    for key, item in items:
        yield from places(item, (*path, key))


def mutated(config, rng):
    """The configuration with up to three values replaced, removed, doubled or swapped."""
    config = json.loads(json.dumps(config))
    for _ in range(rng.randint(1, 3)):
        everywhere = [path for path in places(config) if path]
        if not everywhere:
            break
        path, other = rng.choice(everywhere), rng.choice(everywhere)
        parent, source = config, config
        for key in path[:-1]:
            parent = parent[key]
        for key in other:
            source = source[key]
        kind = rng.randrange(4)
        if kind == 0:
            del parent[path[-1]]
        elif kind == 1 and isinstance(parent, list):
            parent.insert(path[-1], json.loads(json.dumps(parent[path[-1]])))
        elif kind == 2:
            parent[path[-1]] = json.loads(json.dumps(source))
        else:
            parent[path[-1]] = json.loads(json.dumps(rng.choice(HOSTILE)))  # which stay as they are
    return config


MANY = {"deadline": None, "derandomize": True, "suppress_health_check": list(HealthCheck)}


@pytest.mark.parametrize("base", BASES)
@pytest.mark.parametrize("examples", some([120, 700], [120]))
def test_mutated_architectures(tmp_path, base, examples):
    config, weights, version, backend = base()
    stored = files.write(tmp_path / "w.h5", None, weights, version, backend, whole=False)
    path = tmp_path / "m.json"
    loaded = []

    @settings(max_examples=examples, **MANY)
    @given(st.integers(0, 2**32))
    def check(seed):
        path.write_text(json.dumps(mutated(config, random.Random(seed))))
        loaded.append(load(path, stored, backend) is not None)

    check()
    assert 0.02 < np.mean(loaded) < 0.9  # neither all nor none is refused


def is_small(weights):
    """Not what an earlier change has left: a string or a single number."""
    return weights.nbytes < 1000 and weights.dtype.kind == "f" and weights.shape


def structures(path, rng):
    """Change the structure of an HDF5 file in place."""
    with h5py.File(path, "a") as file:
        for _ in range(rng.randint(1, 2)):
            found = ["/"]
            file.visit(found.append)
            item = file[rng.choice(found)]
            names = list(item.attrs)
            kind = rng.randrange(8)
            if kind == 0 and names:
                del item.attrs[rng.choice(names)]
            elif kind == 1 and names:
                item.attrs[rng.choice(names)] = rng.choice(
                    [
                        0,
                        1.5,
                        "x",
                        "1.0.6",
                        [b"d", b"d"],
                        [b"n", b"d"],
                        np.zeros(3),
                        ["..", "/", "d/d"],
                        [b"\xff"],
                        h5py.Empty("f4"),
                    ]
                )
            elif kind == 2:
                item.attrs[
                    rng.choice(["nb_layers", "layer_names0", "nb_params", "backend", "keras_version"])
                ] = rng.choice([2, 10**9, -1, "theano", "1.2.2", [b"d"]])
            elif item.name != "/":
                parent, name = item.parent, item.name.rpartition("/")[2]
                data = item[()] if isinstance(item, h5py.Dataset) and is_small(item) else None
                del parent[name]
                if kind == 3:
                    parent[name] = rng.choice(
                        [
                            h5py.SoftLink("/"),
                            h5py.ExternalLink("other.h5", "/"),
                            h5py.SoftLink(f"{parent.name}/{name}"),
                        ]
                    )
                elif kind == 4:
                    parent[name] = file  # a cycle of hard links
                elif kind == 5 and data is not None:
                    parent[name] = rng.choice(
                        [
                            data.T,
                            data.astype("c8"),
                            data.astype("i2"),
                            data.astype("f8"),
                            data.reshape(-1),
                            data[None],
                            data[:1],
                            np.float32(1),
                            [b"x"],
                        ]
                    )
                elif kind == 6:
                    parent.create_dataset(
                        name,
                        shape=rng.choice([(10**9, 10**6), (2, 3), (0,)]),
                        dtype="f4",
                        chunks=rng.choice([True, None]) or None,
                    )
                elif kind == 7 and data is not None:
                    parent.create_dataset(name, data=["a"], dtype=h5py.string_dtype())


@pytest.mark.parametrize("base", BASES[:2])
@pytest.mark.parametrize("examples", some([100, 500], [100]))
def test_mutated_structures(tmp_path, base, examples):
    config, weights, version, backend = base()
    whole = files.write(tmp_path / "whole.h5", config, weights, version, None)
    path = tmp_path / "m.h5"
    loaded = []

    @settings(max_examples=examples, **MANY)
    @given(st.integers(0, 2**32))
    def check(seed):
        shutil.copy(whole, path)
        structures(path, random.Random(seed))
        loaded.append(load(path, backend=backend) is not None)

    check()
    assert 0.02 < np.mean(loaded) < 0.9


@pytest.mark.parametrize("examples", some([200, 1000], [200]))
def test_mutated_bytes(tmp_path, examples):
    """Bytes flipped, cut off, filled with zeros. Other numbers in a weight are no error."""
    config, weights, version, backend = small()
    whole = pathlib.Path(
        files.write(tmp_path / "whole.h5", config, weights, version, backend)
    ).read_bytes()
    path = tmp_path / "m.h5"
    loaded = []

    @settings(max_examples=examples, **MANY)
    @given(st.integers(0, 2**32))
    def check(seed):
        rng = random.Random(seed)
        data = bytearray(whole)
        kind = rng.randrange(4)
        if kind == 0:
            del data[rng.randrange(len(data)) :]
        elif kind == 1:
            start = rng.randrange(len(data))
            data[start : start + 64] = bytes(len(data[start : start + 64]))
        else:
            for _ in range(rng.randint(1, 8)):
                data[rng.randrange(len(data))] = rng.randrange(256)
        path.write_bytes(data)
        loaded.append(load(path, backend=backend) is not None)

    check()
    assert 0.02 < np.mean(loaded) < 0.95
