"""Import statements rewritten; every other byte stays.

`ast` tells where the statements of a file are, and libcst takes apart only those that change, with their
comments and line breaks: it does not give back whole files to the byte (lone carriage returns, an
indented comment that ends the file without a line end), and takes ten times as long for them.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Callable
from dataclasses import dataclass

import libcst as cst

from ..tf1 import symbols
from .targets import TENSORFLOW

LINE_END = re.compile(r"\r\n|\r|\n")
Target = Callable[[str], "str | None"]  # a dotted name's new one


@dataclass(frozen=True)
class Rules:
    """What is called what.

    Attributes:
        target: of a module or name.
        star: of a module that all names are imported from.
        left: local names that go on being TensorFlow 2.
    """

    target: Target
    star: Target
    left: frozenset[str]


class Text:
    """The text of a file, and where the statements of its syntax tree are in it."""

    def __init__(self, text: str) -> None:
        self.text = text
        ends = [match.end() for match in LINE_END.finditer(text)]
        self._starts = [0, *ends]

    def position(self, line: int, column: int) -> int:
        """Where a line's column, which `ast` counts in bytes of UTF-8, is in the text."""
        start = self._starts[line - 1]
        ahead = self.text[start : start + column]
        if ahead.isascii():
            return start + column
        rest = self.text[start : start + column].encode()[:column]
        return start + len(rest.decode(errors="ignore"))

    def span(self, node: ast.stmt) -> tuple[int, int]:
        """Where a statement begins and ends."""
        end_line, end_column = node.end_lineno or node.lineno, node.end_col_offset or 0
        return self.position(node.lineno, node.col_offset), self.position(end_line, end_column)

    def indent(self, start: int, end: int) -> str | None:
        """What is before a statement in its line; `None` if it shares the line with others."""
        before = LINE_END.split(self.text[:start])[-1]
        after = LINE_END.split(self.text[end:], maxsplit=1)[0].strip()
        return before if not before.strip() and (not after or after.startswith("#")) else None

    def line_end(self, end: int) -> tuple[int, str]:
        """Where a line ends, and by what; as the first line, if it is the last."""
        found = LINE_END.search(self.text, end)
        if found is not None:
            return found.start(), found[0]
        first = LINE_END.search(self.text)
        return len(self.text), "\n" if first is None else first[0]


@dataclass(frozen=True)
class Change:
    """What stands for an import statement.

    Attributes:
        node: the statement.
        statements: those in its place.
        namespace: what they call `tfbn.compat.tf1`, if they import it.
    """

    node: ast.Import | ast.ImportFrom
    statements: list[str]
    namespace: str | None


def changed(text: Text, nodes: list[ast.Import | ast.ImportFrom], rules: Rules) -> list[Change]:
    """The statements that do not stay, in their order."""
    found = []
    for node in sorted(nodes, key=lambda node: (node.lineno, node.col_offset)):
        start, end = text.span(node)
        statements, namespace = rewritten(text.text[start:end], node, rules)
        if statements is not None:
            found.append(Change(node, statements, namespace))
    return found


def applied(text: Text, changes: list[Change], enable: Change | None) -> str:
    """The text with its changes.

    Args:
        enable: the change behind which `enable()` is called, too.
    """
    parts, done = [], 0
    for change in changes:
        start, end = text.span(change.node)
        indent = text.indent(start, end)
        place, line_end = text.line_end(end)
        call = [f"{change.namespace}.enable()"] if change is enable else []
        parts.append(text.text[done:start])
        if indent is None:  # it shares its line with others
            parts.append("; ".join([*change.statements, *call]))
            done = end
        else:
            parts.append(f"{line_end}{indent}".join(change.statements))
            parts += [text.text[end:place], *(f"{line_end}{indent}{line}" for line in call)]
            done = place
    return "".join([*parts, text.text[done:]])


def rewritten(
    statement: str, node: ast.Import | ast.ImportFrom, rules: Rules
) -> tuple[list[str] | None, str | None]:
    """What stands for a statement, or `None` if it stays; and what the namespace is called then."""
    if isinstance(node, ast.Import):
        return _import(node, rules)
    if node.level or node.module is None:
        return None, None
    return _import_from(statement, node, node.module, rules), _local_root(node, rules)


def _import(node: ast.Import, rules: Rules) -> tuple[list[str] | None, str | None]:
    statements: list[str] = []
    kept: list[str] = []
    namespace = None
    for alias in node.names:
        top = alias.name.partition(".")[0]
        local = alias.asname or top
        target = None if local in rules.left else rules.target(alias.name)
        if target is not None and not alias.asname:
            # It binds the package's own name, through which all of it is reached.
            target = symbols.HERE if top == TENSORFLOW else None
        if target is None:
            kept.append(alias.name + (f" as {alias.asname}" if alias.asname else ""))
            continue
        if kept:
            statements.append(f"import {', '.join(kept)}")
            kept = []
        statements.append(_from(target, local))
        namespace = namespace or (local if target == symbols.HERE else None)
    if not statements:
        return None, None
    return statements + ([f"import {', '.join(kept)}"] if kept else []), namespace


def _from(target: str, local: str) -> str:
    module, _, name = target.rpartition(".")
    return f"from {module} import {name}" + ("" if name == local else f" as {local}")


def _local_root(node: ast.ImportFrom, rules: Rules) -> str | None:
    """What `from tensorflow.compat import v1 as tf` calls the namespace."""
    for alias in node.names:
        dotted, local = f"{node.module}.{alias.name}", alias.asname or alias.name
        if rules.target(dotted) == symbols.HERE and local not in rules.left:
            return local
    return None


def _import_from(statement: str, node: ast.ImportFrom, module: str, rules: Rules) -> list[str] | None:
    if node.names[0].name == "*":
        star = rules.star(module)
        return None if star is None else _with_module(statement, star, {})
    groups: dict[str, list[tuple[str, str, str]]] = {}  # module: old name, new name, local name
    for alias in node.names:
        local = alias.asname or alias.name
        target = None if local in rules.left else rules.target(f"{module}.{alias.name}")
        new_module, _, name = (target or f"{module}.{alias.name}").rpartition(".")
        groups.setdefault(new_module, []).append((alias.name, name, local))
    if list(groups) == [module] and all(old == new for old, new, _ in groups[module]):
        return None
    if len(groups) == 1:
        ((new_module, names),) = groups.items()
        return _with_module(statement, new_module, {old: new for old, new, _ in names})
    if "#" in statement:
        return None  # its comments belong to names that would go apart
    return [
        f"from {new_module} import "
        + ", ".join(new if new == local else f"{new} as {local}" for _, new, local in names)
        for new_module, names in groups.items()
    ]


def _with_module(statement: str, module: str, names: dict[str, str]) -> list[str] | None:
    """A statement that imports from another module, its line breaks and comments as they are."""
    try:
        whole = cst.parse_module(statement)
    except cst.ParserSyntaxError:
        return None
    line = whole.body[0]
    if not isinstance(line, cst.SimpleStatementLine) or not isinstance(line.body[0], cst.ImportFrom):
        return None
    old = line.body[0]
    if whole.code_for_node(old) != statement:
        return None
    path = cst.parse_expression(module)
    new = old.with_changes(module=path)
    if not isinstance(old.names, cst.ImportStar):
        new = new.with_changes(names=[_renamed(alias, names) for alias in old.names])
    return [whole.code_for_node(new)]


def _renamed(alias: cst.ImportAlias, names: dict[str, str]) -> cst.ImportAlias:
    old = alias.evaluated_name
    new = names.get(old, old)
    if new == old:
        return alias
    name = cst.Name(new)
    if alias.evaluated_alias == new:
        return alias.with_changes(name=name, asname=None)
    as_old = cst.AsName(cst.Name(alias.evaluated_alias or old))
    return alias.with_changes(name=name, asname=as_old)
