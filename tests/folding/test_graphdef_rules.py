"""What batch norms cross in frozen graphs: each operation of the tables, backwards and forwards."""

import numpy as np
import pytest
import tensorflow as tf

from frozen_graphs import Parts, check, check_graph, frozen, kinds
from tfbn.folding.graphdef import fold_graph
from tfbn.folding.graphdef.tables import RULES

raw = tf.raw_ops
C = 4
IMAGE, VIDEO, VECTOR = (6, 5, C), (4, 6, 5, C), (C,)
DTYPES = ["float64", "float32"]
SCALE_ONLY = {"offset": False}
HOMOGENEOUS = {"offset": False, "positive": True}
POSITIVE = {"positive": True}


class Step:
    """One operation of one tensor.

    Args:
        function: of `Parts` and the tensor.
        needs: what `Parts` has to have for maps to cross it.
        shape: of a sample.
    """

    def __init__(self, function, shape=IMAGE, **needs):
        self.function, self.shape, self.needs = function, shape, needs


def pool(op, **arguments):
    def step(parts, x):
        ones = [1] * (x.shape.rank - 2)
        sizes = {"ksize": [1, *(2 for _ in ones), 1], "strides": [1, *ones, 1]}
        return op(**{"input": x, **sizes, "padding": "SAME", **arguments})

    return step


def reduced(op, axis=(1, 2), keep_dims=True):
    return lambda parts, x: op(input=x, axis=list(axis), keep_dims=keep_dims)


def padded(parts, x):
    return raw.Pad(input=x, paddings=[[0, 0], [1, 2], [0, 1], [0, 0]])


def blocks(parts, x):
    return raw.SpaceToBatchND(input=x, block_shape=[2, 1], paddings=[[1, 1], [0, 0]])


def unblocked(parts, x):
    """As behind a dilated convolution of TensorFlow 1."""
    return raw.BatchToSpaceND(input=x, block_shape=[2, 1], crops=[[1, 0], [0, 0]])


STEPS = {
    "Identity": Step(lambda parts, x: tf.identity(x)),
    "Snapshot": Step(lambda parts, x: raw.Snapshot(input=x)),
    "StopGradient": Step(lambda parts, x: tf.stop_gradient(x)),
    "PreventGradient": Step(lambda parts, x: raw.PreventGradient(input=x)),
    "CheckNumerics": Step(lambda parts, x: raw.CheckNumerics(tensor=x, message="")),
    "Cast": Step(lambda parts, x: raw.Cast(x=x, DstT=x.dtype)),
    "Relu": Step(lambda parts, x: tf.nn.relu(x), **HOMOGENEOUS),
    "LeakyRelu": Step(lambda parts, x: raw.LeakyRelu(features=x, alpha=0.3), **HOMOGENEOUS),
    "Add": Step(lambda parts, x: raw.Add(x=x, y=parts.normal(C) * 0.1)),
    "AddV2": Step(lambda parts, x: raw.AddV2(x=parts.normal(1, 1, 1, C) * 0.1, y=x)),
    "BiasAdd": Step(lambda parts, x: raw.BiasAdd(value=x, bias=parts.normal(C) * 0.1)),
    "Sub": Step(lambda parts, x: raw.Sub(x=parts.normal(C) * 0.1, y=x)),
    "Sub, first": Step(lambda parts, x: raw.Sub(x=x, y=parts.normal(C) * 0.1)),
    "Mul": Step(lambda parts, x: raw.Mul(x=parts.scale(6, 5, 1), y=x), **SCALE_ONLY),
    "Mul, channels": Step(lambda parts, x: raw.Mul(x=x, y=parts.scale(C))),
    "RealDiv": Step(lambda parts, x: raw.RealDiv(x=x, y=parts.scale(C))),
    "Neg": Step(lambda parts, x: tf.negative(x)),
    "MaxPool": Step(pool(raw.MaxPool), **POSITIVE),
    "MaxPool3D": Step(pool(raw.MaxPool3D), VIDEO, **POSITIVE),
    "AvgPool": Step(pool(lambda input, **own: raw.AvgPool(value=input, **own))),
    "AvgPool3D": Step(pool(raw.AvgPool3D), VIDEO),
    "ResizeBilinear": Step(lambda parts, x: raw.ResizeBilinear(images=x, size=[9, 3])),
    "ResizeNearestNeighbor": Step(lambda parts, x: raw.ResizeNearestNeighbor(images=x, size=[9, 3])),
    "SpaceToBatchND": Step(blocks, **SCALE_ONLY),
    "BatchToSpaceND": Step(unblocked),
    "Mean": Step(reduced(raw.Mean)),
    "Mean, without axes": Step(reduced(raw.Mean, (-3, 2), keep_dims=False)),
    "Sum": Step(reduced(raw.Sum)),
    "Max": Step(reduced(raw.Max), **POSITIVE),
    "Min": Step(reduced(raw.Min), **POSITIVE),
    "Pad": Step(padded, **SCALE_ONLY),
    "PadV2": Step(
        lambda parts, x: raw.PadV2(
            input=x,
            paddings=[[0, 0], [1, 2], [0, 1], [0, 0]],
            constant_values=parts.constant(0.0),
        ),
        **SCALE_ONLY,
    ),
    "MirrorPad": Step(
        lambda parts, x: raw.MirrorPad(
            input=x, paddings=[[0, 0], [1, 2], [0, 1], [0, 0]], mode="REFLECT"
        )
    ),
    "Reshape": Step(lambda parts, x: tf.reshape(x, (-1, 30, C))),
    "Reshape, larger": Step(lambda parts, x: tf.reshape(x, (-1, 3, 2, 5, C))),
    "Squeeze": Step(lambda parts, x: raw.Squeeze(input=x, axis=[1]), (1, 5, C)),
    "ExpandDims": Step(lambda parts, x: tf.expand_dims(x, 1), (5, C)),
    "Transpose": Step(lambda parts, x: tf.transpose(x, (0, 2, 1, 3))),
    "StridedSlice": Step(lambda parts, x: x[:, 1:-1, ::2]),
    "StridedSlice, one": Step(lambda parts, x: x[:, -1]),
    "StridedSlice, ellipsis": Step(lambda parts, x: x[..., 1:3]),
    "StridedSlice, backwards": Step(lambda parts, x: x[..., ::-1]),
    "Split": Step(lambda parts, x: raw.Split(axis=-1, value=x, num_split=2)[1]),
}
MERGES = {
    "AddN": lambda parts, x, y: raw.AddN(inputs=[x, y, x]),
    "AddV2 of two": lambda parts, x, y: raw.AddV2(x=x, y=y),
    "Sub of two": lambda parts, x, y: raw.Sub(x=x, y=y),
    "Maximum": lambda parts, x, y: tf.maximum(x, y),
    "Minimum": lambda parts, x, y: tf.minimum(x, y),
    "ConcatV2": lambda parts, x, y: tf.concat([x, y], -1),
    "ConcatV2, in space": lambda parts, x, y: tf.concat([x, y], 1),
}
# TensorFlow has them on the CPU in float32 alone, or makes float32 of any type.
SINGLE = {"MaxPool3D", "AvgPool3D", "ResizeBilinear"}
CASES = [(name, dtype) for name in STEPS for dtype in DTYPES if dtype == "float32" or name not in SINGLE]
SHAPES = {
    "Shape": lambda x: tf.cast(raw.Shape(input=x)[1], x.dtype),
    "ZerosLike": tf.zeros_like,
    "OnesLike": tf.ones_like,
}


def test_each_operation_is_tested():
    tested = {name.split(",")[0].split(" ")[0] for name in [*STEPS, *MERGES, *SHAPES]}
    assert tested == RULES.keys()


def input_of(parts, shape):
    return parts.data(4, *shape)


@pytest.mark.parametrize(("name", "dtype"), CASES)
@pytest.mark.parametrize("backwards", [True, False], ids=["backwards", "forwards"])
def test_a_batch_norm_crosses(name, backwards, dtype):
    step, parts = STEPS[name], Parts(dtype, **STEPS[name].needs)

    def function(x):
        if not backwards:
            # Identity keeps products and sums from being one batch norm with the step.
            return parts.linear(tf.identity(step.function(parts, tf.identity(parts.batch_norm(x)))))
        # Without it, what adds a constant would be the bias.
        return parts.batch_norm(tf.identity(step.function(parts, tf.identity(parts.linear(x)))))

    new, _ = check(function, input_of(parts, step.shape), folded=1)
    assert name.split(",")[0] in kinds(new).values()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", MERGES)
@pytest.mark.parametrize("backwards", [True, False], ids=["backwards", "forwards"])
def test_a_batch_norm_crosses_what_has_several_inputs(name, backwards, dtype):
    merge, parts = MERGES[name], Parts(dtype, positive="imum" in name)
    scale, offsets = parts.scale(C), [parts.normal(C), parts.normal(C)]

    def normal(x, number):  # all alike, where an operation wants that
        number = number if "imum" not in name and "space" not in name else 0
        return raw.AddV2(x=x * scale, y=offsets[number])

    def function(x, y):
        if backwards:
            return parts.batch_norm(tf.identity(merge(parts, parts.linear(x), parts.linear(y))))
        return parts.linear(merge(parts, *(tf.identity(normal(it, i)) for i, it in enumerate((x, y)))))

    # Forwards, each batch norm asks alone, and the other one's input has another scale as yet.
    crossed = backwards or name == "ConcatV2"
    x, y = input_of(parts, IMAGE), input_of(parts, IMAGE)
    check(function, x, y, folded=(1 if backwards else 2) if crossed else 0)


@pytest.mark.parametrize("backwards", [True, False], ids=["backwards", "forwards"])
def test_a_scale_crosses_a_product_of_two_tensors(backwards):
    parts = Parts("float64", offset=False)

    def function(x, y):
        y = tf.sigmoid(y)
        if backwards:
            return parts.batch_norm(tf.identity(parts.linear(x) * y))
        return parts.linear(tf.identity(parts.batch_norm(x)) * y)

    check(function, input_of(parts, IMAGE), input_of(parts, IMAGE), folded=1)


@pytest.mark.parametrize("name", SHAPES)
def test_what_reads_a_shape_sees_no_change(name):
    parts = Parts("float64")

    def function(x):
        x = tf.identity(parts.batch_norm(x))
        return parts.linear(x), tf.identity(SHAPES[name](x) + 1)

    check(function, input_of(parts, IMAGE), folded=1)


@pytest.mark.parametrize("name", ["Relu", "LeakyRelu", "Pad", "PadV2", "SpaceToBatchND"])
@pytest.mark.parametrize("backwards", [True, False], ids=["backwards", "forwards"])
def test_an_offset_does_not_cross(name, backwards):
    parts = Parts("float64", positive=True)

    def function(x):
        if backwards:
            return parts.batch_norm(STEPS[name].function(parts, parts.linear(x)))
        return parts.linear(STEPS[name].function(parts, parts.batch_norm(x)))

    check(function, input_of(parts, IMAGE), folded=0, reason="an offset does not pass")


@pytest.mark.parametrize("name", ["Relu", "LeakyRelu", "MaxPool", "Max", "Min"])
@pytest.mark.parametrize("backwards", [True, False], ids=["backwards", "forwards"])
def test_a_negative_scale_does_not_cross(name, backwards):
    parts = Parts("float64", offset=False)

    def function(x):
        if backwards:
            return parts.batch_norm(STEPS[name].function(parts, parts.linear(x)))
        return parts.linear(STEPS[name].function(parts, parts.batch_norm(x)))

    check(function, input_of(parts, IMAGE), folded=0, reason="a negative scale does not pass")


def test_parts_of_a_split_have_their_own_maps():
    parts = Parts("float64")

    def function(x):
        first, second = tf.split(tf.identity(parts.batch_norm(x)), 2, -1)
        again = parts.linear(x, 2 * C)
        third, fourth = tf.split(again, 2, -1)
        normal = [parts.batch_norm(part) for part in (third, fourth)]
        return parts.linear(first), parts.linear(second), *map(tf.tanh, normal)

    check(function, input_of(parts, IMAGE), folded=3)


def test_each_part_of_a_concatenation_takes_its_own_channels():
    parts = Parts("float64")

    def function(x, y):
        together = tf.concat([parts.linear(x, 3), parts.linear(y, 5)], -1)
        return tf.tanh(parts.batch_norm(together))

    check(function, input_of(parts, IMAGE), input_of(parts, IMAGE), folded=1)


@pytest.mark.parametrize("mode", ["REFLECT", "SYMMETRIC"])
def test_offsets_cross_mirrors(mode):
    parts = Parts("float64")

    def function(x):
        x = raw.MirrorPad(
            input=parts.batch_norm(x), paddings=[[0, 0], [1, 1], [2, 2], [0, 0]], mode=mode
        )
        return parts.linear(x)

    check(function, input_of(parts, IMAGE), folded=1)


def test_infinite_padding_is_crossed_by_positive_scales_and_other_numbers_by_none():
    parts = Parts("float64", positive=True)

    def function(number):
        def pad(x):
            paddings = [[0, 0], [1, 1], [1, 1], [0, 0]]
            x = tf.identity(parts.batch_norm(x))
            x = raw.PadV2(input=x, paddings=paddings, constant_values=parts.constant(number))
            x = raw.MaxPool(input=x, ksize=[1, 3, 3, 1], strides=[1] * 4, padding="VALID")
            return parts.linear(x)

        return pad

    check(function(-np.inf), input_of(parts, IMAGE), folded=1)
    check(function(1.0), input_of(parts, IMAGE), folded=0, reason="pads with a number")


MIXING = {
    "transposed samples": lambda parts, x: tf.transpose(x, (1, 0, 2, 3)),
    "channels as samples": lambda parts, x: tf.transpose(x, (3, 1, 2, 0)),
    "some samples": lambda parts, x: x[1:],
    "mean of samples": lambda parts, x: tf.reduce_mean(x, (0, 1), keepdims=True),
    "mean of channels": lambda parts, x: tf.reduce_mean(x, -1, keepdims=True),
    "more samples": lambda parts, x: tf.concat([x, x + 1], 0),
    "parts of samples": lambda parts, x: tf.split(x, 2, 0)[0],
    "padded samples": lambda parts, x: tf.pad(x, [[0, 1], [0, 0], [0, 0], [0, 0]]),
    "a number for each sample": lambda parts, x: x * parts.scale(4, 1, 1, 1),
    "a new axis": lambda parts, x: x[..., tf.newaxis],
    "channels in space": lambda parts, x: tf.reshape(tf.transpose(x, (0, 3, 1, 2)), (4, 6, 5, C)),
    "rows as samples": lambda parts, x: tf.reshape(x, (24, 5, C)),
    "products of channels": lambda parts, x: x * x[..., ::-1],
    "maximum with a constant": lambda parts, x: tf.maximum(x, parts.normal(C)),
    "sum with a constant": lambda parts, x: raw.AddN(inputs=[x, parts.normal(4, *IMAGE)]),
    "constants beside": lambda parts, x: tf.concat([x, parts.normal(4, *IMAGE)], -1),
    "divided by it": lambda parts, x: 1 / (x + parts.constant(100.0)),
    "pooled channels": lambda parts, x: raw.MaxPool(
        input=x, ksize=[1, 1, 1, 2], strides=[1, 1, 1, 2], padding="VALID"
    ),
}


@pytest.mark.parametrize("name", MIXING)
def test_what_mixes_samples_or_channels_stays_right(name):
    """Whether it is crossed or not; a batch norm may go on both sides of some."""
    parts = Parts("float64")

    def function(x):
        backwards = parts.batch_norm(tf.identity(MIXING[name](parts, parts.linear(x))))
        return backwards, parts.linear(MIXING[name](parts, tf.identity(parts.batch_norm(x))))

    graph = frozen(function, tf.TensorSpec((4, *IMAGE), "float64"))
    _, report = fold_graph(*graph)
    check_graph(*graph, [input_of(parts, IMAGE)], folded=len(report.folded))
    assert report.entries
