"""A GraphDef that can be changed: nodes by name, who reads what, constants."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import tensorflow as tf

GraphDef: TypeAlias = Any  # tf.compat.v1.GraphDef; protocol buffers have no types


class Source(NamedTuple):
    """A tensor: the name of the node that makes it, and which of its outputs it is."""

    node: str
    output: int

    @classmethod
    def of(cls, text: str) -> Source:
        """Read `name`, or `name:1`."""
        name, _, number = text.partition(":")
        return cls(name, int(number or 0))

    def __str__(self) -> str:
        return f"{self.node}:{self.output}" if self.output else self.node


# Of attributes that need not be written, and are not empty then.
_DEFAULTS = {
    "is_training": tf.compat.v1.AttrValue(b=True),
    "epsilon": tf.compat.v1.AttrValue(f=1e-4),
    "alpha": tf.compat.v1.AttrValue(f=0.2),
}


def attribute(node: Any, name: str) -> Any:
    """An attribute of a node, or its default; `node.attr[name]` would make one."""
    return node.attr[name] if name in node.attr else _DEFAULTS.get(name, tf.compat.v1.AttrValue())


def called_by(node: Any) -> list[str]:
    """The names of the functions that a node calls: branches, bodies and conditions."""
    return [
        called.name
        for value in node.attr.values()
        for called in (value.func, *value.list.func)
        if called.name
    ]


class Nodes:
    """The nodes of a graph.

    Attributes:
        by_name: all of them.
        keep: the tensors that somebody fetches.
        functions: what nodes may call, by name.
    """

    def __init__(self, definition: GraphDef, keep: Iterable[Source]) -> None:
        self.by_name: dict[str, Any] = {node.name: node for node in definition.node}
        self.keep = list(keep)
        self.functions = {made.signature.name: made for made in definition.library.function}
        self._library, self._versions = definition.library, definition.versions

    def __iter__(self) -> Iterator[Any]:
        return iter(list(self.by_name.values()))

    def inputs(self, node: Any) -> list[Source]:
        """The tensors that a node reads, in order; not what it only waits for."""
        return [Source.of(text) for text in node.input if not text.startswith("^")]

    def set_input(self, node: Any, number: int, source: Source) -> None:
        node.input[number] = str(source)

    def readers(self) -> dict[Source, list[Any]]:
        """The nodes that read each tensor, once for each time."""
        found = defaultdict(list)
        for node in self:
            for source in self.inputs(node):
                found[source].append(node)
        return found

    def add_constant(self, name: str, value: np.ndarray) -> Source:
        """Add a constant, under a name that is not taken."""
        node = tf.compat.v1.NodeDef(name=self._free(name), op="Const")
        node.attr["value"].tensor.CopyFrom(tf.make_tensor_proto(value))
        node.attr["dtype"].type = tf.as_dtype(value.dtype).as_datatype_enum
        return self._added(node)

    def add(
        self, name: str, op: str, inputs: Iterable[Source], like: Any, **attributes: bytes
    ) -> Source:
        """Add an operation of one type of tensors, which `like` has, too, at its place."""
        node = tf.compat.v1.NodeDef(name=self._free(name), op=op, device=like.device)
        node.input.extend(map(str, inputs))
        node.attr["T"].CopyFrom(like.attr["T"])
        for key, value in attributes.items():
            node.attr[key].s = value
        return self._added(node)

    def rename(self, node: Any, name: str) -> None:
        """Give a node another name; readers go on reading the old one, which is free then."""
        del self.by_name[node.name]
        node.name = self._free(name)
        self.by_name[node.name] = node

    def replace(self, node: Any, op: str, inputs: Iterable[Source]) -> None:
        """Make another operation of a node, under its name and for the type that it has itself."""
        waits = self._waits(node.name)
        kind = node.attr["T"].type
        node.op = op
        node.ClearField("attr")
        node.ClearField("input")
        node.input.extend([*map(str, inputs), *waits])
        node.attr["T"].type = kind

    def bypass(self, op: str) -> None:
        """Let what reads an output of such operations read the input of the same number."""
        for node in self:
            for number, source in enumerate(self.inputs(node)):
                given = source
                while self.by_name[given.node].op == op and not self._waits(given.node):
                    given = self.inputs(self.by_name[given.node])[given.output]
                if given != source:
                    self.set_input(node, number, given)

    def wait(self, node: Any, waits: Iterable[str]) -> None:
        """Let a node wait for others, `"^name"`, too."""
        node.input.extend(text for text in dict.fromkeys(waits) if text not in node.input)

    def definition(self, feeds: Iterable[str]) -> GraphDef:
        """What is left of the graph: what leads to the tensors that are kept, and the nodes fed."""
        waiting = [*(source.node for source in self.keep), *feeds]
        wanted: set[str] = set()
        while waiting:
            name = waiting.pop()
            if name not in wanted:
                wanted.add(name)
                waiting += [Source.of(text.lstrip("^")).node for text in self.by_name[name].input]
        left = tf.compat.v1.GraphDef(library=self._library, versions=self._versions)
        left.node.extend(node for name, node in self.by_name.items() if name in wanted)
        return left

    def _waits(self, name: str) -> list[str]:
        return [text for text in self.by_name[name].input if text.startswith("^")]

    def _added(self, node: Any) -> Source:
        self.by_name[node.name] = node
        return Source(node.name, 0)

    def _free(self, name: str) -> str:
        taken, number = name, 0
        while taken in self.by_name:
            number += 1
            taken = f"{name}_{number}"
        return taken
