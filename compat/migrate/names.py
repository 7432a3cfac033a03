"""What the names in a file mean: which are TensorFlow, which are something in it."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass

from ..tf1 import symbols
from .targets import TENSORFLOW, V1_PREFIX, without_v1

SLIM = "tf_slim"


@dataclass(frozen=True)
class Use:
    """A name of TensorFlow's in an expression, or in a `from … import`.

    Attributes:
        path: within TensorFlow, without compat.v1: "contrib.layers.batch_norm".
        today: written out as `tf.compat.v1.…`, or of tf_slim, so that it is found without a change.
        local: the name in the file that it begins with.
        node: where it is.
    """

    path: str
    today: bool
    local: str
    node: ast.AST

    @property
    def line(self) -> int:
        """Where it begins."""
        return int(getattr(self.node, "lineno", 1))


class Names:
    """The names in a file, whatever function they are in: old programs rarely reuse one."""

    def __init__(self, tree: ast.Module) -> None:
        self.nodes = list(ast.walk(tree))
        self.roots: dict[str, str] = {}  # local name, and whose: tensorflow, tensorflow.compat.v1, ours
        self.imports = [node for node in self.nodes if isinstance(node, ast.Import | ast.ImportFrom)]
        self._bound: dict[str, str] = {}  # local name, and raw path within TensorFlow
        self.modules: list[tuple[str, int]] = []  # what is imported, dotted, with its line
        self.slim: set[str] = set()  # local names of tf_slim's
        self.keras: dict[str, str] = {}  # local name, and dotted name of Keras
        for node in self.imports:
            self._bind(node)
        self._bind_assigned()
        self.uses = list(self._uses())
        self.by_node = {id(use.node): use for use in self.uses}

    def _bind(self, node: ast.Import | ast.ImportFrom) -> None:
        if isinstance(node, ast.Import):
            for alias in node.names:
                top = alias.name.partition(".")[0]
                self.modules.append((alias.name, node.lineno))
                self._bind_one(alias.asname or top, alias.name if alias.asname else top)
        elif node.module is not None and not node.level:
            for alias in node.names:
                self.modules.append((f"{node.module}.{alias.name}", node.lineno))
                if alias.name != "*":
                    self._bind_one(alias.asname or alias.name, f"{node.module}.{alias.name}")

    def _bind_one(self, local: str, dotted: str) -> None:
        if dotted in (TENSORFLOW, f"{TENSORFLOW}.{V1_PREFIX}", symbols.HERE):
            self.roots[local] = dotted
            self._bound[local] = ""
        elif dotted.partition(".")[0] == "keras":
            self.keras[local] = dotted
        elif dotted.partition(".")[0] == SLIM:
            self.slim.add(local)
            self._bound[local] = raw_path(dotted) or ""
        elif (path := raw_path(dotted)) is not None:
            self._bound[local] = path

    def _bind_assigned(self) -> None:
        """`slim = tf.contrib.slim`, in the order of lines."""
        assigned = [node for node in self.nodes if isinstance(node, ast.Assign)]
        for node in sorted(assigned, key=lambda node: node.lineno):
            (target, *more), value = node.targets, node.value
            if not more and isinstance(target, ast.Name) and isinstance(value, ast.Attribute):
                found = self._raw(value)
                if found is not None and target.id not in self._bound:
                    self._bound[target.id] = found[0]

    def _raw(self, node: ast.AST) -> tuple[str, str] | None:
        """The raw path of a name or chain of attributes, and the local name that it begins with."""
        parts: list[str] = []
        while isinstance(node, ast.Attribute):
            parts.append(node.attr)
            node = node.value
        if not isinstance(node, ast.Name) or node.id not in self._bound:
            return None
        return ".".join(filter(None, (self._bound[node.id], *reversed(parts)))), node.id

    def path_of(self, node: ast.AST) -> str | None:
        """The path of an expression within TensorFlow, without compat.v1; `None` of anything else."""
        use = self.by_node.get(id(node))
        return None if use is None else use.path

    def _uses(self) -> Iterator[Use]:
        inner = {id(node.value) for node in self.nodes if isinstance(node, ast.Attribute)}
        for node in self.nodes:
            if isinstance(node, ast.Attribute | ast.Name) and id(node) not in inner:
                found = self._raw(node)
                if found is not None and found[0]:
                    raw, local = found
                    today = raw.startswith(V1_PREFIX) or local in self.slim
                    yield Use(without_v1(raw), today, local, node)
        for dotted, line in self.modules:
            path = raw_path(dotted)
            if path and not dotted.startswith(SLIM):
                place = ast.Pass(lineno=line)
                yield Use(without_v1(path).removesuffix(".*"), path.startswith(V1_PREFIX), "", place)


def raw_path(dotted: str) -> str | None:
    """The path of an imported module or name within TensorFlow; tf_slim's as contrib's.

    >>> raw_path("tf_slim.layers.batch_norm"), raw_path("tensorflow.compat.v1.layers"), raw_path("numpy")
    ('contrib.slim.layers.batch_norm', 'compat.v1.layers', None)
    """
    for root, path in ((TENSORFLOW, ""), (symbols.HERE, ""), (SLIM, "contrib.slim")):
        if dotted == root:
            return path
        if dotted.startswith(f"{root}."):
            return ".".join(filter(None, (path, dotted.removeprefix(f"{root}."))))
    return None
