"""Fold a frozen graph: read it, plan, compute every constant, and only then change it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from ..core.graph import Call, Op
from ..core.plan import Plan, make_plan
from ..fused_wrongly import fused_wrongly
from ..report import FoldEntry, FoldReport
from .facts import Facts
from .nodes import GraphDef, Nodes, Source, attribute, called_by
from .read import read
from .units import FUSED, LinearUnit
from .write import write

CALLS = re.compile(r"^(?:(?:Stateful)?PartitionedCall(?:_\d+)?/)+")


def fold_graph(
    definition: GraphDef, inputs: Sequence[str], outputs: Sequence[str]
) -> tuple[GraphDef, FoldReport]:
    """Remove the batch norms of a frozen graph that can be removed exactly, as `tfbn.fold`.

    Batch norms are `FusedBatchNorm` nodes that are not in training, and products and sums with constants
    for each channel. Tensors keep their names.

    Args:
        definition: a graph whose weights are constants. It is not changed.
        inputs: names of tensors that are fed, `"input:0"`; placeholders make them.
        outputs: names of tensors that are fetched.

    Returns:
        Another graph, of what leads to the outputs, and the report, in which names of nodes stand for
        paths of layers.
    """
    feeds = [Source.of(name).node for name in inputs]
    nodes = Nodes(definition, map(Source.of, outputs))
    nodes = Nodes(nodes.definition(feeds), nodes.keep)
    nodes.bypass("IdentityN")  # which carries a gradient of its own
    nodes = Nodes(nodes.definition(feeds), nodes.keep)
    facts = Facts(nodes, feeds)
    facts.compute(
        source
        for node in nodes
        if not facts.is_constant(Source(node.name, 0))
        for source in nodes.inputs(node)
    )
    graph = read(nodes, facts)
    excluded: dict[Op, str] = {}
    plan = make_plan(graph, excluded)
    while wrong := fused_wrongly(graph, plan, _has_bias, _slope):
        excluded |= wrong
        plan = make_plan(graph, excluded)
    write(nodes, facts, plan)
    folded = nodes.definition(feeds)
    report = _report(plan)
    return folded, FoldReport((*report.entries, *_inside_functions(folded)))


def _has_bias(op: Op) -> bool | None:
    unit = op.origin
    convolution = isinstance(unit, LinearUnit) and unit.operation.op == "Conv2D"
    return unit.bias is not None if convolution else None


def _slope(call: Call) -> float | None:
    node = call.op.origin.first
    return float(attribute(node, "alpha").f) if node.op == "LeakyRelu" else None


def _path(op: Op) -> str:
    return _plain(op.name)


def _inside_functions(definition: GraphDef) -> Iterator[FoldEntry]:
    """The fused batch norms inside the loops and conditionals that are left, which stay as they are."""
    library = {function.signature.name: function for function in definition.library.function}
    for node in definition.node:
        seen: set[str] = set()
        todo = called_by(node)
        while todo:
            name = todo.pop()
            if name in seen or name not in library:
                continue
            seen.add(name)
            for inner in library[name].node_def:
                todo += called_by(inner)
                if inner.op in FUSED:
                    reason = (
                        f"it is inside {node.name!r} ({node.op}), a loop or conditional, which stays as "
                        "it is: take the batch norm out of it"
                    )
                    path = f"{_plain(node.name)}/{_plain(inner.name)}"
                    yield FoldEntry(path, inner.op, reason=reason)


def _plain(name: str) -> str:
    """The name without those of the calls around it, and of functions that were inlined."""
    return CALLS.sub("", name.partition("_tfg_inlined_")[0])


def _report(plan: Plan) -> FoldReport:
    entries = [
        FoldEntry(_path(op), op.kind, tuple(map(_path, plan.final_targets(op)))) for op in plan.into
    ]
    entries += [FoldEntry(_path(op), op.kind, reason=reason) for op, reason in plan.reasons.items()]
    return FoldReport(tuple(entries))
