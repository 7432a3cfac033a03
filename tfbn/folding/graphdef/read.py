"""A frozen graph as a graph of the core."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..core.affine import Affine
from ..core.graph import Call, Graph, Op, Tensor
from ..core.normalization import Normalization
from .attributes import Input, described
from .facts import Facts
from .nodes import Nodes, Source, attribute
from .tables import RULES
from .targets import ScaleTarget, linear_target
from .units import ChainUnit, FusedUnit, LinearUnit, Unit, is_channels_first, units

IN_A_LOOP = "is inside a loop"


def read(nodes: Nodes, facts: Facts) -> Graph:
    """The calls of a graph's nodes, with the rules for their operations.

    Args:
        facts: which know the values of all constants that other nodes take.
    """
    return _Reader(nodes, facts).read()


class _Reader:
    def __init__(self, nodes: Nodes, facts: Facts) -> None:
        self.nodes, self.facts = nodes, facts
        self.graph = Graph()
        self.tensors: dict[Source, Tensor] = {}
        self.in_loops = _in_loops(nodes)

    def read(self) -> Graph:
        for unit in units(self.nodes, self.facts):
            self._add(unit)
        for source in self.nodes.keep:
            self._tensor(source).users.append(None)
        return self.graph

    def _add(self, unit: Unit) -> None:
        sources = self.nodes.inputs(unit.first)
        op = Op(unit.name, "+".join(node.op for node in unit.nodes), unit)
        arguments, attributes = self._equip(op, unit, sources)
        given = [self._tensor(sources[it]) if isinstance(it, Input) else it for it in arguments]
        number = self.facts.outputs(unit.last.name)
        if isinstance(unit, FusedUnit):  # nothing reads the others
            number = 1
        made = [Source(unit.last.name, output) for output in range(number)]
        dtype = self.facts.dtype(made[0]) if made else ""
        obstacle = self._obstacle(
            unit, [*(sources[it] for it in arguments if isinstance(it, Input)), *made[:1]]
        )
        # One call for each part that a node splits its tensor into.
        apart = [[source] for source in made] if op.kind == "Split" and op.rule is not None else [made]
        for part, sources_made in enumerate(apart):
            call = Call(op, given, dtype, attributes={**attributes, "part": part}, obstacle=obstacle)
            shapes = [
                (self.facts.shape(source) or (), self.facts.dtype(source)) for source in sources_made
            ]
            for source, tensor in zip(sources_made, self.graph.add(call, shapes), strict=True):
                self._replace(source, tensor)

    def _equip(self, op: Op, unit: Unit, sources: list[Source]) -> tuple[list[Any], dict[str, Any]]:
        """Give an operation its rule, target and normalization; what it is called with."""
        values = [self.facts.value(source) for source in sources]
        every = [Input(number) for number, value in enumerate(values) if value is None]
        rank = (
            len(self.facts.shape(Source(unit.last.name, 0)) or ())
            if self.facts.outputs(unit.last.name)
            else 0
        )
        if isinstance(unit, LinearUnit):
            kernel = values[unit.kernel]
            before = len(self.facts.shape(sources[unit.tensor]) or ())
            op.target = linear_target(unit, kernel, (before, rank))
            return [Input(unit.tensor)], {"kernel": kernel}
        if isinstance(unit, (FusedUnit, ChainUnit)):
            op.target = ScaleTarget()
            if isinstance(unit, FusedUnit):
                op.normalization = _fused(unit, values[1:5])
            else:
                op.normalization = _chained(unit)
            return [Input(unit.tensor)], {}
        op.rule = RULES.get(unit.first.op)
        found = described(unit.first, values, rank) if op.rule is not None else None
        if found is None:
            op.rule = None
            return every, {}
        return list(found.arguments), found.attributes

    def _obstacle(self, unit: Unit, touched: list[Source]) -> str | None:
        if unit.first.name in self.in_loops:
            return IN_A_LOOP
        known = [self.facts.shape(source) for source in touched]
        return "has a tensor of unknown rank" if any(not shape for shape in known) else None

    def _tensor(self, source: Source) -> Tensor:
        if source not in self.tensors:
            self.tensors[source] = Tensor(self.facts.shape(source) or (), self.facts.dtype(source))
        return self.tensors[source]

    def _replace(self, source: Source, tensor: Tensor) -> None:
        """Put the tensor that a call makes in the place of one that others, in a loop, read before."""
        if (early := self.tensors.get(source)) is not None:
            tensor.users += early.users
            for user in filter(None, early.users):
                user.arguments = [tensor if given is early else given for given in user.arguments]
        self.tensors[source] = tensor


def _fused(unit: FusedUnit, constants: list[Any]) -> Normalization:
    """Of a fused batch norm, whose kernel takes the mean off first."""
    gamma, beta, mean, variance = (np.asarray(constant, "float64") for constant in constants)
    axis = 1 if is_channels_first(unit.first) else -1
    with np.errstate(all="ignore"):  # the core looks for what is not finite
        scale = gamma / np.sqrt(variance + attribute(unit.first, "epsilon").f)
        affine = Affine(scale, beta - scale * mean)
    return Normalization(affine, gamma, beta, axis, scale.shape, True)


def _chained(unit: ChainUnit) -> Normalization:
    assert unit.scale is not None
    assert unit.offset is not None
    scale, offset = np.broadcast_arrays(unit.scale, unit.offset)
    axes = tuple(axis + 1 for axis, size in enumerate(scale.shape) if size > 1)
    return Normalization(
        Affine(scale.ravel(), offset.ravel()),
        gamma=np.ones(scale.size),
        beta=offset.ravel() if not unit.centers_first else np.zeros(scale.size),
        axis=axes,
        sizes=tuple(scale.shape[axis - 1] for axis in axes),
        centers_first=unit.centers_first,
    )


def _in_loops(nodes: Nodes) -> set[str]:
    """What runs in the frame of a loop, where a constant from outside is not to be had."""
    readers = nodes.readers()
    found: set[str] = set()
    waiting = [node for node in nodes if node.op in ("Enter", "RefEnter")]
    while waiting:
        node = waiting.pop()
        if node.name in found or node.op in ("Exit", "RefExit"):
            continue
        found.add(node.name)
        numbers = {source.output for source in readers if source.node == node.name}
        waiting += [reader for number in numbers for reader in readers[Source(node.name, number)]]
    return found
