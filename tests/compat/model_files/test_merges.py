"""Merges of Keras 1, of tensors and of models."""

import numpy as np
import pytest

import legacy_files as files
from keras1_files import CLOSE, apply, dense, dense_weights, draw
from tfbn import compat


def merged(tmp_path, shapes, **config):
    """A model that merges inputs, called on random ones."""
    names = [f"in{number}" for number in range(len(shapes))]
    base = {"mode_type": "raw", "output_shape": None, "output_shape_type": "raw", "output_mask": None}
    base |= {"output_mask_type": "raw", "arguments": {}, "concat_axis": -1, "dot_axes": -1}
    base |= {"node_indices": None, "tensor_indices": None}
    layers = [files.source(name, *shape) for name, shape in zip(names, shapes, strict=True)]
    layers.append((files.layer("Merge", "merge_1", **(base | config)), [names]))
    path = files.write(tmp_path / "m.h5", files.functional(layers, names, ["merge_1"]), [])
    inputs = [draw(2, *shape) for shape in shapes]
    return [array.astype("float64") for array in inputs], compat.load_model(path)(inputs)


@pytest.mark.parametrize(
    ("config", "shapes", "answer"),
    [
        ({"mode": "sum"}, [(3,)] * 3, lambda x, y, z: x + y + z),
        ({"mode": "mul"}, [(3, 2)] * 2, lambda x, y: x * y),
        ({"mode": "ave"}, [(3,)] * 3, lambda x, y, z: (x + y + z) / 3),
        ({"mode": "max"}, [(3,)] * 2, np.maximum),
        ({"mode": "concat", "concat_axis": 1}, [(3, 2), (4, 2)], lambda x, y: np.concatenate([x, y], 1)),
        ({"mode": "concat"}, [(3, 2), (3, 5)], lambda x, y: np.concatenate([x, y], -1)),
        ({"mode": "dot", "dot_axes": 1}, [(3,)] * 2, lambda x, y: (x * y).sum(1, keepdims=True)),
        (
            {"mode": "dot", "dot_axes": [2, 2]},
            [(3, 4), (5, 4)],
            lambda x, y: np.einsum("bik,bjk->bij", x, y),
        ),
        (
            {"mode": "dot", "dot_axes": [[2], [1]]},
            [(3, 4), (4, 5)],
            lambda x, y: np.einsum("bik,bkj->bij", x, y),
        ),
        (
            {"mode": "cos", "dot_axes": 1},
            [(3,)] * 2,
            lambda x, y: ((x * y).sum(1) / np.sqrt((x * x).sum(1) * (y * y).sum(1)))[:, None, None],
        ),
    ],
    ids=lambda value: str(value) if isinstance(value, dict) else "",
)
def test_merge_modes(tmp_path, config, shapes, answer):
    inputs, found = merged(tmp_path, shapes, **config)
    np.testing.assert_allclose(found, answer(*inputs), **CLOSE)


def test_merge_of_functions_is_refused(tmp_path):
    with pytest.raises(compat.LegacyModelError, match="merge_1: mode='.*' must be one of 'sum'"):
        merged(tmp_path, [(3,)] * 2, mode="4wAAAAAA", mode_type="lambda")
    with pytest.raises(compat.LegacyModelError, match="mode_type='function' must be one of 'raw'"):
        merged(tmp_path, [(3,)] * 2, mode="sum", mode_type="function")


def test_a_merge_of_models_starts_a_sequential_model(tmp_path):
    pairs = [dense_weights("p", 3, 4), dense_weights("q", 2, 4), dense_weights("r", 8, 2)]
    branches = [files.sequential(dense("p", 4), shape=(3,)), files.sequential(dense("q", 4), shape=(2,))]
    merge = files.layer("Merge", "m", mode="concat", concat_axis=-1, layers=branches)
    config = {"class_name": "Sequential", "config": [merge, dense("r", 2)]}
    model = compat.load_model(files.write(tmp_path / "m.h5", config, pairs))
    x, y = draw(4, 3), draw(4, 2)
    both = np.concatenate([apply(x, pairs[0]), apply(y, pairs[1])], -1)
    np.testing.assert_allclose(model([x, y]), apply(both, pairs[2]), **CLOSE)
