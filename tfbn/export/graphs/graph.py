"""One function of named tensors with its weights made constants, and folded."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from typing import Any

import tensorflow as tf

from ...folding import FoldReport
from ...folding.graphdef import fold_graph, settle
from ...messages import join_some, one_line
from ...runtime import freeze
from .reference_variables import without_reference_variables
from .signatures import inputs_of, of_named

# They run code that is not in the graph.
NOT_IN_THE_GRAPH = {"PyFunc", "PyFuncStateless", "EagerPyFunc"}
WRITES = ("Assign", "ResourceScatter", "ResourceApply", "ResourceSparseApply")


@dataclass(frozen=True)
class Frozen:
    """A function as a graph whose weights are constants.

    Attributes:
        definition: the graph.
        inputs: names of the tensors that it is fed, and behind them of those that it captures.
        captured: the tables and other resources for the latter.
        specs: of the inputs, by name.
        outputs: names of its results' tensors, by the results' names.
        fold: what became of the batch norms; `None` if they were left alone.
    """

    definition: Any
    inputs: list[str]
    captured: list[tf.Tensor]
    specs: dict[str, tf.TensorSpec]
    outputs: dict[str, str]
    fold: FoldReport | None = None

    @property
    def size(self) -> int:
        """Bytes of the constants."""
        return sum(len(node.attr["value"].tensor.tensor_content) for node in self.constants)

    @property
    def constants(self) -> list[Any]:
        return [node for node in self.definition.node if node.op == "Const"]

    def concrete(self, definition: Any, fed: dict[str, Any]) -> Any:
        """The function of named tensors, with some of its graph's tensors fed by calls of `fed`."""

        def serve(**named: tf.Tensor) -> dict[str, tf.Tensor]:
            # As tensors of the graph that is being built, which a graph can be imported with.
            resources = [tf.raw_ops.Identity(input=tensor) for tensor in self.captured]
            values = [*(named[name] for name in self.specs), *resources]
            given = dict(zip(self.inputs, values, strict=True))
            given |= {name: value() for name, value in fed.items()}
            wanted = list(self.outputs.values())
            found = tf.graph_util.import_graph_def(definition, given, wanted, name="")
            return dict(zip(self.outputs, found, strict=True))

        return of_named(serve, self.specs)


def frozen(function: Any, fold: bool, what: str, holder: Any = None) -> Frozen:
    """Make a function's weights constants, and fold its batch norms.

    Args:
        function: a concrete function of named tensors.
        what: it is, for messages.
        holder: of a SavedModel of TensorFlow 1, what was loaded.

    Raises:
        ValueError: its weights cannot be constants.
    """
    specs, outputs = inputs_of(function), sorted(function.structured_outputs)
    read_only = without_reference_variables(function, holder)
    found, calls = _frozen(read_only, specs, outputs, what), True
    while calls:  # what they call may have conditionals, too
        definition, calls = settle(found.definition, found.inputs, found.outputs.values())
        found = replace(found, definition=definition)
        if calls:
            found = _frozen(found.concrete(definition, {}), specs, outputs, what)
    if not fold:
        return found
    definition, report = fold_graph(found.definition, found.inputs, [*found.outputs.values()])
    return replace(found, definition=definition, fold=report)


def _frozen(function: Any, specs: dict[str, tf.TensorSpec], outputs: list[str], what: str) -> Frozen:
    own: dict[str, str] = {}  # what the graph calls the inputs

    def noted(**named: tf.Tensor) -> Any:
        own.update((name, tensor.op.name) for name, tensor in named.items())
        return function(**named)

    whole = of_named(noted, specs)  # without what a graph of TensorFlow 1 has beside its nodes
    try:
        made = freeze(whole)
    except Exception as error:  # of TensorFlow's, of any kind
        raise ValueError(
            f"The weights of {what} cannot be made constants. TensorFlow says: {one_line(error)}"
        ) from error
    definition = made.graph.as_graph_def()
    _name_results(definition)
    inside = (tensor.op.name for tensor in whole.inputs[len(specs) :])
    captured = dict(zip(inside, whole.captured_inputs, strict=True))
    by_name = {tensor.op.name: tensor.name for tensor in made.inputs}
    left = [name for name in captured if name in by_name]
    return Frozen(
        definition=definition,
        inputs=[by_name[name] for name in (*(own[name] for name in specs), *left)],
        captured=[captured[name] for name in left],
        specs=specs,
        outputs=dict(zip(outputs, (tensor.name for tensor in made.outputs), strict=True)),
    )


def _name_results(definition: Any) -> None:
    """Mend what functions return that returned a variable: `Identity` does not call it `value`."""
    functions, wrong = definition.library.function, False
    for function in functions:
        made_by = {node.name: node.op for node in function.node_def}
        for key, text in list(function.ret.items()):  # what is changed below
            node, _, result = text.partition(":")
            if made_by.get(node) == "Identity" and result == "value:0":
                function.ret[key] = f"{node}:output:0"
                wrong = True
    if not wrong:
        return
    # TensorFlow has functions of these names by now, of this model or of another, and would take those.
    mark = hashlib.sha256(definition.SerializeToString(deterministic=True)).hexdigest()[:16]
    names = {function.signature.name: f"{function.signature.name}_{mark}" for function in functions}
    for function in functions:
        function.signature.name = names[function.signature.name]
    for node in (*definition.node, *(node for function in functions for node in function.node_def)):
        for value in node.attr.values():
            for called in (value.func, *value.list.func):
                if called.name in names:
                    called.name = names[called.name]


def check_operations(function: Any, what: str) -> None:
    """Refuse a function that no graph of constants is.

    Raises:
        ValueError: it calls Python code, or writes to variables.
    """
    definition = function.graph.as_graph_def()
    inside = (node for function in definition.library.function for node in function.node_def)
    kinds = {node.op for node in (*definition.node, *inside)}
    if found := sorted(kinds & NOT_IN_THE_GRAPH):
        raise ValueError(
            f"{what} calls Python code ({join_some(found)}: tf.py_function or tf.numpy_function), which "
            "no export holds. Write that part in TensorFlow."
        )
    if found := sorted(kind for kind in kinds if kind.startswith(WRITES)):
        raise ValueError(
            f"{what} writes to variables when it is called ({join_some(found)}), so its weights cannot "
            "be constants. Export a function that reads them only."
        )
