"""Whether a file is a program of TensorFlow 1, and whether it runs a graph itself.

It is one if it imports contrib, or uses through a name of TensorFlow's what only TensorFlow 1 had there
(`signs`): `tf.layers`, `tf.Session`, `tf.placeholder`, `tf.get_variable`, `tf.train.AdamOptimizer`.
`tf.compat.v1.Session`, written out, is none: TensorFlow 2 has that, so the file needs nothing.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator

from . import signs
from .names import Names, Use
from .targets import TENSORFLOW

# Who uses these runs a graph.
_RUNS = (
    "Session InteractiveSession placeholder app.run train.MonitoredTrainingSession train.Supervisor "
    "train.SingularMonitoredSession contrib.slim.learning.train contrib.training.train "
    "contrib.slim.evaluation.evaluate_once contrib.slim.evaluation.evaluation_loop"
)
RUNS = frozenset(_RUNS.split())
# Who uses these has decided already how TensorFlow behaves.
_DECIDES = "enable disable_v2_behavior disable_eager_execution enable_eager_execution enable_v2_behavior"
DECIDES = frozenset(_DECIDES.split())


def is_sign(use: Use) -> bool:
    """Whether only TensorFlow 1 had that under this name."""
    first, _, rest = use.path.partition(".")
    known = first == "contrib" or first in signs.TOP
    return not use.today and (known or rest.partition(".")[0] in signs.INSIDE.get(first, ()))


def is_program(names: Names) -> bool:
    """Whether a file is a program of TensorFlow 1, through a name that is TensorFlow's."""
    return any(is_sign(use) for use in names.uses if use.local not in names.keras)


def left_roots(names: Names) -> set[str]:
    """Names of TensorFlow 2 in a file that calls TensorFlow 1 by another name, and uses no contrib."""
    if all(root == TENSORFLOW for root in names.roots.values()):
        return set()
    if any(name.startswith(f"{TENSORFLOW}.contrib") for name, _ in names.modules):
        return set()
    plain = {local for local, root in names.roots.items() if root == TENSORFLOW}
    return plain - {use.local for use in names.uses if is_sign(use)}


def runs(names: Names) -> list[Use]:
    """Where a file runs a graph, unless it decides itself how TensorFlow behaves.

    Where Keras is used nothing is to be switched, for Keras 3 does not run in graph mode.
    """
    paths = {use.path for use in names.uses}
    keras = names.keras or any(path.partition(".")[0] == "keras" for path in paths)
    decided = any(path in DECIDES or path.startswith("contrib.eager") for path in paths)
    if keras or decided:
        return []
    return [use for use in names.uses if use.path in RUNS]


def runs_a_graph(names: Names, tree: ast.Module) -> bool:
    """Whether a file is to be run, opens sessions or makes placeholders, and decides nothing else.

    To be run is a file that does so outside of functions, or asks for `__name__`, or calls `tf.app.run`.
    """
    running = runs(names)
    outside = {id(node) for node in outside_functions(tree)}
    return bool(running) and (
        any(use.path == "app.run" or id(use.node) in outside for use in running)
        or any(isinstance(node, ast.Name) and node.id == "__name__" for node in names.nodes)
    )


def outside_functions(node: ast.AST) -> Iterator[ast.AST]:
    """What is run when a file is imported, or run."""
    for child in ast.iter_child_nodes(node):
        if not isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            yield child
            yield from outside_functions(child)
