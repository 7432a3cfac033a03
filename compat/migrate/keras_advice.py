"""What rewriting imports does not mend in sources of Keras 1 and 2, line by line."""

from __future__ import annotations

import ast
from collections.abc import Iterator

from . import moved
from .findings import Finding
from .names import Names

# Arguments that only Keras 2's BatchNormalization has, and those that only Keras 1's has.
KERAS2_ARGUMENTS = (
    *("center", "scale", "beta_initializer", "gamma_initializer", "beta_constraint", "gamma_constraint"),
    *("moving_mean_initializer", "moving_variance_initializer"),
)
MODE = "mode= is Keras 1's: tfbn.compat.BatchNormalization takes it, keras.layers' does not."


def batch_normalization(names: Names) -> str:
    """Which class a file's BatchNormalization is: ours unless its arguments are those of Keras 2."""
    for call in _calls_of(names, "BatchNormalization"):
        given = {keyword.arg for keyword in call.keywords}
        first = call.args[0] if call.args else None
        # Keras 1 has the epsilon first, which is no integer; Keras 2 has the axis.
        is_axis = isinstance(first, ast.UnaryOp) or (
            isinstance(first, ast.Constant) and isinstance(first.value, int)
        )
        if given & set(KERAS2_ARGUMENTS) or is_axis:
            return moved.THEIRS
    return moved.OURS


def keras_advice(names: Names) -> list[Finding]:
    """What is to be looked at in a file that imports Keras."""
    if all(dotted.partition(".")[0] != "keras" for dotted, _ in names.modules):
        return []
    found = [*_imports(names), *_arguments(names), *_calls_of_gone(names)]
    return sorted(set(found))


def _calls_of(names: Names, name: str) -> Iterator[ast.Call]:
    """Calls of something of Keras' by its class' name, under whatever path."""
    for node in names.nodes:
        if isinstance(node, ast.Call) and _keras_name(node.func, names) == name:
            yield node


def _keras_name(node: ast.AST, names: Names) -> str | None:
    """The last part of Keras' name for an expression."""
    if isinstance(node, ast.Name):
        dotted = names.keras.get(node.id)
        return None if dotted is None else dotted.rpartition(".")[2]
    last = node
    while isinstance(node, ast.Attribute):
        node = node.value
    known = isinstance(node, ast.Name) and node.id in names.keras
    return last.attr if known and isinstance(last, ast.Attribute) else None


def _imports(names: Names) -> Iterator[Finding]:
    for dotted, line in names.modules:
        module, _, name = dotted.rpartition(".")
        if dotted.partition(".")[0] != "keras":
            continue
        if name in moved.GONE and module.startswith("keras.layers"):
            yield Finding(line, f"{name}: {moved.GONE[name]}")
        elif _is_old(module) and dotted not in (*moved.MOVED, moved.BATCH_NORMALIZATION):
            yield Finding(
                line, f"{dotted}: Keras 3 has no {module}; look for {name} in {_place(module)}."
            )
        elif _is_old(dotted) and dotted not in moved.MOVED:
            yield Finding(line, f"Keras 3 has no {dotted}; import from {_place(dotted)}.")


def _is_old(module: str) -> bool:
    return module == "keras.layers.normalization" or any(
        old.startswith(f"{module}.") and module not in ("keras", "keras.layers", "keras.utils")
        for old in moved.MOVED
    )


def _place(module: str) -> str:
    """The module of Keras 3 that has most of an old one."""
    found = (new for old, new in moved.MOVED.items() if old.startswith(f"{module}."))
    return next(found, "keras.layers.").rpartition(".")[0]


def _arguments(names: Names) -> Iterator[Finding]:
    for node in names.nodes:
        if isinstance(node, ast.Call):
            for keyword in node.keywords:
                if keyword.arg in moved.ARGUMENTS:
                    line = keyword.value.lineno
                    yield Finding(
                        line, f"{keyword.arg}= is Keras 1's: write {moved.ARGUMENTS[keyword.arg]}."
                    )
    for call in _calls_of(names, "BatchNormalization"):
        yield from (Finding(key.value.lineno, MODE) for key in call.keywords if key.arg == "mode")


def _calls_of_gone(names: Names) -> Iterator[Finding]:
    for name, sentence in moved.GONE.items():
        for call in _calls_of(names, name):
            yield Finding(call.lineno, f"{name}: {sentence}")
