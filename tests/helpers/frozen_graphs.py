"""Functions frozen to graphs, folded, and run by TensorFlow before and after."""

import numpy as np
import tensorflow as tf

from networks import relative_difference
from tfbn import runtime
from tfbn.folding.graphdef import fold_graph

# A few roundings of the type, relative to the largest value that comes out.
TOLERANCES = {"float64": 1e-11, "float32": 1e-5}
BATCH_NORMS = {"FusedBatchNorm", "FusedBatchNormV2", "FusedBatchNormV3"}


def frozen(function, *specs):
    """A function as a graph of constants, and the names of its inputs and outputs."""
    made = runtime.freeze(tf.function(function, autograph=False).get_concrete_function(*specs))
    names = ([tensor.name for tensor in tensors] for tensors in (made.inputs, made.outputs))
    return made.graph.as_graph_def(), *names


def run(definition, inputs, outputs, arrays):
    """What a graph computes as it is, without TensorFlow's optimizer."""
    config = tf.compat.v1.ConfigProto()
    config.graph_options.rewrite_options.disable_meta_optimizer = True
    config.graph_options.optimizer_options.opt_level = tf.compat.v1.OptimizerOptions.L0
    graph = tf.Graph()
    with graph.as_default():
        tf.graph_util.import_graph_def(definition, name="")
    with tf.compat.v1.Session(graph=graph, config=config) as session:
        return session.run(outputs, dict(zip(inputs, arrays, strict=True)))


def kinds(definition):
    """The operations that a graph has, by the names of the nodes."""
    return {node.name: node.op for node in definition.node}


def check_graph(definition, inputs, outputs, arrays, folded, into=None, reason=None, execute=True):
    """Fold a graph, compare it with the graph as it was, the counts, and where the batch norms went.

    Args:
        arrays: one for each input.
        folded: how many go.
        into: the ends of the names of what takes them up.
        reason: a part of why one stays.
        execute: whether this machine has kernels for the graph.

    Returns:
        The folded graph and the report.
    """
    before = definition.SerializeToString(deterministic=True)
    new, report = fold_graph(definition, inputs, outputs)
    assert definition.SerializeToString(deterministic=True) == before
    assert len(report.folded) == folded, f"{report}\n{kinds(definition)}"
    taken = {path for entry in report.folded for path in entry.into}
    if into is not None:
        assert {path.split("/")[-1] for path in taken} == set(into), str(report)
    if reason is not None:
        assert any(reason in entry.reason for entry in report.kept), str(report)
    assert {name.split(":")[0] for name in [*inputs, *outputs]} <= kinds(new).keys()
    if execute:
        wanted, got = (run(graph, inputs, outputs, arrays) for graph in (definition, new))
        for found, want in zip(got, wanted, strict=True):
            assert found.dtype == want.dtype
            assert found.shape == want.shape
            assert np.isfinite(want).all()
            assert np.abs(want).max() > 0
            assert relative_difference(found, want) < TOLERANCES[want.dtype.name], str(report)
    return new, report


def check(function, *arrays, batch=None, **expected):
    """Freeze a function of arrays like these, whose batch size is free, and see `check_graph`."""
    specs = [tf.TensorSpec((batch, *array.shape[1:]), array.dtype) for array in arrays]
    return check_graph(*frozen(function, *specs), arrays, **expected)


class Parts:
    """Linear operations and batch norms with random constants of a type.

    Args:
        dtype: of all constants.
        positive: whether scales are positive.
        offset: whether batch norms have an offset, and linear operations a bias.
    """

    def __init__(self, dtype, positive=False, offset=True, seed=0):
        self.dtype, self.positive, self.has_offset = dtype, positive, offset
        self.random = np.random.default_rng(seed)

    def data(self, *shape):
        return self.random.normal(size=shape).astype(self.dtype)

    def constant(self, array):
        return tf.constant(np.asarray(array), self.dtype)

    def normal(self, *shape):
        return self.constant(self.random.normal(size=shape))

    def scale(self, *shape):
        """Not 0, and of either sign unless all are to be positive."""
        sizes = self.random.uniform(0.5, 2, shape)
        signs = 1 if self.positive else np.where(np.arange(sizes.size) % 2, 1, -1).reshape(shape)
        return self.constant(sizes * signs)

    def offset(self, *shape):
        return self.normal(*shape) if self.has_offset else tf.zeros(shape, self.dtype)

    def batch_norm(self, x):
        """As `tf.nn.batch_normalization` writes it down: a product and a sum, of the last axis."""
        channels = x.shape[-1]
        return tf.raw_ops.AddV2(x=x * self.scale(channels), y=self.offset(channels))

    def fused(self, x, kind="FusedBatchNormV3", data_format="NHWC", gammas=None, **arguments):
        """Of float32; what it makes, or all that it makes with `whole=True`."""
        channels = x.shape[1 if data_format == "NCHW" else -1]
        whole = arguments.pop("whole", False)
        made = getattr(tf.raw_ops, kind)(
            x=x,
            scale=self.scale(channels) if gammas is None else tf.constant(gammas, "float32"),
            offset=self.offset(channels),
            mean=self.offset(channels),
            variance=self.constant(self.random.uniform(0.3, 3, channels)),
            data_format=data_format,
            **{"is_training": False, "epsilon": 1e-2} | arguments,
        )
        return made if whole else made.y

    def linear(self, x, channels=None):
        """The linear operation for tensors of this rank, with a bias if there are offsets."""
        channels, given = channels or x.shape[-1], x.shape[-1]
        rank = x.shape.rank
        if rank in (4, 5):
            kernel = self.normal(*[1] * (rank - 2), given, channels)
            convolve = tf.nn.conv2d if rank == 4 else tf.nn.conv3d
            x = convolve(x, kernel, strides=[1] * rank if rank == 5 else 1, padding="VALID")
        else:
            x = tf.linalg.matmul(x, self.normal(given, channels))
        return tf.nn.bias_add(x, self.normal(channels)) if self.has_offset else x
