"""What rewriting imports does not mend in a program of TensorFlow 1, line by line."""

from __future__ import annotations

import ast
from collections.abc import Iterator

from ..tf1 import symbols
from .findings import Finding
from .names import Names, Use
from .targets import TENSORFLOW, is_imported_from, stands

UPDATE_OPS = "update_ops"  # what tf.GraphKeys.UPDATE_OPS is
TRAINING = ("minimize", "apply_gradients")
FETCHES = ("create_train_op", "optimize_loss")
LAYERS = ("layers.", "contrib.layers.", "contrib.slim.", "get_variable", "variable_scope")

NEVER_FETCHED = (
    "the moving statistics of batch norms are never updated: nothing here runs "
    "tf.GraphKeys.UPDATE_OPS. Put the train op under `with "
    "tf.control_dependencies(tf.get_collection(tf.GraphKeys.UPDATE_OPS)):`{}."
)
OWN_COLLECTION = (
    "the updates go into a collection of your own: fetch it in each training step; "
    "compat.VariableScopeLayer runs it if it is told to, update_collections=[…]."
)
VARIABLE = (
    "tf.Variable in a function that builds layers is made anew in each call, whatever the scope's "
    "reuse: write tf.get_variable(name, initializer=…)."
)
POSITIONAL = (
    "more than six positional arguments of batch_norm: the seventh was updates_collections in the "
    "first releases, and is param_initializers in contrib 1.4 to 1.15, as it is here. Write names."
)
ALWAYS_TRAINING = (
    "the batch norm always uses the batch's own statistics, at inference, too: pass a placeholder, "
    "or an argument of the function, in place of True."
)
PRIVATE = (
    f"{TENSORFLOW}.python is private, and changes with each release: it stays. Use the public name, "
    "in tf or tf.compat.v1."
)
KERAS = (
    "Keras 3 does not run in graph mode: take what Keras does out of this program, or put the "
    "TensorFlow 1 code into a compat.VariableScopeLayer."
)
V1_LAYERS = (
    "TensorFlow from 2.16 on has no tf.compat.v1.layers: write `from tfbn.compat import tf1`, and "
    "tf1.layers."
)
SLIM_BATCH_NORM = (
    "tf_slim's batch norm calls tf.layers, which TensorFlow from 2.16 on has not: call "
    "tfbn.compat.slim(last_release=True) once, before; it stores the same variance."
)
UNKNOWN = "tf.{} of TensorFlow 1 is not in tfbn.compat.tf1; docs/migrating.md tells what is."


def advice(names: Names, program: bool) -> list[Finding]:
    """What is to be looked at in a file that imports TensorFlow.

    Args:
        program: whether it is a program of TensorFlow 1; of others only what is private is told, and
            what TensorFlow no longer has, under compat.v1 or for tf_slim.
    """
    found = [*_private(names), *_slim(names), *(() if program else _v1_layers(names))]
    if program:  # where tf.compat.v1 is the namespace, too
        for looked in (_updates, _batch_norm_calls, _variables, _gone, _keras, _differs):
            found += looked(names)
    return sorted(set(found))


def is_batch_norm(path: str | None) -> bool:
    """Whether a path is contrib's batch norm, under any of its names, or that of `tf.layers`."""
    if path is None:
        return False
    contrib = path.startswith("contrib.") and path.endswith(".batch_norm")
    return contrib or path in ("layers.batch_normalization", "layers.BatchNormalization")


def _calls(names: Names) -> Iterator[ast.Call]:
    return (node for node in names.nodes if isinstance(node, ast.Call))


def _given(node: ast.Call | ast.Dict) -> Iterator[tuple[str, ast.expr]]:
    """Keywords and values, of a call or of a dictionary of arguments."""
    if isinstance(node, ast.Call):
        yield from ((item.arg, item.value) for item in node.keywords if item.arg is not None)
    else:
        for key, value in zip(node.keys, node.values, strict=True):
            if isinstance(key, ast.Constant) and isinstance(key.value, str):
                yield key.value, value


def _is(node: ast.AST, value: object) -> bool:
    return isinstance(node, ast.Constant) and node.value is value


def _collections(names: Names) -> Iterator[ast.expr]:
    """What is given as updates_collections, anywhere."""
    for node in names.nodes:
        if isinstance(node, ast.Call | ast.Dict):
            yield from (value for name, value in _given(node) if name == "updates_collections")


def _updates(names: Names) -> Iterator[Finding]:
    for value in _collections(names):
        texts = [
            node.value
            for node in ([value, *value.elts] if isinstance(value, ast.List | ast.Tuple) else [value])
            if isinstance(node, ast.Constant) and isinstance(node.value, str)
        ]
        if texts and UPDATE_OPS not in texts:
            yield Finding(value.lineno, f"updates_collections={texts[0]!r}: {OWN_COLLECTION}")
    if _trains(names) and not _fetches(names):
        updating = [
            use for use in names.uses if is_batch_norm(use.path) and not _never_trains(use, names)
        ]
        if updating:
            first = min(updating, key=lambda use: use.line)
            other = "" if first.path.startswith("layers.") else ", or pass updates_collections=None"
            yield Finding(first.line, NEVER_FETCHED.format(other))


def _trains(names: Names) -> bool:
    return any(isinstance(node, ast.Attribute) and node.attr in TRAINING for node in names.nodes)


def _fetches(names: Names) -> bool:
    mentioned = any(
        (isinstance(node, ast.Attribute) and node.attr in ("UPDATE_OPS", *FETCHES))
        or (isinstance(node, ast.Name) and node.id in FETCHES)
        or (isinstance(node, ast.Constant) and node.value == UPDATE_OPS)
        for node in names.nodes
    )
    return mentioned or any(_is(value, None) for value in _collections(names))


def _never_trains(use: Use, names: Names) -> bool:
    """Whether that is no call, but an import, or a call that says it does not train."""
    if isinstance(use.node, ast.Pass):
        return True
    of_layers = use.path.startswith("layers.")
    for call in _calls(names):
        if call.func is use.node:
            said = [value for name, value in _given(call) if name in ("is_training", "training")]
            return (of_layers and not said and len(call.args) < 14) or any(_is(v, False) for v in said)
    return False  # given to an arg_scope, or as normalizer_fn


def _batch_norm_calls(names: Names) -> Iterator[Finding]:
    for call in _calls(names):
        path = names.path_of(call.func) or ""
        ours = is_batch_norm(path)
        in_scope = path.endswith("arg_scope") and any(
            is_batch_norm(names.path_of(node))
            for argument in call.args[:1]
            for node in getattr(argument, "elts", [argument])
        )
        if ours and path.startswith("contrib.") and len(call.args) > 6:
            yield Finding(call.lineno, POSITIONAL)
        for name, value in _given(call) if ours or in_scope else ():
            if name in ("is_training", "training") and _is(value, True):
                yield Finding(value.lineno, f"{name}=True: {ALWAYS_TRAINING}")


def _variables(names: Names) -> Iterator[Finding]:
    for function in names.nodes:
        if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef):
            inside = [node for node in ast.walk(function) if isinstance(node, ast.Call)]
            paths = [names.path_of(call.func) or "" for call in inside]
            if any(path.startswith(LAYERS) for path in paths):
                for call, path in zip(inside, paths, strict=True):
                    if path == "Variable":
                        yield Finding(call.lineno, VARIABLE)


def _private(names: Names) -> Iterator[Finding]:
    for use in names.uses:
        written_out = isinstance(use.node, ast.Pass) or use.local in names.roots
        if written_out and f"{use.path}.".startswith("python."):
            yield Finding(use.line, PRIVATE)


def _slim(names: Names) -> Iterator[Finding]:
    """The first batch norm of tf_slim's, or network with some, in a file that does not bring ours."""
    networks = ("contrib.slim.nets.inception", "contrib.slim.nets.resnet")
    lines = [
        use.line
        for use in names.uses
        if use.local in names.slim and (is_batch_norm(use.path) or use.path.startswith(networks))
    ]
    ours = ("tfbn", "tfbn.compat", "tfbn.compat.slim")
    if lines and not any(dotted in ours for dotted, _ in names.modules):
        yield Finding(min(lines), SLIM_BATCH_NORM)


def _v1_layers(names: Names) -> Iterator[Finding]:
    for use in names.uses:
        if use.today and use.path.startswith("layers."):
            yield Finding(use.line, V1_LAYERS)


def _gone(names: Names) -> Iterator[Finding]:
    for use in names.uses:
        known = symbols.gone(use.path)
        if known is not None:
            yield Finding(use.line, f"tf.{use.path}: {known}")
        elif use.path.startswith("contrib.") and use.local not in names.slim:
            # Of an import the whole path is known; in an expression attributes of objects are behind it.
            whole = isinstance(use.node, ast.Pass)
            path = use.path if whole else ".".join(use.path.split(".")[:2])
            if not stands(path):
                yield Finding(use.line, UNKNOWN.format(path))
        elif isinstance(use.node, ast.Pass) and not use.today and not is_imported_from(use.path):
            yield Finding(use.line, UNKNOWN.format(use.path))


def _keras(names: Names) -> Iterator[Finding]:
    lines = [use.line for use in names.uses if use.path.partition(".")[0] == "keras"]
    lines += [line for dotted, line in names.modules if dotted.partition(".")[0] == "keras"]
    if lines:
        yield Finding(min(lines), KERAS)


def _differs(names: Names) -> Iterator[Finding]:
    """What the table says of names that stand for something slightly different, once each."""
    seen: set[str] = set()
    for use in sorted(names.uses, key=lambda use: use.line):
        parent, _, name = use.path.rpartition(".")
        module = symbols.module_of(parent)
        if module is not None and name in module.differs and name not in seen:
            seen.add(name)
            yield Finding(use.line, f"{name} {module.differs[name]}.")
