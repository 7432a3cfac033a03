"""compat.batch_norm against the original, and in the places where the original never was."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
import tf1_programs

V1 = tf.compat.v1
RANKS = {2: (8, 3), 3: (8, 5, 3), 4: (4, 5, 6, 3), 5: (4, 2, 3, 5, 3)}
FIRST = {2: (8, 3), 3: (4, 3, 5), 4: (4, 3, 5, 6), 5: (4, 3, 2, 5, 6)}  # channels first
SET = {
    "param_initializers": {
        "gamma": ["constant", 1.5],
        "beta": ["constant", 0.5],
        "moving_mean": ["constant", 2.0],
        "moving_variance": ["constant", 3.0],
    }
}
LOSSES = {"param_regularizers": {"beta": ["l2", 0.1], "gamma": ["l2", 0.2]}}
CLIP = {"rmin": 0.5, "rmax": 2.0, "dmax": 1.0}


def grid():
    """Calls whose numbers the last release of contrib, tf_slim 1.1.0, shares with ours."""
    for rank, shape in RANKS.items():
        for fused in (True, False):
            for updates in ("default", None, "custom"):
                kwargs = {"decay": 0.9, "scale": True, "fused": fused}
                kwargs |= {} if updates == "default" else {"updates_collections": updates}
                for training in (True, False, "tensor", "variable"):
                    yield {"kwargs": kwargs, "shape": shape, "training": training, "learning_rate": 0.05}
    for shape in FIRST.values():
        for fused in (True, False):
            for training in (True, False):
                kwargs = {"decay": 0.9, "scale": True, "fused": fused, "data_format": "NCHW"}
                yield {"kwargs": kwargs, "shape": shape, "training": training}
    for shape in (RANKS[2], RANKS[4]):
        plain = {"decay": 0.9, "scale": True, "fused": True}
        yield {"kwargs": plain, "shape": shape, "dtype": "float16"}
        yield {"kwargs": plain | {"fused": False}, "shape": shape, "dtype": "float64"}
        yield {"kwargs": plain | SET | LOSSES, "shape": shape}
        yield {"kwargs": plain | {"center": False, "activation_fn": "relu"}, "shape": shape}
        yield {
            "kwargs": plain
            | {"scale": False, "trainable": False, "fused": False, "updates_collections": None},
            "shape": shape,
        }
        for training in (True, "tensor"):
            case = {"shape": shape, "training": training}
            for updates in ({}, {"updates_collections": None}):
                yield case | {"kwargs": plain | {"zero_debias_moving_mean": True} | updates, "steps": 4}
                yield case | {"kwargs": plain | updates, "batch_weights": True}
            yield case | {"kwargs": plain | {"adjustment": "double"}}
            for bounds in (None, CLIP):
                renorm = {"renorm": True, "renorm_clipping": bounds, "renorm_decay": 0.8} | SET
                yield case | {"kwargs": plain | renorm, "steps": 4}
    yield {"kwargs": {"scale": True, "fused": True}, "shape": (4, 5, 6, 4), "partitions": 2}
    yield {
        "kwargs": {"scale": True},
        "shape": (4, 5, 6, 3),
        "static_shape": [None, None, None, 3],
        "training": False,
    }
    for collections in (["mine"], {"beta": ["b"], "moving_mean": ["mm"]}):
        kwargs = {"scale": True, "fused": True, "variables_collections": collections}
        yield {"kwargs": kwargs | {"outputs_collections": "outs", "scope": "top/bn"}, "shape": RANKS[4]}


CASES = [
    {"name": str(number), "function": "contrib", "steps": 2} | case for number, case in enumerate(grid())
]


def run_elsewhere(which, cases, folder):
    """The cases' results from a process of its own, with v2 behaviour off."""
    (folder / "cases.json").write_text(json.dumps(cases))
    script = Path(tf1_programs.__file__)
    arguments = [sys.executable, str(script), which, str(folder / "cases.json"), str(folder / which)]
    subprocess.run(arguments, check=True, cwd=folder, env=None)
    return dict(np.load(folder / f"{which}.npz"))


def assert_same(got, want, case):
    """Outputs, gradients, losses, variables, collections and inference of one case."""
    facts, expected = (json.loads(str(one[f"{case['name']}/facts"])) for one in (got, want))
    assert "error" not in facts, facts
    assert "error" not in expected, expected
    names = {name: (dtype, shape) for name, dtype, shape in facts["variables"]}
    # The last release doubled the path of these two (tensorflow's moving_averages).
    doubled = "BatchNorm/BatchNorm/moving_mean/"
    assert names == {
        name.replace(doubled, "BatchNorm/moving_mean/"): (dtype, shape)
        for name, dtype, shape in expected["variables"]
    }
    for key, members in expected["collections"].items():
        if key not in ("cond_context", "while_context"):
            members = [name.replace(doubled, "BatchNorm/moving_mean/") for name in members]
            if key == "update_ops" or "AssignMovingAvg" in str(members):
                assert len(facts["collections"].get(key, [])) == len(members), key
            else:
                assert sorted(facts["collections"][key]) == sorted(members), key
    tolerance = {"float16": 2e-3, "float64": 1e-10}.get(case.get("dtype"), 2e-5)
    prefix = f"{case['name']}/"
    compared = 0
    for key, value in want.items():
        if key.startswith(prefix) and not key.endswith(("/facts", "/loss_weights")):
            ours = got[key.replace(doubled, "BatchNorm/moving_mean/")]
            scale = max(1.0, np.abs(value.astype("float64")).max(initial=0))
            np.testing.assert_allclose(ours, value, rtol=0, atol=tolerance * scale, err_msg=key)
            compared += 1
    assert compared > 3


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    return run_elsewhere("original", CASES, tmp_path_factory.mktemp("original"))


def test_a_grid_of_programs_equals_the_original_with_v2_behaviour_off(original, tmp_path):
    ours = run_elsewhere("ours", CASES, tmp_path)
    for case in CASES:
        assert_same(ours, original, case)


def test_a_grid_of_programs_equals_the_original_with_v2_behaviour_on(original):
    ours = tf1_programs.run_all(tf1_programs.ours(), CASES)
    for case in CASES:
        assert_same(ours, original, case)
