"""Conditionals in graphs whose condition is a constant."""

import numpy as np
import pytest
import tensorflow as tf

from tfbn.folding.graphdef import fold_graph, settle

v1 = tf.compat.v1


def graph_of(build):
    """A frozen graph, and the names of its placeholders."""
    with tf.Graph().as_default() as graph:
        build()
    return graph.as_graph_def()


def run(definition, fetch, **fed):
    with tf.Graph().as_default() as graph, v1.Session() as session:
        tf.graph_util.import_graph_def(definition, name="")
        return session.run(
            fetch, {graph.get_tensor_by_name(f"{name}:0"): it for name, it in fed.items()}
        )


@pytest.fixture(params=[True, False], ids=["functions", "switches"])
def control_flow(request):
    """Of TensorFlow 2, and of TensorFlow 1, whose graphs others have still."""
    before = v1.control_flow_v2_enabled()
    (v1.enable_control_flow_v2 if request.param else v1.disable_control_flow_v2)()
    yield request.param
    (v1.enable_control_flow_v2 if before else v1.disable_control_flow_v2)()


def batch_norm_of_either_kind(nested=False):
    x = v1.placeholder(tf.float64, [None, 4, 4, 3], name="x")
    training = v1.placeholder_with_default(False, [], name="is_training")
    rng = np.random.default_rng(0)
    y = tf.nn.conv2d(x, tf.constant(rng.normal(size=(3, 3, 3, 5))), 1, "SAME")
    own, other = (rng.uniform(0.5, 2, (4, 5)) for _ in range(2))

    def normalized(statistics):
        return tf.nn.batch_normalization(y, *map(tf.constant, statistics), 1e-3)

    def at_inference():
        if not nested:
            return normalized(own)
        return tf.cond(tf.logical_not(training), lambda: normalized(own), lambda: y - 1)

    tf.identity(tf.cond(training, lambda: normalized(other), at_inference), name="y")


@pytest.mark.parametrize("nested", [False, True])
def test_what_is_not_fed_is_its_default(control_flow, nested):
    definition = graph_of(lambda: batch_norm_of_either_kind(nested))
    x = np.random.default_rng(1).normal(size=(2, 4, 4, 3))
    want = run(definition, "y:0", x=x)
    found, calls = settle(definition, ["x:0"], ["y:0"])
    assert calls == control_flow
    kinds = {node.op for node in found.node}
    assert not kinds & {"Switch", "Merge", "If", "StatelessIf", "PlaceholderWithDefault"}
    np.testing.assert_allclose(run(found, "y:0", x=x), want, rtol=1e-12)
    if not calls:  # which are to be inlined
        folded, report = fold_graph(found, ["x:0"], ["y:0"])
        assert len(report.folded) == 1
        np.testing.assert_allclose(run(folded, "y:0", x=x), want, rtol=1e-11, atol=1e-12)


@pytest.mark.usefixtures("control_flow")
def test_what_is_fed_stays():
    definition = graph_of(batch_norm_of_either_kind)
    found, calls = settle(definition, ["x:0", "is_training:0"], ["y:0"])
    assert not calls
    x = np.random.default_rng(1).normal(size=(2, 4, 4, 3))
    for training in (False, True):
        fed = {"x": x, "is_training": training}
        got, want = (run(graph, "y:0", **fed) for graph in (found, definition))
        np.testing.assert_allclose(got, want, rtol=1e-12)


@pytest.mark.usefixtures("control_flow")
def test_loops_stay():
    def loop():
        x = v1.placeholder(tf.float64, [None, 3], name="x")
        taken = tf.cond(tf.constant(True), lambda: x + 1, lambda: x - 1)
        tf.identity(
            tf.while_loop(lambda y: tf.reduce_sum(y) < 100, lambda y: [2 * y], [taken]), name="y"
        )

    definition = graph_of(loop)
    x = np.ones((2, 3))
    np.testing.assert_array_equal(
        run(settle(definition, ["x:0"], ["y:0"])[0], "y:0", x=x), run(definition, "y:0", x=x)
    )


def test_what_waits_for_a_branch_that_never_runs_does_not_wait():
    v1.disable_control_flow_v2()
    try:

        def waiting():
            x = v1.placeholder(tf.float64, [None, 3], name="x")
            dead = []

            def never():
                dead.append(x * 3)
                return dead[0]

            y = tf.cond(tf.constant(False), never, lambda: x + 1)
            tf.identity(y, name="y")

        definition = graph_of(waiting)
    finally:
        v1.enable_control_flow_v2()
    found, _ = settle(definition, ["x:0"], ["y:0"])
    assert len(found.node) < len(definition.node)
    np.testing.assert_array_equal(run(found, "y:0", x=np.ones((1, 3))), 2 * np.ones((1, 3)))
