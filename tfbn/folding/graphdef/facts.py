"""What is known of a graph's tensors: shapes, types, and the values of those that are constants."""

from __future__ import annotations

from collections.abc import Collection, Iterable

import numpy as np
import tensorflow as tf

from .nodes import Nodes, Source

# They look as if they computed something of their inputs alone.
CONTROL_FLOW = {
    *("Enter", "Exit", "LoopCond", "Merge", "NextIteration", "Switch"),
    *("RefEnter", "RefExit", "RefMerge", "RefNextIteration", "RefSwitch"),
}
MOST_COMPUTED = 2**28  # numbers of a constant: as many as a graph can hold at all


class Facts:
    """Shapes, types and constants of a graph as it was when it was read.

    Args:
        fed: names of nodes that are given their values, whatever they have by default.
    """

    def __init__(self, nodes: Nodes, fed: Collection[str] = ()) -> None:
        self._graph = tf.Graph()
        definition = nodes.definition(node.name for node in nodes)
        for node in definition.node:  # what one waits for says nothing of its value
            tensors = [text for text in node.input if not text.startswith("^")]
            del node.input[:]
            node.input.extend(tensors)
        with self._graph.as_default():
            tf.graph_util.import_graph_def(definition, name="")
        self._constant = self._constants(fed)
        self._values: dict[Source, np.ndarray] = {}

    def shape(self, source: Source) -> tuple[int | None, ...] | None:
        """`None` where the rank is not known."""
        shape = self._tensor(source).shape
        return None if shape.rank is None else tuple(shape.as_list())

    def dtype(self, source: Source) -> str:
        return self._tensor(source).dtype.name

    def outputs(self, name: str) -> int:
        """How many tensors a node makes."""
        return len(self._graph.get_operation_by_name(name).outputs)

    def is_constant(self, source: Source) -> bool:
        return source.node in self._constant

    def compute(self, sources: Iterable[Source]) -> None:
        """Learn the values of those tensors that are constants, all at once."""
        wanted = [
            source
            for source in dict.fromkeys(sources)
            if self.is_constant(source) and source not in self._values and self._is_small(source)
        ]
        with tf.compat.v1.Session(graph=self._graph) as session:
            found = session.run([self._tensor(source) for source in wanted])
        self._values |= zip(wanted, found, strict=True)

    def value(self, source: Source) -> np.ndarray | None:
        """Of a constant that was computed; `None` for any other tensor."""
        return self._values.get(source)

    def _is_small(self, source: Source) -> bool:
        tensor = self._tensor(source)
        number = tensor.shape.num_elements()
        numbers = tensor.dtype.is_floating or tensor.dtype.is_integer or tensor.dtype.is_bool
        return numbers and number is not None and number <= MOST_COMPUTED

    def _tensor(self, source: Source) -> tf.Tensor:
        return self._graph.get_operation_by_name(source.node).outputs[source.output]

    def _constants(self, fed: Collection[str]) -> set[str]:
        """The nodes that compute something of constants alone; operations are in an order to run."""
        found: set[str] = set()
        for operation in self._graph.get_operations():
            if operation.name in fed:
                continue
            pure = not operation.op_def.is_stateful and operation.type not in CONTROL_FLOW
            made_of = [tensor.op.name for tensor in operation.inputs]
            if operation.type == "Const" or (pure and made_of and found.issuperset(made_of)):
                found.add(operation.name)
        return found
