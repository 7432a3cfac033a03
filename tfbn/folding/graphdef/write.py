"""A plan put into a graph: new constants, and batch norms that hand on what they are given."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..core.affine import Affine
from ..core.graph import Op
from ..core.kernel_arithmetic import round_to
from ..core.plan import Plan
from ..core.targets import PendingFold
from .facts import Facts
from .nodes import Nodes, Source, attribute
from .targets import LinearTarget
from .units import ChainUnit, FusedUnit, LinearUnit, Unit, constant_for, is_channels_first


def write(nodes: Nodes, facts: Facts, plan: Plan) -> None:
    """Change the nodes as it was planned."""
    changed = [op for op in plan.pending if op not in plan.into]
    # All is computed before anything is changed.
    todo = [_written(facts, nodes, op, plan.pending[op]) for op in changed]
    waits = {str(op.origin.last.name): _waits(nodes, facts, op.origin) for op in [*changed, *plan.into]}
    for change in todo:
        change(nodes)
    for op in plan.into:
        unit = op.origin
        nodes.replace(unit.last, "Identity", [nodes.inputs(unit.first)[unit.tensor]])
    for name, texts in waits.items():
        nodes.wait(nodes.by_name[name], texts)


def _waits(nodes: Nodes, facts: Facts, unit: Unit) -> list[str]:
    """What the nodes of a unit wait for, and the constants that they take, which others replace."""
    found: list[str] = []
    waiting, seen = [*unit.nodes], set()
    while waiting:
        node = waiting.pop()
        if node.name in seen:
            continue
        seen.add(node.name)
        found += [text for text in node.input if text.startswith("^")]
        waiting += [
            nodes.by_name[source.node] for source in nodes.inputs(node) if facts.is_constant(source)
        ]
    return found


def _written(facts: Facts, nodes: Nodes, op: Op, pending: PendingFold) -> Any:
    if isinstance(op.target, LinearTarget):
        return _Linear(facts, nodes, op.target, pending)
    return _Scale(facts, op, pending)


class _Linear:
    """A linear operation with another kernel, and perhaps another constant behind it."""

    def __init__(self, facts: Facts, nodes: Nodes, target: LinearTarget, pending: PendingFold) -> None:
        unit = self.unit = target.unit
        sources = nodes.inputs(unit.first)
        kernel = facts.value(sources[unit.kernel])
        assert kernel is not None
        self.rank = len(facts.shape(Source(unit.last.name, 0)) or ())
        channel = 1 if is_channels_first(unit.operation) else -1
        given = (facts.shape(sources[unit.tensor]) or ())[channel]
        own = _bias_of(facts, nodes, unit, self.rank)
        folded = unit.operation.op in ("Conv2D", "Conv3D", "_FusedConv2D")
        groups = given // kernel.shape[-2] if folded and given else 1
        kernels, self.bias = target.layout.fold({"kernel": kernel}, own, pending, groups)
        self.dtype = kernel.dtype
        name = facts.dtype(sources[unit.kernel])
        self.kernel = kernels["kernel"].round_to(name)
        self.bias = round_to(self.bias, name)

    def __call__(self, nodes: Nodes) -> None:
        unit = self.unit
        name = unit.first.name
        nodes.set_input(
            unit.first, unit.kernel, nodes.add_constant(f"{name}/folded_kernel", self.kernel)
        )
        if unit.first.op == "_FusedConv2D":
            nodes.set_input(unit.first, 2, nodes.add_constant(f"{name}/folded_bias", self.bias))
        elif unit.bias is not None:
            tensor = nodes.inputs(unit.bias).index(Source(unit.first.name, 0))
            shaped = self.bias if unit.bias.op == "BiasAdd" else self._shaped()
            constant = nodes.add_constant(f"{unit.bias.name}/folded_bias", shaped)
            nodes.set_input(unit.bias, 1 - tensor, constant)
        elif self.bias.any():
            nodes.rename(unit.first, f"{name}/linear")
            linear = Source(unit.first.name, 0)
            bias = nodes.add_constant(f"{name}/folded_bias", self.bias)
            layout = b"NCHW" if is_channels_first(unit.operation) else b"NHWC"
            nodes.add(name, "BiasAdd", [linear, bias], unit.operation, data_format=layout)

    def _shaped(self) -> np.ndarray:
        """For a sum, which puts a constant's last axis on the tensor's."""
        if not is_channels_first(self.unit.operation):
            return self.bias
        return self.bias.reshape((-1, *[1] * (self.rank - 2)))


class _Scale:
    """A batch norm that takes others up: a product and a sum, or a fused one as it was."""

    def __init__(self, facts: Facts, op: Op, pending: PendingFold) -> None:
        assert op.normalization is not None
        self.unit: FusedUnit | ChainUnit = op.origin
        self.dtype = facts.dtype(Source(self.unit.last.name, 0))
        affine = pending.applied_to(op.normalization.affine)
        size = op.normalization.affine.scale.size
        self.affine = Affine(*(np.broadcast_to(array, size) for array in (affine.scale, affine.offset)))

    def __call__(self, nodes: Nodes) -> None:
        if isinstance(self.unit, FusedUnit):
            self._write_fused(nodes, self.unit)
        else:
            self._write_chain(nodes, self.unit)

    def _write_fused(self, nodes: Nodes, unit: FusedUnit) -> None:
        """Of variance 1, with the mean where the output is 0, so that inputs far from 0 keep digits."""
        scale, offset = self.affine.scale, self.affine.offset
        node = unit.first
        mean = -offset / np.where(scale == 0, np.inf, scale)
        mean = mean.astype("float32").astype("float64")
        mean = np.where(np.isfinite(mean), mean, 0)
        gamma = scale * np.sqrt(1 + attribute(node, "epsilon").f)
        values = gamma, offset + scale * mean, mean, np.ones_like(scale)
        for number, (name, value) in enumerate(
            zip(("gamma", "beta", "mean", "variance"), values, strict=True), 1
        ):
            constant = nodes.add_constant(f"{node.name}/folded_{name}", value.astype("float32"))
            nodes.set_input(node, number, constant)

    def _write_chain(self, nodes: Nodes, unit: ChainUnit) -> None:
        assert unit.scale is not None
        assert unit.offset is not None
        shape = np.broadcast_shapes(unit.scale.shape, unit.offset.shape)
        name, last = unit.last.name, unit.last
        source = nodes.inputs(unit.first)[unit.tensor]
        constants = [
            nodes.add_constant(f"{name}/folded_{what}", round_to(value.reshape(shape), self.dtype))
            for what, value in (("scale", self.affine.scale), ("offset", self.affine.offset))
        ]
        product = nodes.add(f"{name}/scaled", "Mul", [source, constants[0]], last)
        nodes.replace(last, "AddV2", [product, constants[1]])


def _bias_of(facts: Facts, nodes: Nodes, unit: LinearUnit, rank: int) -> np.ndarray:
    if unit.first.op == "_FusedConv2D":
        value = facts.value(nodes.inputs(unit.first)[2])
        assert value is not None
        return np.asarray(value, "float64")
    if unit.bias is None:
        return np.zeros(1)
    (value,) = (
        value for source in nodes.inputs(unit.bias) if (value := facts.value(source)) is not None
    )
    return constant_for(unit.bias, value, rank).ravel()
