"""One trace of TF1 code, of which runs what a session would have run: outputs and fetched updates.

A `tf.function` would run every stateful op, fetched or not. Control dependencies of the outputs are lost
where nobody uses the outputs: the updates are the graph's control outputs. What nobody fetches has to go
by `prune`, which copies the graph, out of reach of the tensors that custom gradients close over: so the
graph is left as it is where all that it could do without asking is fetched.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import tensorflow as tf

from .variable_store import VariableStore

tf1 = tf.compat.v1


class Program(NamedTuple):
    """What a call of the layer runs.

    Attributes:
        function: tensors → outputs and losses; it runs the updates.
        outputs: the outputs within the graph, in the code's structure.
        variables: those that the graph refers to, weakly.
    """

    function: Callable[..., Any]
    outputs: Any
    variables: VariableStore

    def packed(self, results: list[tf.Tensor]) -> tuple[Any, list[tf.Tensor]]:
        """Outputs in the code's structure, and losses that depend on more than weights."""
        count = len(tf.nest.flatten(self.outputs))
        return tf.nest.pack_sequence_as(self.outputs, results[:count]), results[count:]


def fetched(wrapped: Any, fed: Sequence[tf.Tensor], wanted: list[tf.Tensor], updates: list[Any]) -> Any:
    """A function of the tensors that are fed, which gives those wanted and runs the updates.

    Args:
        wrapped: what `wrap_function` made, with the updates as control outputs.
    """
    if not _others(wrapped.graph, [*wanted, *updates]):
        places = {id(tensor): number for number, tensor in enumerate(wrapped.outputs)}
        numbers = [places[id(tensor)] for tensor in wanted]

        def whole(*tensors: tf.Tensor) -> list[tf.Tensor]:
            results = wrapped(*tensors)
            return [results[number] for number in numbers]

        return whole
    # Without a signature each call would print its inputs into an error that nobody reads.
    named = [tf.TensorSpec(tensor.shape, tensor.dtype, f"x{n}") for n, tensor in enumerate(fed)]
    pruned = wrapped.prune(fed, (wanted, updates), input_signature=(tuple(named), {}))
    return lambda *tensors: pruned(*tensors)[0]


def updates_of_code(collections: Sequence[str]) -> list[Any]:
    """The operations in collections, where the code put operations, tensors or results of `assign`."""
    found = [update for name in collections for update in tf1.get_collection(name)]
    updates = list(dict.fromkeys(getattr(update, "op", update) for update in found))
    inner = [update.name for update in updates if update.graph is not tf1.get_default_graph()]
    if inner:
        raise ValueError(
            f"{', '.join(collections)} has {', '.join(inner)} from inside a conditional or a loop, "
            "where nobody outside can run it. Let what the conditional gives depend on it there."
        )
    return updates


def _others(graph: tf.Graph, fetches: list[Any]) -> list[tf.Operation]:
    """What has an effect, and none of the fetches needs."""
    needed: set[str] = set()
    todo = [getattr(fetch, "op", fetch) for fetch in fetches]
    while todo:
        operation = todo.pop()
        if operation.name not in needed:
            needed.add(operation.name)
            todo += [*(tensor.op for tensor in operation.inputs), *operation.control_inputs]
    return [each for each in graph.get_operations() if each.name not in needed and _has_effect(each)]


def _has_effect(operation: tf.Operation) -> bool:
    reads = ("ReadVariableOp", "Placeholder", "VarHandleOp", "VariableShape", "ResourceGather")
    return operation.op_def.is_stateful and not operation.type.startswith(reads)
