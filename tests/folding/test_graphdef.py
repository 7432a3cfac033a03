"""Frozen graphs folded: what takes batch norms up, what a batch norm is, and what stays as it is."""

import numpy as np
import pytest
import tensorflow as tf

from frozen_graphs import BATCH_NORMS, Parts, check, check_graph, frozen, kinds
from tfbn.folding.graphdef import fold_graph

raw, nn = tf.raw_ops, tf.nn
C = 4
IMAGE = (6, 5, C)
DTYPES = ["float64", "float32"]
EXPLICIT = [[0, 0], [1, 2], [0, 1], [0, 0]]


def conv2d(size=3, channels=6, given=C, **arguments):
    arguments = {"strides": 1, "padding": "VALID"} | arguments
    return lambda parts, x: nn.conv2d(x, parts.normal(size, size, given, channels), **arguments)


def conv3d(parts, x):
    return nn.conv3d(x, parts.normal(1, 2, 2, C, 6), strides=[1] * 5, padding="VALID")


def depthwise(parts, x):
    return nn.depthwise_conv2d(x, parts.normal(3, 3, C, 2), [1] * 4, "VALID")


def transposed(parts, x):
    shape = [tf.shape(x)[0], 13, 11, 6]
    return nn.conv2d_transpose(x, parts.normal(3, 3, 6, C), shape, 2, "VALID")


def product(turned=False):
    def multiply(parts, x):
        kernel = parts.normal(6, C) if turned else parts.normal(C, 6)
        return raw.MatMul(a=x, b=kernel, transpose_b=turned)

    return multiply


def batched(turned=False):
    def multiply(parts, x):
        kernel = parts.normal(6, C) if turned else parts.normal(C, 6)
        return raw.BatchMatMulV2(x=x, y=kernel, adj_y=turned)

    return multiply


def einsum(equation):
    def multiply(parts, x):
        kernel = parts.normal(6, C) if equation.split(",")[1][:2] in ("oi", "dc") else parts.normal(C, 6)
        return raw.Einsum(inputs=[x, kernel], equation=equation)

    return multiply


# What it computes, the shape of a sample, whether the offset of its input can be taken up.
LINEAR = {
    "Conv2D": (conv2d(), IMAGE, True),
    "1x1": (conv2d(1, padding="SAME", strides=2), IMAGE, True),
    "grouped": (conv2d(given=2), IMAGE, True),
    "dilated": (conv2d(2, dilations=2), IMAGE, True),
    "SAME": (conv2d(padding="SAME"), IMAGE, False),
    "EXPLICIT": (conv2d(padding=EXPLICIT), IMAGE, False),
    "EXPLICIT, none": (conv2d(padding=[[0, 0]] * 4), IMAGE, True),
    "Conv3D": (conv3d, (2, *IMAGE), True),
    "depthwise": (depthwise, IMAGE, True),
    "transposed": (transposed, IMAGE, False),
    "MatMul": (product(), (C,), True),
    "MatMul, turned": (product(True), (C,), True),
    "BatchMatMulV2": (batched(), (5, C), True),
    "BatchMatMulV2, turned": (batched(True), (3, 5, C), True),
    "Einsum": (einsum("...i,io->...o"), (5, C), True),
    "Einsum, turned": (einsum("abc,dc->abd"), (5, C), True),
}
BIASES = {
    "no bias": lambda parts, x: x,
    "BiasAdd": lambda parts, x: nn.bias_add(x, parts.normal(x.shape[-1])),
    "AddV2": lambda parts, x: raw.AddV2(x=x, y=parts.normal(x.shape[-1])),
    "AddV2, first": lambda parts, x: raw.AddV2(x=parts.normal(*[1] * (len(x.shape) - 1), 6), y=x),
}
CASES = [
    (name, bias) for name in LINEAR for bias in BIASES if (name, bias) != ("depthwise", "AddV2, first")
]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("name", "bias"), CASES)
def test_what_a_linear_operation_makes_is_normalized(name, bias, dtype):
    linear, shape, _ = LINEAR[name]
    parts = Parts(dtype)

    def function(x):
        return tf.tanh(parts.batch_norm(BIASES[bias](parts, linear(parts, x))))

    new, report = check(function, parts.data(3, *shape), folded=1)
    (entry,) = report.folded
    assert kinds(new)["Tanh"] == "Tanh"
    added = [op for op in kinds(new).values() if op in ("BiasAdd", "AddV2")]
    assert added == ["AddV2" if bias.startswith("AddV2") else "BiasAdd"]
    assert "Mul" not in kinds(new).values()
    assert entry.kind == "Mul+AddV2"


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("name", "bias"), CASES)
def test_what_a_linear_operation_takes_is_normalized(name, bias, dtype):
    linear, shape, offsets = LINEAR[name]
    for has_offset in (True, False):
        parts = Parts(dtype, offset=has_offset)

        def function(x, parts=parts):
            normal = tf.identity(parts.batch_norm(x))
            return BIASES[bias](parts, linear(parts, normal))

        folded = int(offsets or not has_offset)
        new, report = check(function, parts.data(3, *shape), folded=folded)
        if not folded:
            assert "it can take up a scale but no offset" in str(report)
        elif has_offset or bias != "no bias":
            assert {"BiasAdd", "AddV2"} & set(kinds(new).values())
        else:
            assert not {"BiasAdd", "AddV2"} & set(kinds(new).values())


def fused(definition):
    """The graph with convolution, bias and perhaps Relu as the one node that Grappler makes of them."""
    new = tf.compat.v1.GraphDef(versions=definition.versions)
    new.CopyFrom(definition)
    nodes = {node.name: node for node in new.node}
    bias = next(node for node in new.node if node.op == "BiasAdd")
    relu = next((node for node in new.node if node.op == "Relu"), None)
    last, conv = relu or bias, nodes[bias.input[0]]
    inputs, name = [*conv.input, bias.input[1]], last.name
    last.CopyFrom(conv)
    last.name, last.op = name, "_FusedConv2D"
    last.input[:] = inputs
    last.attr["num_args"].i = 1
    last.attr["TArgs"].list.type.append(last.attr["T"].type)
    last.attr["fused_ops"].list.s.extend([b"BiasAdd", b"Relu"] if relu else [b"BiasAdd"])
    return new


@pytest.mark.parametrize("relu", [False, True])
def test_fused_convolutions_take_batch_norms_up(relu):
    data = Parts("float32").data(3, *IMAGE)

    def linear(parts, x, bias=None):
        x = nn.conv2d(x, parts.normal(3, 3, C, 6), 1, "VALID")
        x = raw.BiasAdd(value=x, bias=parts.normal(6) if bias is None else bias)
        return tf.nn.relu(x) if relu else x

    def fold(function, **expected):
        definition, inputs, outputs = frozen(function, tf.TensorSpec((None, *IMAGE), "float32"))
        return check_graph(fused(definition), inputs, outputs, [data], **expected)

    parts = Parts("float32", positive=True, offset=not relu)
    fold(lambda x: tf.tanh(parts.batch_norm(linear(parts, x))), folded=1)
    fold(lambda x: tf.identity(linear(parts, tf.identity(parts.batch_norm(x)))), folded=1)
    reason = "a negative scale does not pass" if relu else None
    other = Parts("float32", offset=False)
    fold(lambda x: tf.tanh(other.batch_norm(linear(other, x))), folded=int(not relu), reason=reason)
    moving = lambda x: tf.reduce_mean(x) + parts.normal(6)  # noqa: E731
    fold(lambda x: tf.tanh(parts.batch_norm(linear(parts, x, moving(x)))), folded=0)


@pytest.mark.parametrize("kind", sorted(BATCH_NORMS))
@pytest.mark.parametrize("backwards", [True, False], ids=["backwards", "forwards"])
def test_fused_batch_norms(kind, backwards):
    parts = Parts("float32")

    def function(x):
        if backwards:
            return tf.tanh(parts.fused(parts.linear(x), kind))
        return parts.linear(parts.fused(x, kind))

    new, report = check(function, parts.data(3, *IMAGE), folded=1)
    assert report.folded[0].kind == kind
    assert not BATCH_NORMS & set(kinds(new).values())


def test_channels_first_by_structure():
    """The CPU runs them with some builds only."""
    parts = Parts("float32")

    def linear(x, bias):
        x = nn.conv2d(x, parts.normal(1, 1, C, C), 1, "VALID", data_format="NCHW")
        if bias == "BiasAdd":
            return nn.bias_add(x, parts.normal(C), "NC..")
        return x + parts.normal(C, 1, 1) if bias == "AddV2" else x

    def normal(x):
        return parts.fused(x, data_format="NCHW")

    for bias in (None, "BiasAdd", "AddV2"):

        def function(x, bias=bias):
            pooled = raw.MaxPool(
                input=linear(normal(x), bias),
                ksize=[1, 1, 2, 2],
                strides=[1] * 4,
                padding="SAME",
                data_format="NCHW",
            )
            return tf.tanh(normal(linear(tf.identity(pooled), bias)))

        x = parts.data(3, C, 6, 5)
        definition, inputs, outputs = frozen(function, tf.TensorSpec(x.shape, "float32"))
        new, report = fold_graph(definition, inputs, outputs)
        assert len(report.folded) == 2, str(report)
        wanted, got = (by_xla(graph, inputs, outputs, x) for graph in (definition, new))
        np.testing.assert_allclose(got, wanted, rtol=1e-5, atol=1e-5)


def by_xla(definition, inputs, outputs, x):
    """Of a graph with one input and one output; XLA has every layout."""

    def compute(x):
        graph = tf.graph_util.import_graph_def(definition, {inputs[0]: x}, outputs, name="")
        return tf.identity(graph[0])

    # In a graph of its own first, from which what is fed goes before XLA sees it.
    made = tf.compat.v1.wrap_function(compute, [tf.TensorSpec(x.shape, x.dtype)])
    made = made.prune(made.inputs[0], made.outputs[0])
    return tf.function(made, jit_compile=True)(tf.constant(x))


def keras_chain(parts, x):
    scale, offset = parts.scale(C), parts.normal(C)
    return tf.cast(x, x.dtype) * scale + offset


def tf_nn(parts, x):
    variance = tf.exp(parts.normal(C))
    return nn.batch_normalization(x, parts.normal(C), variance, parts.normal(C), parts.scale(C), 1e-3)


CHAINS = {
    "product and sum": keras_chain,
    "tf.nn": tf_nn,
    "difference first": lambda p, x: (x - p.normal(C)) * p.scale(C) + p.normal(C),
    "quotient": lambda p, x: (x - p.normal(C)) / p.scale(C) + p.normal(C),
    "difference last": lambda p, x: x * p.scale(C) - p.normal(C),
    "taken from": lambda p, x: p.normal(C) - x * p.scale(C),
    "a number in between": lambda p, x: (x * p.scale(C) * p.constant(2.0)) + p.normal(C),
    "with axes": lambda p, x: x * p.scale(1, 1, C) + p.normal(1, 1, 1, C),
    "constants computed": lambda p, x: x * (p.scale(C) * p.scale(C)) + (p.normal(C) - p.normal(C)),
    "BiasAdd": lambda p, x: nn.bias_add(x * p.scale(C), p.normal(C)),
}


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", CHAINS)
@pytest.mark.parametrize("backwards", [True, False], ids=["backwards", "forwards"])
def test_batch_norms_that_are_chains(name, backwards, dtype):
    parts = Parts(dtype)

    def function(x):
        if backwards:
            return tf.tanh(CHAINS[name](parts, parts.linear(x)))
        return parts.linear(CHAINS[name](parts, x))

    new, _ = check(function, parts.data(3, *IMAGE), folded=1)
    assert not {"Mul", "Sub", "RealDiv"} & set(kinds(new).values())


NO_CHAINS = {
    "numbers only": lambda p, x: x * p.constant(2.0) + p.constant(1.0),
    "a product only": lambda p, x: x * p.scale(C),
    "a sum only": lambda p, x: tf.identity(x) + p.normal(C),
    "a number for each sample": lambda p, x: x * p.scale(3, 1, 1, 1) + p.normal(C),
    "more channels": lambda p, x: p.linear(x, 1) * p.scale(C) + p.normal(C),
    "more rows": lambda p, x: x[:, :1] * p.scale(4, 1, C) + p.normal(C),
    "another axis": lambda p, x: x[:, 0, 0] * p.scale(3, 1, C) + p.normal(C),
    "of two tensors": lambda p, x: x * x + p.normal(C),
    "divided by": lambda p, x: p.normal(C) / (x + p.constant(50.0)) + p.normal(C),
    "of whole numbers": lambda p, x: tf.cast(tf.cast(x, "int32") * [1, 2, 3, 4] + [1, 0, 2, 5], x.dtype),
}


@pytest.mark.parametrize("name", NO_CHAINS)
def test_what_is_no_batch_norm_stays_right(name):
    parts = Parts("float64")

    def function(x):
        made = NO_CHAINS[name](parts, tf.identity(parts.linear(x)))
        return tf.tanh(made), parts.linear(tf.identity(NO_CHAINS[name](parts, x)))

    graph = frozen(function, tf.TensorSpec((3, *IMAGE), "float64"))
    _, report = fold_graph(*graph)
    check_graph(*graph, [parts.data(3, *IMAGE)], folded=len(report.folded))


def test_a_sum_that_makes_more_channels_is_no_bias():
    parts = Parts("float64")

    def function(x):
        x = conv2d(1, channels=1)(parts, x) + parts.normal(C)
        return tf.tanh(tf.identity(x) * parts.scale(C) + parts.normal(C))

    check(function, parts.data(3, *IMAGE), folded=0)


def test_a_constant_of_each_place_ends_a_batch_norm():
    """As position embeddings behind a patch embedding do."""
    parts = Parts("float64")

    def function(x):
        return tf.tanh(parts.batch_norm(parts.linear(x)) + parts.normal(1, *IMAGE))

    check(function, parts.data(3, *IMAGE), folded=1)


def test_an_einsum_of_a_diagonal_is_no_product():
    for equation in ("aa,ab->ab", "ab,bb->ab", "ab,ba->aa"):

        def function(x, equation=equation):
            parts = Parts("float64")
            made = raw.Einsum(inputs=[x, parts.normal(C, C)], equation=equation)
            return tf.tanh(parts.batch_norm(made))

        data = Parts("float64").data(C, C)
        graph = frozen(function, tf.TensorSpec((C, C), "float64"))
        check_graph(*graph, [data], folded=0)


def test_a_batch_norm_in_training_or_with_other_readers_stays():
    parts = Parts("float32")
    data = parts.data(3, *IMAGE)

    def in_training(x):
        normal = raw.FusedBatchNormV3(
            x=parts.linear(x),
            scale=parts.scale(C),
            offset=parts.normal(C),
            mean=tf.zeros(0),
            variance=tf.zeros(0),
            epsilon=1e-2,
            is_training=True,
        )
        return tf.tanh(normal.y)

    def statistics_read(x):
        normal = parts.fused(parts.linear(x), whole=True)
        return tf.tanh(normal.y), normal.batch_mean + 1

    def statistics_given(x):
        normal = parts.fused(parts.linear(x), whole=True)
        return tf.tanh(normal.y), normal.batch_variance

    for function in (in_training, statistics_read, statistics_given):
        new, report = check(function, data, folded=0)
        assert not report.entries
        assert "FusedBatchNormV3" in kinds(new).values()


def test_attributes_that_were_left_out_have_their_defaults():
    """As in files that are written without them: training, and an epsilon of 1e-4."""
    parts = Parts("float32")
    function = lambda x: tf.tanh(parts.fused(parts.linear(x), epsilon=1e-4))  # noqa: E731
    definition, inputs, outputs = frozen(function, tf.TensorSpec((None, *IMAGE), "float32"))
    (normal,) = (node for node in definition.node if node.op in BATCH_NORMS)
    del normal.attr["epsilon"]
    check_graph(definition, inputs, outputs, [parts.data(3, *IMAGE)], folded=1)
    del normal.attr["is_training"]
    _, report = fold_graph(definition, inputs, outputs)
    assert not report.folded
