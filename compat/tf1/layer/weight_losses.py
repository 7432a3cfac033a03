"""Losses that depend on weights alone, cut out of the graph of TF1 code."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import keras
import tensorflow as tf

tf1 = tf.compat.v1


def reads_of(loss: tf.Tensor, handles: Iterable[str]) -> list[tf.Tensor] | None:
    """The tensors by which a scalar loss reads variables, if it depends on nothing else.

    Args:
        loss: a tensor of a FuncGraph.
        handles: names of the placeholders that stand for variables there.

    Returns:
        Results of ReadVariableOp; `None` if an input of the function, another captured tensor, or
        another way to read a variable (of single rows, or inside a conditional) leads to the loss, or
        no variable does.
    """
    reads, seen, todo = {}, set(), [loss]
    while todo:
        tensor = todo.pop()
        if tensor.op.type == "ReadVariableOp" and tensor.op.inputs[0].name in handles:
            reads[tensor.name] = tensor
        elif tensor.op.type == "Placeholder":
            return None
        elif tensor.op.name not in seen:
            seen.add(tensor.op.name)
            todo.extend(tensor.op.inputs)
    return list(reads.values()) or None


class WeightLoss(keras.regularizers.Regularizer):
    """A loss as a Keras regularizer: computed without a call of the layer, with gradients.

    It is a pure function of the weights' values, so it captures no variable of a replica.

    Args:
        loss, reads: of the same graph, see `reads_of`.
        weights: what is read, in that order. The loss is computed for the first one.
        other: another regularizer that is to be added.
    """

    def __init__(
        self,
        loss: tf.Tensor,
        reads: list[tf.Tensor],
        weights: list[keras.Variable],
        other: Callable[[Any], tf.Tensor] | None = None,
    ) -> None:
        definition, cuts = _cut(loss, {read.name for read in reads}), [read.name for read in reads]

        def compute(*values: tf.Tensor) -> tf.Tensor:
            inputs = dict(zip(cuts, values, strict=True))
            return tf.graph_util.import_graph_def(definition, inputs, [loss.name], name="")[0]

        specs = [tf.TensorSpec(read.shape, read.dtype) for read in reads]
        self.compute = tf1.wrap_function(compute, specs)
        self.weights, self.other = weights, other

    def __call__(self, _: Any) -> tf.Tensor:
        loss = self.compute(*map(tf.convert_to_tensor, self.weights))
        loss = tf.cast(loss, self.weights[0].dtype)
        return loss if self.other is None else loss + self.other(_)


def _cut(loss: tf.Tensor, cuts: set[str]) -> tf.compat.v1.GraphDef:
    """The graph from the tensors named `cuts` to the loss, without control inputs and colocation."""
    definition, seen, todo = tf1.GraphDef(), set(), [loss]
    while todo:
        tensor = todo.pop()
        if tensor.name in cuts or tensor.op.name in seen:
            continue
        seen.add(tensor.op.name)
        todo.extend(tensor.op.inputs)
        node = definition.node.add()
        node.CopyFrom(tensor.op.node_def)
        node.attr.pop("_class", None)
        node.input[:] = [source for source in node.input if not source.startswith("^")]
    if any(attribute.HasField("func") for node in definition.node for attribute in node.attr.values()):
        definition.library.CopyFrom(loss.graph.as_graph_def().library)
    return definition
