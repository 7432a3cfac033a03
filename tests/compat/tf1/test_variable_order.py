"""The order in which contrib's batch norm makes variables: what reads weights by position needs it."""

import json
from itertools import product

import pytest
import tensorflow as tf

import tf1_programs
from sweeps import covering
from tfbn import compat

tf1 = tf.compat.v1

RANKS = {2: (8, 3), 3: (8, 5, 3), 4: (4, 5, 6, 3), 5: (4, 2, 3, 5, 3)}
INITIALIZERS = {"param_initializers": {"gamma": ["constant", 1.5], "moving_mean": ["constant", 2.0]}}
REGULARIZERS = {"param_regularizers": {"beta": ["l2", 0.1], "gamma": ["l2", 0.2]}}
# What decides between the paths of the original: the layer of tf.layers, and two older codes.
SPECIAL = [
    {},
    {"updates_collections": None},
    {"updates_collections": "custom"},
    {"zero_debias_moving_mean": True},
    {"zero_debias_moving_mean": True, "updates_collections": None},
    {"adjustment": "double"},
    {"renorm": True},
]
FUSED = [{}, {"fused": True}, {"fused": False}]
OTHERS = [
    {"center": False},
    {"scale": False},
    {"center": False, "scale": False},
    {"trainable": False},
    INITIALIZERS,
    {"variables_collections": ["mine"]},
    {"variables_collections": {"beta": ["b"], "gamma": ["b", "c"], "moving_mean": ["means"]}},
    {"variables_collections": ["moving_average_variables"]},
    {"scope": "top/bn"},
]


def grid():
    for case in cases():
        yield case | {"kwargs": {"scale": True} | case["kwargs"]}


def cases():
    for shape, special, fused in product(RANKS.values(), SPECIAL, FUSED):
        yield {"shape": shape, "kwargs": special | fused}
    for shape, fused in product(RANKS.values(), FUSED):
        yield {"shape": shape, "kwargs": fused, "batch_weights": True}
    for rank, special in product((2, 4), SPECIAL):
        for other in OTHERS:
            yield {"shape": RANKS[rank], "kwargs": special | other}
        for training in (False, "tensor"):
            yield {"shape": RANKS[rank], "kwargs": special, "training": training}
    for rank, other in product((2, 4), (REGULARIZERS, {"data_format": "NCHW"})):
        yield {"shape": RANKS[rank], "kwargs": other}
    yield {"shape": (4, 5, 6, 4), "kwargs": {}, "partitions": 2}


CASES = [
    {"name": str(number), "function": "last", "steps": None} | case for number, case in enumerate(grid())
]


def in_order(results, case):
    """What has an order, of the first call and of a second that reuses its variables."""
    facts = json.loads(str(results[f"{case['name']}/facts"]))
    assert "error" not in facts, (case, facts)
    found = {"variables": facts["variables"], "with_slots": facts["with_slots"]}
    for call in (facts, facts["reused"]):
        for key, members in call["collections"].items():
            if "context" not in key and key not in ("update_ops", "custom"):  # operations' names differ
                found[key, call is facts] = members
    return found


@pytest.mark.parametrize("cases", [covering(5, CASES), pytest.param(CASES, marks=pytest.mark.sweep)])
def test_variables_slots_and_collections_are_in_the_original_s_order(cases, tmp_path):
    original = tf1_programs.run_elsewhere("original", cases, tmp_path)
    ours = tf1_programs.run_all(tf1_programs.ours(), cases)
    wrong = [case for case in cases if in_order(ours, case) != in_order(original, case)]
    assert not wrong


def test_the_first_releases_made_beta_first():
    with tf.Graph().as_default():
        compat.batch_norm(tf1.placeholder("float32", (8, 4, 4, 3)), scale=True)
        names = [variable.op.name for variable in tf1.trainable_variables()]
    assert names == ["BatchNorm/beta", "BatchNorm/gamma"]


@pytest.mark.parametrize("function", [compat.batch_norm, compat.tf1.contrib.layers.batch_norm])
def test_in_a_layer_the_order_is_that_of_files_saved_before(function):
    """Optimizers' slots, whole models in HDF5 and `set_weights` know weights by position."""

    def code(x, is_training):
        return function(x, scale=True, is_training=is_training, scope="bn")

    layer = compat.VariableScopeLayer(code)
    layer(tf.zeros((2, 4, 4, 3)))
    names = [f"bn/{name}" for name in ("beta", "gamma", "moving_mean", "moving_variance")]
    assert [*layer.variables_by_name] == names
