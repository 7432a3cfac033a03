"""What the rest of a frozen graph sees of folding: names, other readers, loops, what waits."""

import numpy as np
import pytest
import tensorflow as tf

import tfbn
from frozen_graphs import BATCH_NORMS, Parts, check, check_graph, frozen, kinds, run
from tfbn.folding.graphdef import fold_graph

pytestmark = pytest.mark.both
raw, tf1 = tf.raw_ops, tf.compat.v1
C = 4
IMAGE = (6, 5, C)
X = Parts("float64").data(3, *IMAGE)


def graph_of(function, *shape, dtype="float64"):
    """A function of one placeholder `x` in a graph of TensorFlow 1, which nothing inlines or prunes."""
    graph = tf.Graph()
    with graph.as_default():
        outputs = tf.nest.flatten(function(tf1.placeholder(dtype, (None, *(shape or IMAGE)), "x")))
    return graph.as_graph_def(), ["x:0"], [tensor.name for tensor in outputs]


def test_outputs_that_are_batch_norms_keep_their_names():
    parts = Parts("float64")
    graph = graph_of(lambda x: parts.batch_norm(parts.linear(x)))
    new, _ = check_graph(*graph, [X], folded=1, into=["BiasAdd"])
    assert kinds(new)[graph[2][0].split(":")[0]] == "Identity"


def test_a_bias_is_added_under_the_name_of_the_convolution():
    parts = Parts("float64")

    def function(x):
        linear = tf.nn.conv2d(x, parts.normal(3, 3, C, C), 1, "VALID", name="conv")
        normal = parts.batch_norm(linear)
        with tf.control_dependencies([linear]):
            return tf.identity(normal)

    new, _ = check_graph(*graph_of(function), [X], folded=1, into=["conv"])
    assert kinds(new)["conv"] == "BiasAdd"
    assert kinds(new)["conv/linear"] == "Conv2D"
    # What was there under the names of new nodes stays.
    taken = graph_of(lambda x: (function(x), tf.identity(tf.reduce_max(x) + 1, name="conv/linear")))
    new, _ = check_graph(*taken, [X], folded=1)
    assert kinds(new)["conv/linear"] == "Identity"


def test_what_only_carries_a_gradient():
    """An IdentityN of the result and of what the gradient is of, as of swish and of our own layer."""
    layer = tfbn.BatchNorm()
    layer.build((None, *IMAGE))
    kernel = tf.constant(Parts("float32").normal(3, 3, C, C))

    def network(x):
        for _ in range(2):
            x = tf.nn.silu(layer(tf.nn.conv2d(x, kernel, 1, "SAME"), training=False))
        return x, tf.nn.conv2d(x, kernel, 1, "SAME")

    graph = frozen(network, tf.TensorSpec((None, *IMAGE)))
    assert "IdentityN" in kinds(graph[0]).values()
    new, _ = check_graph(*graph, [X.astype("float32")], folded=2, into=["Conv2D", "Conv2D_1"])
    assert not BATCH_NORMS & set(kinds(new).values())


def test_a_gradient_that_waits_stays():
    parts = Parts("float64")

    def function(x):
        made = parts.batch_norm(parts.linear(x))
        with tf.control_dependencies([tf.tanh(x)]):
            first, _ = raw.IdentityN(input=[made, x])
        return tf.tanh(first)

    new, _ = check_graph(*graph_of(function), [X], folded=1)
    assert "IdentityN" in kinds(new).values()


def test_several_outputs_and_tensors_read_by_two():
    parts = Parts("float64")

    def function(x):
        linear = parts.linear(x)
        first, second = parts.batch_norm(linear), parts.batch_norm(parts.linear(x))
        third = parts.batch_norm(parts.linear(tf.tanh(second)))
        return linear, tf.tanh(first), second, tf.tanh(second), tf.tanh(third), tf.sigmoid(third)

    check_graph(*graph_of(function), [X], folded=2, reason="is used by more than this batch norm")


def test_what_somebody_reads_inside_of_a_unit_stays_as_it_was():
    """Between a convolution and its bias, and between the parts of a batch norm; fetched, or read."""
    parts = Parts("float64")

    def function(x):
        first = tf.nn.conv2d(x, parts.normal(1, 1, C, C), 1, "SAME")
        second = tf.nn.conv2d(x, parts.normal(1, 1, C, C), 1, "SAME")
        biased = [tf.nn.bias_add(it, parts.normal(C)) for it in (first, second)]
        products = [parts.linear(x) * parts.scale(C) for _ in range(2)]
        sums = [product + parts.normal(C) for product in products]
        read = [tf.sigmoid(second), tf.sigmoid(products[1])]
        return (
            first,
            products[0],
            *read,
            *map(tf.tanh, map(parts.batch_norm, biased)),
            *map(tf.tanh, sums),
        )

    check_graph(*graph_of(function), [X], folded=0, reason="is used by more than this batch norm")


def test_statistics_that_somebody_fetches():
    parts = Parts("float32")

    def function(x):
        normal = parts.fused(parts.linear(x), whole=True)
        return tf.tanh(normal.y), normal.batch_mean

    new, _ = check_graph(*graph_of(function, dtype="float32"), [X.astype("float32")], folded=0)
    assert BATCH_NORMS & set(kinds(new).values())


def test_two_that_compute_the_same_go_together():
    parts = Parts("float64")
    scale, offset = parts.scale(C), parts.normal(C)
    scale, offset = tf.make_ndarray(tf.make_tensor_proto(scale)), offset.numpy()

    def function(x):
        linear = parts.linear(x)
        return [tf.tanh(linear * scale + offset), tf.sigmoid(linear * scale + offset)]

    check_graph(*graph_of(function), [X], folded=2)


def test_one_kernel_read_by_two_convolutions():
    parts = Parts("float64")

    def function(x):
        kernel = parts.normal(1, 1, C, C)
        y = tf.nn.conv2d(x, kernel, 1, "SAME")
        z = parts.batch_norm(tf.nn.conv2d(tf.tanh(y), kernel, 1, "SAME"))
        return tf.tanh(z), tf.identity(kernel)

    check_graph(*graph_of(function), [X], folded=1)


def test_batch_norms_in_loops_stay():
    parts = Parts("float64")
    tf1.disable_control_flow_v2()
    try:

        def function(x):
            step = lambda i, y: (i + 1, tf.tanh(parts.batch_norm(parts.linear(y))))  # noqa: E731
            _, y = tf.while_loop(lambda i, y: i < 3, step, [0, parts.batch_norm(parts.linear(x))])
            return parts.batch_norm(parts.linear(tf.reshape(y, (-1, *IMAGE))))

        graph = graph_of(function)
    finally:
        tf1.enable_control_flow_v2()
    assert {"Enter", "Exit", "NextIteration"} <= set(kinds(graph[0]).values())
    check_graph(*graph, [X], folded=2, reason="is inside a loop")


def test_functional_loops_and_conditionals_stay():
    parts = Parts("float64")

    def function(x):
        normal = lambda y: parts.batch_norm(parts.linear(y))  # noqa: E731
        y = tf.while_loop(lambda i, y: i < 3, lambda i, y: (i + 1, tf.tanh(normal(y))), [0, normal(x)])[
            1
        ]
        return tf.cond(tf.reduce_sum(x) > 1e9, lambda: normal(y), lambda: normal(2 * normal(y)))

    new, _ = check(function, X, folded=1)
    assert {"StatelessWhile", "StatelessIf"} <= set(kinds(new).values())


def test_fused_ones_in_functional_loops_and_conditionals_are_named():
    parts = Parts("float32")

    def function(x):
        normal = lambda y: parts.fused(parts.linear(y))  # noqa: E731
        nested = lambda y: tf.cond(tf.reduce_sum(y) > 1e9, lambda: normal(y), lambda: 2 * y)  # noqa: E731
        step = lambda i, y: (i + 1, tf.tanh(normal(nested(y))))  # noqa: E731
        return tf.while_loop(lambda i, y: i < 3, step, [0, normal(x)])[1]

    images = parts.data(2, *IMAGE)
    _, report = check(function, images, folded=1, reason="a loop or conditional, which stays as it is")
    inside = [entry for entry in report.kept if "(StatelessWhile)" in entry.reason]
    assert len(inside) == len(report.kept) == 2
    assert {entry.kind for entry in inside} == {"FusedBatchNormV3"}
    assert all(entry.path.startswith("while/") for entry in inside)


@pytest.mark.parametrize("kind", ["fused", "chain"])
@pytest.mark.parametrize("merged", [False, True])
def test_what_a_batch_norm_waits_for_still_comes_first(kind, merged):
    """An assertion in front of it, and one behind it."""
    parts = Parts("float32")
    x = X.astype("float32")

    def function(x):
        y = parts.fused(x) if merged else parts.linear(x)
        with tf.control_dependencies([tf1.assert_less(x, np.float32(100), name="before")]):
            normal = parts.fused(y) if kind == "fused" else parts.batch_norm(y)
        with tf.control_dependencies([normal]):
            return tf.tanh(normal) if merged else tf.identity(normal)

    definition, inputs, outputs = graph_of(function, dtype="float32")
    new, _ = check_graph(definition, inputs, outputs, [x], folded=1)
    with pytest.raises(tf.errors.InvalidArgumentError, match="before|assert"):
        run(new, inputs, outputs, [x + 100])


def test_the_first_part_of_a_chain_waits_too():
    parts = Parts("float64")

    def function(x):
        y = parts.linear(x)
        with tf.control_dependencies([tf1.assert_less(x, np.float64(100))]):
            y = y * parts.scale(C)
        return tf.tanh(y + parts.normal(C))

    definition, inputs, outputs = graph_of(function)
    new, _ = check_graph(definition, inputs, outputs, [X], folded=1)
    with pytest.raises(tf.errors.InvalidArgumentError):
        run(new, inputs, outputs, [X + 100])


@pytest.mark.parametrize("statistic", ["mean", "variance", "scale", "offset"])
@pytest.mark.parametrize("bad", [np.nan, np.inf, -1.0, -0.01])
def test_statistics_that_are_no_numbers(statistic, bad):
    """What comes out is the same, not numbers included; -0.01 takes the epsilon away."""
    parts = Parts("float32")
    values = {name: np.full(C, 0.5, "float32") for name in ("mean", "variance", "scale", "offset")}
    values[statistic][1] = bad

    def function(x):
        normal = raw.FusedBatchNormV3(x=parts.linear(x), **values, epsilon=0.01, is_training=False)
        return tf.tanh(normal.y)

    graph = graph_of(function, dtype="float32")
    new, report = fold_graph(*graph)
    assert len(report.entries) == 1
    x = X.astype("float32")
    wanted, got = (run(definition, *graph[1:], [x]) for definition in (graph[0], new))
    np.testing.assert_allclose(got, wanted, rtol=1e-5, atol=1e-6)
    finite = bad == np.inf if statistic == "variance" else np.isfinite(bad)  # a scale of 0
    assert len(report.folded) == finite, str(report)


@pytest.mark.parametrize("bad", [np.nan, np.inf, 0.0])
def test_chains_of_what_is_no_number(bad):
    parts = Parts("float64")
    values = np.array([1.0, bad, 2.0, 3.0])
    for chain in (
        lambda x: x * values + parts.normal(C),
        lambda x: x * parts.scale(C) + values,
        lambda x: (x - parts.normal(C)) / values + parts.normal(C),
        lambda x: (x - values) * np.float64([0, 0, 1, 2]),
    ):
        graph = graph_of(lambda x, chain=chain: tf.tanh(chain(parts.linear(x))))
        new, report = fold_graph(*graph)
        assert len(report.entries) == 1
        wanted, got = (run(definition, *graph[1:], [X]) for definition in (graph[0], new))
        np.testing.assert_allclose(got, wanted, rtol=1e-11, atol=1e-11)


def test_negative_gammas_stay_before_a_relu():
    parts = Parts("float64")
    check(lambda x: parts.linear(tf.nn.relu(parts.batch_norm(x))), X, folded=0, reason="offset")
    other = Parts("float64", positive=True, offset=False)
    check(lambda x: other.linear(tf.nn.relu(other.batch_norm(x))), X, folded=1)
    third = Parts("float64", offset=False)
    check(lambda x: third.linear(tf.nn.relu(third.batch_norm(x))), X, folded=0, reason="negative scale")


def test_batch_norms_that_have_only_each_other_merge():
    parts = Parts("float32")

    def function(x):
        return tf.tanh(parts.fused(tf.identity(parts.fused(tf.identity(parts.batch_norm(x))))))

    new, _ = check(function, X.astype("float32"), folded=2)
    assert sum(op in (*BATCH_NORMS, "Mul") for op in kinds(new).values()) == 1


def test_a_chain_takes_a_fused_one_up():
    parts = Parts("float32")
    function = lambda x: tf.tanh(parts.batch_norm(tf.identity(parts.fused(x))))  # noqa: E731
    check(function, X.astype("float32"), folded=1)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_short_types(dtype):
    """Rounded once: as near to the exact result as before, or nearer."""
    parts = Parts("float32")

    def function(x):
        x = tf.cast(x, dtype)
        kernel = tf.cast(parts.normal(3, 3, C, C), dtype)
        y = tf.nn.conv2d(x, kernel, 1, "VALID")
        y = tf.nn.bias_add(y, tf.cast(parts.normal(C), dtype))
        return tf.cast(tf.tanh(parts.fused(y)), "float32")

    graph = graph_of(function, dtype="float32")
    new, report = fold_graph(*graph)
    assert len(report.folded) == 1
    x = X.astype("float32")
    wanted, got = (run(definition, *graph[1:], [x])[0] for definition in (graph[0], new))
    assert np.abs(wanted - got).max() < {"float16": 1e-2, "bfloat16": 1e-1}[dtype]


def test_tensors_of_unknown_rank():
    def function(x):
        parts = Parts("float64")
        y = parts.linear(x)
        y = tf1.placeholder_with_default(y, None)
        return tf.tanh(parts.batch_norm(tf.identity(y)) if y.shape.rank else y * 2.0 + [1.0, 2, 3, 4])

    check_graph(*graph_of(function), [X], folded=0)


def test_what_is_fed_is_no_constant():
    """A placeholder with a default that somebody feeds."""
    parts = Parts("float64")

    def function(x):
        scale = tf1.placeholder_with_default(np.arange(1.0, 5), (C,), "scale")
        return tf.tanh(parts.linear(x) * scale + parts.normal(C))

    definition, _, outputs = graph_of(function)
    check_graph(definition, ["x:0"], outputs, [X], folded=1)
    check_graph(definition, ["x:0", "scale:0"], outputs, [X, np.arange(4.0, 0, -1)], folded=0)
