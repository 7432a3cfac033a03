"""Which nodes of a graph are one thing: a linear operation and its bias, a batch norm and its parts."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from .called import called_convolution
from .facts import Facts
from .nodes import Nodes, Source, attribute

PRODUCTS = {"Mul", "RealDiv"}
FUSED = {"FusedBatchNorm", "FusedBatchNormV2", "FusedBatchNormV3"}
SUMS = {"Add", "AddV2", "BiasAdd"}
ARITHMETIC = {*SUMS, "Sub", *PRODUCTS}
# For each linear operation, which of its inputs is the tensor, and which the kernel.
LINEAR = {
    "Conv2D": (0, 1),
    "Conv3D": (0, 1),
    "DepthwiseConv2dNative": (0, 1),
    "Conv2DBackpropInput": (2, 1),
    "MatMul": (0, 1),
    "BatchMatMulV2": (0, 1),
    "Einsum": (0, 1),
    "_FusedConv2D": (0, 1),
}
CALLS = {"PartitionedCall", "StatefulPartitionedCall"}
CHANNELS_FIRST = {b"NCHW", b"NCDHW", b"NCW"}


@dataclass(frozen=True, eq=False)
class Unit:
    """Nodes that are one call of the core.

    Attributes:
        nodes: in the order in which they run; the last one makes what others read.
        tensor: which input of the first one is the tensor, for all that is not a node as it is.
    """

    nodes: tuple[Any, ...]
    tensor: int = 0

    @property
    def first(self) -> Any:
        return self.nodes[0]

    @property
    def last(self) -> Any:
        return self.nodes[-1]

    @property
    def name(self) -> str:
        """What reports call it."""
        return str(self.last.name)


@dataclass(frozen=True, eq=False)
class LinearUnit(Unit):
    """A linear operation with a constant kernel, and the constant that is added to what it makes.

    Attributes:
        kernel: which input is the kernel.
        called: the operation, where the first node calls a function that does nothing else, as Keras has
            XLA compile grouped convolutions.
    """

    kernel: int = 1
    called: Any = None

    @property
    def operation(self) -> Any:
        """The node whose attributes say what is computed."""
        return self.first if self.called is None else self.called

    @property
    def bias(self) -> Any | None:
        """The node that adds it."""
        return self.nodes[1] if len(self.nodes) > 1 else None


@dataclass(frozen=True, eq=False)
class FusedUnit(Unit):
    """A fused batch norm at inference."""


@dataclass(frozen=True, eq=False)
class ChainUnit(Unit):
    """Products and sums with constants for each channel: `scale · x + offset` of a sample.

    Attributes:
        scale, offset: of the rank of a sample, float64.
        centers_first: whether it begins by taking something off.
    """

    scale: np.ndarray | None = None
    offset: np.ndarray | None = None
    centers_first: bool = False

    @property
    def name(self) -> str:
        """Of its product: what is added may be another layer's."""
        return next(str(node.name) for node in self.nodes if node.op in PRODUCTS)


def units(nodes: Nodes, facts: Facts) -> list[Unit]:
    """All nodes that are no constants, in an order in which they can run."""
    return list(_Units(nodes, facts).found())


def is_channels_first(node: Any) -> bool:
    return attribute(node, "data_format").s in CHANNELS_FIRST


def constant_for(node: Any, value: np.ndarray, rank: int) -> np.ndarray:
    """The constant that a node adds or multiplies by, of `rank` axes."""
    value = np.asarray(value, "float64")
    if node.op == "BiasAdd" and is_channels_first(node):
        return value.reshape((1, -1, *[1] * (rank - 2)))
    return value.reshape((1,) * (rank - value.ndim) + value.shape)


class _Units:
    def __init__(self, nodes: Nodes, facts: Facts) -> None:
        self.nodes, self.facts = nodes, facts
        self.readers = nodes.readers()
        self.kept = set(nodes.keep)
        self.inside: set[str] = set()  # names of the nodes that are in a unit with others

    def found(self) -> Iterator[Unit]:
        order = [
            node for node in _ordered(self.nodes) if not self.facts.is_constant(Source(node.name, 0))
        ]
        grouped = {}
        for node in order:
            unit = None if node.name in self.inside else self._group(node)
            if unit is not None:
                self.inside |= {part.name for part in unit.nodes}
                grouped[unit.last.name] = unit
        for node in order:
            if node.name in grouped:
                yield grouped[node.name]
            elif node.name not in self.inside:
                yield Unit((node,))

    def _group(self, node: Any) -> Unit | None:
        if node.op in LINEAR:
            return self._linear(node, node, *LINEAR[node.op])
        if node.op in CALLS and (found := called_convolution(node, self.nodes)) is not None:
            return self._linear(node, *found)
        if node.op in FUSED:
            return self._fused(node)
        return self._chain(node) if node.op in ARITHMETIC else None

    def _linear(self, node: Any, operation: Any, tensor: int, kernel: int) -> Unit | None:
        inputs = self.nodes.inputs(node)
        value = self.facts.value(inputs[kernel])
        if value is None or (node.op == "_FusedConv2D" and self.facts.value(inputs[2]) is None):
            return None
        after = self._only_reader(node)
        can = after is not None and node.op != "_FusedConv2D"
        biased = can and self._adds_bias(node, after, is_channels_first(operation))
        called = None if operation is node else operation
        return LinearUnit((node, after) if biased else (node,), tensor, kernel, called)

    def _adds_bias(self, node: Any, after: Any, channels_first: bool) -> bool:
        """Whether a node adds a number to each channel of what a linear operation makes."""
        if after.op not in SUMS or (constant := self._constant_of(after)) is None:
            return False
        rank = len(self.facts.shape(Source(node.name, 0)) or ())
        if constant.ndim > rank:
            return False
        channel = 1 if channels_first else rank - 1
        size = constant_for(after, constant, rank).shape
        made, biased = (self.facts.shape(Source(part.name, 0)) for part in (node, after))
        if made is None or biased is None or len(made) != len(biased):
            return False
        # A sum may also make more channels of one.
        own = made[channel] or biased[channel] if made[channel] != 1 else 1
        return size == tuple(own if axis == channel else 1 for axis in range(rank))

    def _fused(self, node: Any) -> Unit | None:
        constants = [self.facts.value(source) for source in self.nodes.inputs(node)[1:5]]
        known = len(constants) == 4 and all(constant is not None for constant in constants)
        used = [
            self.readers[Source(node.name, output)] for output in range(1, self.facts.outputs(node.name))
        ]
        own = any(source.node == node.name and source.output for source in self.kept)
        if attribute(node, "is_training").b or not known or any(used) or own:
            return None
        return FusedUnit((node,))

    def _chain(self, node: Any) -> Unit | None:
        chain, constants = [], []
        rank = len(self.facts.shape(Source(node.name, 0)) or ())
        varying: set[tuple[int, ...]] = set()
        while node is not None and node.op in ARITHMETIC:
            constant = self._constant_of(node)
            if constant is None or not self._keeps_shape(node, constant):
                break
            constants.append(constant_for(node, constant, rank)[0])
            varying |= {constants[-1].shape} - {(1,) * (rank - 1)}
            if len(varying) > 1:  # a constant for each place, say, behind one for each channel
                constants.pop()
                break
            chain.append(node)
            node = self._only_reader(node)
        kinds = {
            kind.op in PRODUCTS for kind, value in zip(chain, constants, strict=True) if value.size > 1
        }
        if kinds != {True, False}:  # not both a product and a sum for each channel
            return None
        scale, offset = np.ones((1,) * (rank - 1)), np.zeros((1,) * (rank - 1))
        with np.errstate(all="ignore"):  # the core looks for what is not finite
            for part, value in zip(chain, constants, strict=True):
                scale, offset = _applied(part, self._tensor_of(part) == 0, value, scale, offset)
        return ChainUnit(tuple(chain), self._tensor_of(chain[0]), scale, offset, chain[0].op == "Sub")

    def _constant_of(self, node: Any) -> np.ndarray | None:
        """The one constant that a node takes beside a tensor."""
        inputs = self.nodes.inputs(node)
        values = [self.facts.value(source) for source in inputs]
        known = [value for value in values if value is not None]
        if len(inputs) != 2 or len(known) != 1 or (node.op == "RealDiv" and values[1] is None):
            return None
        return known[0] if known[0].dtype.kind in "fV" else None

    def _tensor_of(self, node: Any) -> int:
        first, _ = self.nodes.inputs(node)
        return int(self.facts.value(first) is not None)

    def _keeps_shape(self, node: Any, constant: np.ndarray) -> bool:
        """Whether the result has the tensor's shape, and all samples are changed alike."""
        before = self.facts.shape(self.nodes.inputs(node)[self._tensor_of(node)])
        after = self.facts.shape(Source(node.name, 0))
        if before is None or after is None or len(before) != len(after) or len(before) < 2:
            return False
        if constant.ndim > len(before):
            return False
        sizes = constant_for(node, constant, len(before)).shape
        return sizes[0] == 1 and all(
            size in (1, own) for size, own in zip(sizes[1:], before[1:], strict=True)
        )

    def _only_reader(self, node: Any) -> Any | None:
        source = Source(node.name, 0)
        readers = self.readers[source]
        others = source in self.kept or len(readers) != 1
        return None if others else readers[0]


def _applied(
    node: Any, first: bool, value: np.ndarray, scale: np.ndarray, offset: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """`scale` and `offset` after one more product or sum; `first` says whether the tensor is."""
    if node.op == "Mul":
        return scale * value, offset * value
    if node.op == "RealDiv":
        return scale / value, offset / value
    if node.op != "Sub":
        return scale, offset + value
    return (scale, offset - value) if first else (-scale, value - offset)


def _ordered(nodes: Nodes) -> Iterator[Any]:
    """The nodes, each behind those that it reads; loops are cut somewhere."""
    seen: set[str] = set()
    for start in nodes:
        stack = [(start, False)]
        while stack:
            node, ready = stack.pop()
            if ready:
                yield node
                continue
            if node.name in seen:
                continue
            seen.add(node.name)
            stack.append((node, True))
            names = (source.node for source in nodes.inputs(node))
            stack += [(nodes.by_name[name], False) for name in names if name not in seen]
