"""Conditionals whose condition is a constant, as that of `is_training`: the branch that runs, alone."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from .facts import Facts
from .nodes import GraphDef, Nodes, Source

IFS = {"If": "StatefulPartitionedCall", "StatelessIf": "PartitionedCall"}


def settle(definition: GraphDef, inputs: Iterable[str], outputs: Iterable[str]) -> tuple[GraphDef, bool]:
    """A frozen graph without what never runs.

    A placeholder that has a default and is not fed is that default.

    Args:
        definition: the graph; not changed.
        inputs, outputs: names of the tensors that are fed and fetched.

    Returns:
        The graph, and whether branches became calls of functions, to be inlined.
    """
    feeds = {Source.of(name).node for name in inputs}
    nodes = Nodes(definition, map(Source.of, outputs))
    nodes = Nodes(nodes.definition(feeds), nodes.keep)
    for node in nodes:
        if node.op == "PlaceholderWithDefault" and node.name not in feeds:
            (default,) = nodes.inputs(node)
            node.attr["T"].CopyFrom(node.attr["dtype"])
            nodes.replace(node, "Identity", [default])
    calls, settled = False, set[str]()
    while known := _known_conditions(nodes, feeds, settled):  # inside a branch there may be more
        settled |= known.keys()
        ifs = [nodes.by_name[name] for name in known if nodes.by_name[name].op in IFS]
        for node in ifs:
            _call_branch(node, known.pop(node.name))
        _leave_out(nodes, known)
        calls = calls or bool(ifs)
        nodes = Nodes(nodes.definition(feeds), nodes.keep)
    return nodes.definition(feeds), calls


def _known_conditions(nodes: Nodes, feeds: set[str], settled: set[str]) -> dict[str, bool]:
    """The conditions that are constants, by the names of the nodes that ask for them.

    Args:
        settled: names of nodes that stay although they are, as one that is fetched does.
    """
    conditions = {
        node.name: source
        for node in nodes
        if node.name not in settled and (source := _condition(nodes, node))
    }
    if not conditions:  # and nothing to import the whole graph for
        return {}
    facts = Facts(nodes, feeds)
    facts.compute(conditions.values())
    return {
        name: bool(value)
        for name, source in conditions.items()
        if (value := facts.value(source)) is not None
    }


def _condition(nodes: Nodes, node: Any) -> Source | None:
    if node.op in IFS:
        return nodes.inputs(node)[0]
    return nodes.inputs(node)[1] if node.op == "Switch" else None


def _call_branch(node: Any, taken: bool) -> None:
    """Make a conditional a call of the function of one branch."""
    branch = node.attr["then_branch" if taken else "else_branch"].func
    function = type(branch)()
    function.CopyFrom(branch)
    node.op = IFS[node.op]
    del node.input[0]
    for name in set(node.attr) - {"Tin", "Tout"}:
        del node.attr[name]
    node.attr["f"].func.CopyFrom(function)


def _leave_out(nodes: Nodes, taken: dict[str, bool]) -> None:
    """Let what reads a switch read what it was given, and a merge be what comes from the live branch.

    Args:
        taken: the conditions of switches, by their names.
    """
    dead = _dead(nodes, taken)
    for node in nodes:
        if node.name in dead:
            continue
        if node.op == "Merge":
            alive = [source for source in nodes.inputs(node) if not _is_dead(source, dead, taken)]
            if len(alive) == 1:
                nodes.replace(node, "Identity", [alive[0]])
        for number, text in enumerate(node.input):
            source = Source.of(text)
            if not text.startswith("^") and source.node in taken:
                nodes.set_input(node, number, nodes.inputs(nodes.by_name[source.node])[0])
        waits = [text for text in node.input if not (text.startswith("^") and text[1:] in dead)]
        if len(waits) < len(node.input):
            del node.input[:]
            node.input.extend(waits)


def _dead(nodes: Nodes, taken: dict[str, bool]) -> set[str]:
    """The nodes that never run."""
    found: set[str] = set()
    readers = nodes.readers()
    waiting = [
        reader
        for name, condition in taken.items()
        for reader in readers[Source(name, int(not condition))]
    ]
    while waiting:
        node = waiting.pop()
        inputs = nodes.inputs(node)
        gone = [_is_dead(source, found, taken) for source in inputs]
        if node.name in found or not (all(gone) if node.op == "Merge" else any(gone)):
            continue
        found.add(node.name)
        made = [source for source in readers if source.node == node.name]
        waiting += [reader for source in made for reader in readers[source]]
    return found


def _is_dead(source: Source, dead: set[str], taken: dict[str, bool]) -> bool:
    if source.node in taken and source.output == int(not taken[source.node]):
        return True
    return source.node in dead
