"""TF1 programs around contrib's and tf.layers' batch norm, run with the original or with ours.

    python tf1_programs.py original|ours CASES.json OUT.npz

The original needs tf-slim 1.1.0, tf-keras and v2 behaviour off: a process of its own.
A case: name, function ("contrib"; "last", contrib's last releases; "layers"), shape; if wanted kwargs,
dtype, seed, steps (null: only built), learning_rate, training (bool, null, "tensor", "variable"),
static_shape (null: unknown), batch_weights, partitions.
`<name>/facts` is JSON: ops, variables, collections, "reused" of the second call, "with_slots" of what is
built only; or error, message.
Beside it: loss_weights, {x,batch_weights,output,loss,grad/<of>}/<step>; after the steps variable/<name>,
inference (reused, x/0); then, the tensor or variable turned False, switched and switched/<variable>.
"""

import os
import sys

if __name__ == "__main__" and sys.argv[1] == "original":
    # Before TensorFlow is imported: tf.layers lives on in tf_keras only.
    os.environ["TF_USE_LEGACY_KERAS"] = "1"

import importlib
import json
import subprocess
from pathlib import Path

import numpy as np
import tensorflow as tf

v1 = tf.compat.v1


def original():
    """Give contrib's function as tf_slim 1.1.0 has it, and that of tf.layers."""
    from tensorflow.python.framework import ops  # noqa: PLC0415
    from tensorflow.python.ops import control_flow_ops  # noqa: PLC0415

    # TensorFlow looks for tf.layers where tf_keras no longer has it, tf_slim for two names that moved.
    for suffix in ("", ".base", ".convolutional", ".core", ".normalization", ".pooling"):
        moved = importlib.import_module(f"tf_keras.src.legacy_tf_layers{suffix}")
        sys.modules[f"tf_keras.legacy_tf_layers{suffix}"] = moved
    ops.Tensor = tf.Tensor
    control_flow_ops.cond = tf.cond
    import tf_slim  # noqa: PLC0415

    functions = {"layers": v1.layers.batch_normalization}
    return functions | dict.fromkeys(("contrib", "last"), tf_slim.batch_norm)


def ours():
    from tfbn import compat  # noqa: PLC0415

    functions = {"contrib": compat.batch_norm, "layers": compat.batch_normalization}
    return functions | {"last": compat.tf1.contrib.layers.batch_norm}


DEFAULTS = {
    "kwargs": {},
    "dtype": "float32",
    "seed": 0,
    "steps": 1,
    "training": True,
    "learning_rate": 0,
}
WORDS = {
    "relu": tf.nn.relu,
    "double": lambda shape: (2.0 * tf.ones(shape[-1:]), 0.5 * tf.ones(shape[-1:])),  # an adjustment
    "constant": v1.constant_initializer,
    "l2": lambda factor: lambda variable: factor * tf.reduce_sum(tf.square(variable)),
}


def decode(value):
    """JSON to arguments: "relu" and "double", ["constant", 1.5] and ["l2", 0.1] are functions."""
    if isinstance(value, dict):
        return {key: decode(item) for key, item in value.items()}
    if isinstance(value, list) and value and str(value[0]) in WORDS:
        return WORDS[value[0]](value[1])
    return WORDS.get(value, value) if isinstance(value, str) else value


def batch(case, step):
    """Mean and deviation differ by channel and by step: a wrong axis or a lost update shows."""
    rng, shape = np.random.default_rng([case["seed"], step]), case["shape"]
    axis = case["kwargs"].get("axis", 1 if case["kwargs"].get("data_format") == "NCHW" else -1)
    kept = np.ones_like(shape)
    np.put(kept, axis, np.take(shape, axis, mode="wrap"), mode="wrap")
    offset = np.linspace(-2.0, 3.0, int(np.prod(kept))).reshape(kept)
    return (rng.normal(size=shape) * (1 + np.abs(offset)) + offset + 0.3 * step).astype(case["dtype"])


def describe(known=0):
    """Say what the default graph holds, without its first `known` operations."""
    graph, collections = v1.get_default_graph(), {}
    for key in graph.get_all_collection_keys():
        collections[str(key)] = [getattr(item, "name", str(item)) for item in graph.get_collection(key)]
    variables = [[v.op.name, v.dtype.base_dtype.name, v.shape.as_list()] for v in v1.global_variables()]
    operations = [[op.name, op.type] for op in graph.get_operations()[known:]]
    return {"ops": operations, "variables": variables, "collections": collections}


def call(functions, case, inputs, training, **more):
    contrib = case["function"] != "layers"
    kwargs = decode(case["kwargs"]) | more
    if training is not None:
        kwargs["is_training" if contrib else "training"] = training
    if "reuse" in more:
        kwargs.setdefault(*(("scope", "BatchNorm") if contrib else ("name", "batch_normalization")))
    return functions[case["function"]](inputs, **kwargs)


def built(functions, case, inputs, output, weights):
    """What a second call and an optimizer make: facts."""
    known = len(v1.get_default_graph().get_operations())
    call(functions, case, inputs, False, reuse=True, **weights)
    reused = describe(known)
    if v1.trainable_variables():
        v1.train.MomentumOptimizer(0.1, 0.9).minimize(output)
    return {"reused": reused, "with_slots": [v.op.name for v in v1.global_variables()]}


def run(functions, case):
    """Build the case in the default graph and run it: facts, arrays."""
    rng, feed, switch, weights = np.random.default_rng([case["seed"], 10**6]), {}, [], {}
    found = {"loss_weights": rng.normal(size=case["shape"]).astype(case["dtype"])}
    inputs = v1.placeholder(case["dtype"], case.get("static_shape", case["shape"]), name="inputs")
    training = case["training"]
    if training == "tensor":
        training = v1.placeholder(tf.bool, [], name="training")
        feed[training] = True
    elif training == "variable":
        training = tf.Variable(True, trainable=False, name="training")
        switch = training.assign(False)
    if case.get("batch_weights"):
        weights = {"batch_weights": v1.placeholder(case["dtype"], case["shape"][:1], name="weights")}
    output = call(functions, case, inputs, training, **weights)
    facts = describe()
    if case["steps"] is None:
        return facts | built(functions, case, inputs, output, weights), {}
    losses = [tf.reduce_sum(output * found["loss_weights"])]
    losses += [tf.cast(term, output.dtype) for term in v1.losses.get_regularization_losses()]
    of = {v.op.name.split("/", 1)[-1]: v for v in v1.trainable_variables()} | {"inputs": inputs}
    gradients = zip(of, tf.gradients(losses, list(of.values())), strict=True)
    fetches = {f"grad/{key}": value for key, value in gradients if value is not None}
    fetches |= {"output": output, "loss": tf.add_n(losses)}
    # Updates and descent run after the fetches, on fetched gradients: no run reads what it writes.
    names = case["kwargs"].get("updates_collections", v1.GraphKeys.UPDATE_OPS) or []
    updates = [v1.get_collection(name) for name in ([names] if isinstance(names, str) else names)]
    fed = {key: v1.placeholder(of[key].dtype.base_dtype) for key in of if f"grad/{key}" in fetches}
    descend = [of[key].assign_sub(case["learning_rate"] * fed[key]) for key in fed if key != "inputs"]
    known = len(v1.get_default_graph().get_operations())
    inference = call(functions, case, inputs, False, reuse=True, **weights)
    facts["reused"] = describe(known)
    variables = {v.op.name: v for v in v1.global_variables()}
    with v1.Session() as session:
        session.run(v1.global_variables_initializer())
        for step in range(case["steps"]):
            feed[inputs] = found[f"x/{step}"] = batch(case, step)
            for placeholder in weights.values():
                feed[placeholder] = found[f"batch_weights/{step}"] = rng.integers(
                    1, 5, case["shape"][:1]
                )
            results = session.run(fetches, feed)
            session.run(updates, feed)
            session.run(descend, {fed[key]: results[f"grad/{key}"] for key in fed})
            found |= {f"{key}/{step}": value for key, value in results.items()}
        found |= {f"variable/{key}": value for key, value in session.run(variables).items()}
        feed[inputs] = found["x/0"]
        found["inference"] = session.run(inference, feed)
        if case["training"] in {"tensor", "variable"}:
            session.run(switch)
            feed = {key: False if key is training else value for key, value in feed.items()}
            found["switched"], _ = session.run([output, updates], feed)
            found |= {f"switched/{key}": value for key, value in session.run(variables).items()}
    return facts, found


def run_all(functions, cases):
    """All cases, each in a graph of its own: `{case/what: array}`."""
    results = {}
    for case in cases:
        parts = v1.fixed_size_partitioner(case["partitions"]) if "partitions" in case else None
        try:
            with tf.Graph().as_default(), v1.variable_scope("", partitioner=parts):
                facts, found = run(functions, DEFAULTS | case)
        except Exception as error:  # what is refused is a fact, too
            facts, found = {"error": type(error).__name__, "message": str(error)}, {}
        results[f"{case['name']}/facts"] = json.dumps(facts)
        results |= {f"{case['name']}/{key}": value for key, value in found.items()}
    return results


def run_elsewhere(which, cases, folder):
    """The cases' results from a process of its own, with v2 behaviour off."""
    (folder / "cases.json").write_text(json.dumps(cases))
    arguments = [sys.executable, __file__, which, str(folder / "cases.json"), str(folder / which)]
    subprocess.run(arguments, check=True, cwd=folder)
    return dict(np.load(folder / f"{which}.npz"))


def assert_equal_to_the_original(cases, folder):
    """With v2 behaviour off, in a process of its own as the original, and on, in this one."""
    original, off = (run_elsewhere(which, cases, folder) for which in ("original", "ours"))
    on = run_all(ours(), cases)
    for case in cases:
        assert_same(off, original, case)
        assert_same(on, original, case)


def assert_same(got, want, case):
    """Outputs, gradients, losses, variables, collections and inference of one case."""
    prefix = f"{case['name']}/"
    facts, expected = (json.loads(str(found[f"{prefix}facts"])) for found in (got, want))
    assert "error" not in facts, (case, facts)
    assert "error" not in expected, (case, expected)

    assert sorted(facts["variables"]) == sorted(expected["variables"]), case
    for key, members in expected["collections"].items():
        ours = facts["collections"].get(key, [])
        if key in ("update_ops", "custom"):
            assert len(ours) == len(members), (case, key)
        elif "context" not in key:
            assert sorted(ours) == sorted(members), (case, key)
    # tf_slim rounds 1 − decay to float32, whatever the type.
    tolerance = {"float16": 2e-3, "float64": 1e-7}.get(case.get("dtype"), 2e-5)
    keys = [key for key in want if key.startswith(prefix) and not key.endswith(("facts", "weights"))]
    assert len(keys) > 3, case
    for key in keys:
        value = np.asarray(want[key], "float64")
        scale = max(1.0, np.abs(value).max(initial=0))
        ours = np.asarray(got[key], "float64")
        np.testing.assert_allclose(ours, value, rtol=0, atol=tolerance * scale, err_msg=f"{case} {key}")


def main(which, cases_path, out_path):
    v1.disable_v2_behavior()
    functions = original() if which == "original" else ours()
    np.savez(out_path, **run_all(functions, json.loads(Path(cases_path).read_text())))


if __name__ == "__main__":
    main(*sys.argv[1:])
