"""Files as Keras 1 and 2 wrote them: JSON and HDF5."""

import json

import h5py
import numpy as np


def write(path, config, weights, version="1.2.2", backend=None, *, whole=True, numbered=False):
    """Write `weights`, a list of (layer, [(name, array)]), and with `whole` the architecture."""
    with h5py.File(path, "w") as file:
        group = file
        if whole:
            file.attrs["model_config"] = json.dumps(config).encode()
            group = file.create_group("model_weights")
        origin = file if version is None or version < "2" else group
        for name, value in (("keras_version", version), ("backend", backend)):
            if value is not None:
                origin.attrs[name] = value.encode()
                file.attrs[name] = value.encode()
        if numbered:
            group.attrs["nb_layers"] = len(weights)
        else:
            group.attrs["layer_names"] = [name.encode() for name, _ in weights]
        for number, (name, arrays) in enumerate(weights):
            child = group.create_group(f"layer_{number}" if numbered else name)
            if numbered:
                child.attrs["nb_params"] = len(arrays)
            else:
                child.attrs["weight_names"] = [weight.encode() for weight, _ in arrays]
            for place, (weight, array) in enumerate(arrays):
                child[f"param_{place}" if numbered else weight] = np.asarray(array, "float32")
    return str(path)


def layer(class_name, name, **config):
    return {"class_name": class_name, "config": {"name": name, "trainable": True} | config}


def sequential(*layers, shape):
    """A Sequential model of Keras 1: a list of layers, the first of which tells the input's shape."""
    first, *rest = layers
    config = first["config"] | {"batch_input_shape": [None, *shape], "input_dtype": "float32"}
    return {"class_name": "Sequential", "config": [first | {"config": config}, *rest]}


def functional(layers, inputs, outputs):
    """A Model: `layers` is a list of (layer, [[names of the first call's inputs], …])."""
    described = [
        entry
        | {
            "name": entry["config"]["name"],
            "inbound_nodes": [
                [[*source] if isinstance(source, tuple) else [source, 0, 0] for source in call]
                for call in calls
            ],
        }
        for entry, calls in layers
    ]
    ends = {"input_layers": inputs, "output_layers": outputs}
    ends = {
        key: [[*name] if isinstance(name, tuple) else [name, 0, 0] for name in names]
        for key, names in ends.items()
    }
    return {"class_name": "Model", "config": {"name": "model_1", "layers": described} | ends}


def source(name, *shape, dtype="float32"):
    return layer(
        "InputLayer", name, batch_input_shape=[None, *shape], input_dtype=dtype, sparse=False
    ), []
