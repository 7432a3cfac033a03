"""One file: read, decided, rewritten, and what is said of it."""

from __future__ import annotations

import ast
import re
import warnings
from pathlib import Path

from .advice import advice
from .findings import Finding, Result
from .imports import Change, Rules, Text, applied, changed
from .keras_advice import batch_normalization, keras_advice
from .names import Names
from .programs import is_program, left_roots, outside_functions, runs, runs_a_graph
from .sources import Source, UnreadableError, decoded, mentions, unified, write
from .targets import TENSORFLOW, keras_target, star_target, tf1_target

# Statements and literals that Python 2 alone had, as they stand in a line.
PYTHON2 = re.compile(
    r"^\s*(print|exec)\s+(?![=.,)\]])|\bprint\s*>>|^\s*except\s[^:]*,\s*\w+\s*:|^\s*raise\s+[\w.]+\s*,"
    r"|<>|`[^`]+`|\b0\d+\b|\b\d+[lL]\b|\bur['\"]|\bdef\s+\w+\([^)]*\(\w+,|\blambda\s*\("
)
STAYS = (
    "the line stays: its names go to different modules, or it binds a package that is gone. Import each "
    "name from its new place by hand."
)
SWITCH = (
    "sessions and placeholders need TensorFlow 1's behaviour, which is not switched on here: the "
    "program that imports this file calls tf1.enable() before, or is run by python -m tfbn.compat.run."
)


def migrate(path: Path, writing: bool = False) -> Result:
    """Rewrite one file's imports, in the file only if asked to, and look what else is to be done.

    Whatever is wrong with a file is said in the result.
    """
    name = str(path)
    source = None
    try:
        data = path.read_bytes()
        if not mentions(data):
            return Result(name)
        source = decoded(data)
        tree = _parsed(source.text)
    except (OSError, UnreadableError, SyntaxError, ValueError, RecursionError, MemoryError) as error:
        reason, line = _unusable(error, source)
        return Result(name, skipped=f"skipped: {reason}.", line=line)
    text, findings = rewritten(source, tree)
    after = source.encoded(text)
    if after == data:
        return Result(name, findings=tuple(findings))
    failed = ""
    if writing:
        try:
            write(path, after)
        except OSError as error:
            failed = f"not written: {error.strerror or error}."
    return Result(name, unified(path, data, after), tuple(findings), failed=failed)


def rewritten(source: Source, tree: ast.Module) -> tuple[str, list[Finding]]:
    """A file's text with its imports rewritten, and what is to be looked at in it."""
    names = Names(tree)
    program = is_program(names)
    left = frozenset(left_roots(names))
    normalization = batch_normalization(names)

    def target(dotted: str) -> str | None:
        found = tf1_target(dotted) if program else None
        return found or keras_target(dotted, normalization)

    def star(module: str) -> str | None:
        return star_target(module) if program else None

    text = Text(source.text)
    rules = Rules(target, star, left)
    changes = changed(text, names.imports, rules)
    enable = _enabling(changes, tree) if runs_a_graph(names, tree) else None
    findings = [*advice(names, program), *keras_advice(names)]
    if program and enable is None and (running := runs(names)):
        findings.append(Finding(min(use.line for use in running), SWITCH))
    findings += _stuck(names, changes, rules)
    findings += _left(names, program, left)
    return applied(text, changes, enable), sorted(set(findings))


def _enabling(changes: list[Change], tree: ast.Module) -> Change | None:
    """Behind which import TensorFlow is switched: the first that no function makes, if there is one."""
    outside = {id(node) for node in outside_functions(tree)}
    importing = [change for change in changes if change.namespace]
    importing.sort(key=lambda change: id(change.node) not in outside)
    return importing[0] if importing else None


def _stuck(names: Names, changes: list[Change], rules: Rules) -> list[Finding]:
    """Imports of what has a new place, in statements that stay."""
    rewritten_nodes = {id(change.node) for change in changes}
    found = []
    for node in names.imports:
        module = f"{node.module}." if isinstance(node, ast.ImportFrom) and not node.level else ""
        for alias in node.names if id(node) not in rewritten_nodes else ():
            target = rules.target(module + alias.name)
            local = alias.asname or alias.name.partition(".")[0]
            if target not in (None, module + alias.name) and local not in rules.left:
                found.append(Finding(node.lineno, f"{module}{alias.name}: {STAYS}"))
    return found


def _left(names: Names, program: bool, left: frozenset[str]) -> list[Finding]:
    """Why a file, or one name in it, goes on importing TensorFlow 2."""
    lines = [
        line
        for dotted, line in names.modules
        # What is private is told by itself.
        if dotted.partition(".")[0] == TENSORFLOW and not dotted.startswith(f"{TENSORFLOW}.python")
    ]
    if not program and lines:
        return [Finding(min(lines), _reason(names))]
    return [
        Finding(line, f"left as it is: {', '.join(sorted(left))} is TensorFlow 2 in this file.")
        for dotted, line in names.modules
        if left and dotted == TENSORFLOW
    ]


def _reason(names: Names) -> str:
    by_v1 = [use.line for use in names.uses if use.today and use.local not in names.slim]
    if by_v1:
        return (
            "left as it is: what it has of TensorFlow 1 it reaches by tf.compat.v1 "
            f"(line {min(by_v1)}), which TensorFlow 2 has."
        )
    return "left as it is: a program of TensorFlow 2, with nothing that only TensorFlow 1 had."


def _parsed(text: str) -> ast.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of escapes in old strings
        return ast.parse(text)


def _unusable(error: Exception, source: Source | None) -> tuple[str, int]:
    """Why a file is skipped, and where."""
    if isinstance(error, OSError):
        return f"it cannot be read: {error.strerror}", 1
    if not isinstance(error, SyntaxError) or source is None:
        return (str(error) if source is None else f"Python cannot parse it: {error}"), 1
    number = error.lineno or 1
    near = source.text.splitlines()[max(0, number - 2) : number + 1]
    if isinstance(error, TabError) or any(PYTHON2.search(line) for line in near):
        remedy = "Convert it first, by 2to3 of Python up to 3.12, say"
        return f"it is Python 2 ({error.msg}). {remedy}", number
    return f"it is not valid Python: {error.msg}", number
