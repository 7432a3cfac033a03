"""TF1 checkpoints into Keras models, by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from ....batch_norms import layer_paths
from ....messages import join_some
from ....moving_statistics import never_updated, warn_never_updated
from ..layer.variable_scope import VariableScopeLayer
from .file import CheckpointFile
from .names import Search, parts_of
from .values import Source


@dataclass(frozen=True)
class CheckpointReport:
    """What `load_checkpoint` found.

    Attributes:
        loaded: names of variables of the model, and the names in the checkpoint that they came from;
            in an error, those that fit.
        missing: names in the model that the checkpoint does not have, and those it was asked for.
        wrong: names in the model, and why the value under that name does not fit.
        unused: names in the checkpoint that nothing asked for.

    >>> from tfbn import compat
    >>> print(compat.CheckpointReport(loaded={"bn/beta": "bn/beta"}, unused=["global_step"]))
    1 variables loaded.
    Unused in the checkpoint: global_step.
    """

    loaded: dict[str, str] = field(default_factory=dict)
    missing: dict[str, list[str]] = field(default_factory=dict)
    wrong: dict[str, str] = field(default_factory=dict)
    unused: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        count, total = len(self.loaded), len(self.loaded) + len(self.missing) + len(self.wrong)
        lines = [f"{count} of {total} variables fit." if total > count else f"{count} variables loaded."]
        missing = [
            name if asked == [name] else f"{name} (looked for {', '.join(asked)})"
            for name, asked in self.missing.items()
        ]
        lines += [f"Missing in the checkpoint: {join_some(missing, '; ')}."] if missing else []
        wrong = [f"{name}: {why}" for name, why in self.wrong.items()]
        lines += [f"Wrong: {join_some(wrong, '; ')}."] if wrong else []
        lines += [f"Unused in the checkpoint: {join_some(self.unused)}."] if self.unused else []
        return "\n".join(lines)


class CheckpointError(ValueError):
    """A checkpoint that does not fit; `report` says where.

    >>> from tfbn import compat
    >>> report = compat.CheckpointReport(unused=["global_step"])
    >>> compat.CheckpointError("It does not fit.", report).report.unused
    ['global_step']
    """

    def __init__(self, message: str, report: CheckpointReport) -> None:
        super().__init__(message)
        self.report = report


def load_checkpoint(
    path: Any,
    layer_or_model: keras.layers.Layer,
    name_map: Mapping[str, str] | Callable[[str], str] | None = None,
    *,
    exclude: str | Sequence[str] = (),
    moving_averages: bool = False,
) -> CheckpointReport:
    """Load a TF1 checkpoint into a layer or model, by the names of its variables.

    A `VariableScopeLayer` has its variables' TF1 names. Other layers of a model are scopes, as in
    `dense/kernel`; their names may have `_` where the scope had `/`, and contrib's and slim's `weights`
    and `biases` are found too. Partitioned variables fit whole ones, and those in other parts.

    Args:
        path: prefix of a checkpoint that `tf.compat.v1.train.Saver` wrote, format V1 or V2, one of its
            files, or the folder of the last one.
        layer_or_model: built.
        name_map: from names in the model to those to look for: a function, or a mapping of whole names
            (`"conv1/BatchNorm/gamma": "conv1_bn/scale"`), of scopes (`"conv1/BatchNorm": "conv1_bn"`,
            `""` for the outermost) and of last parts (`"moving_mean": "pop_mean"`).
        exclude: names, or scopes, in the model that are left as they are.
        moving_averages: take `…/ExponentialMovingAverage` where there is one.

    Returns:
        What was loaded, and what in the checkpoint was not used.

    Raises:
        TypeError: not a Keras layer or model, not a path, no name from `name_map`.
        RuntimeError: a graph is being built.
        FileNotFoundError: no checkpoint there.
        OSError: its files are damaged.
        CheckpointError: a ValueError: something is missing or has another shape or type, two variables
            would get one value. Nothing was changed.
        ValueError: the layer is not built, `exclude` has a name that the model has not.

    >>> import tempfile
    >>> with tf.Graph().as_default(), tf.compat.v1.Session() as session:
    ...     saver = tf.compat.v1.train.Saver([tf.compat.v1.get_variable("dense/bias", initializer=[5.])])
    ...     session.run(tf.compat.v1.global_variables_initializer())
    ...     path = saver.save(session, tempfile.mkdtemp() + "/model")
    >>> model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1, name="dense")])
    >>> print(load_checkpoint(path, model, exclude="dense/kernel"))
    1 variables loaded.
    """
    if not tf.executing_eagerly():
        raise RuntimeError(
            "load_checkpoint was called while a graph is being built, where nothing can be assigned. "
            "Call it outside of tf.function and `with graph.as_default()`."
        )
    variables, exact = _variables(layer_or_model)
    wanted = _without(variables, exclude)
    file = CheckpointFile(path)
    search = Search(file.shapes, name_map, moving_averages)
    report = CheckpointReport()
    plan: dict[str, Source] = {}
    for name in wanted:
        found = search.find(name, flattened=name not in exact)
        if found.ambiguous:
            report.wrong[name] = f"{' or '.join(found.ambiguous)}, which name_map must decide"
        elif found.options:
            plan[name] = Source.of(name, found.options, variables, file.shapes)
        else:
            report.missing[name] = found.asked
    claims: dict[str, set[str]] = {}
    for source in plan.values():
        for key in source.keys:
            claims.setdefault(key, set()).add(source.owner)
    for name, source in plan.items():
        why = source.misfit(file.dtypes[source.keys[0]], claims)
        report.wrong.update({name: why} if why else {})
    report.unused.extend(sorted(file.shapes.keys() - claims.keys()))
    values: dict[str, Any] = {}
    if not (report.missing or report.wrong):
        stored = file.read(claims)
        values = {name: source.value(stored) for name, source in plan.items()}
        report.wrong.update({name: value for name, value in values.items() if isinstance(value, str)})
    fitting = {name: source for name, source in plan.items() if name not in report.wrong}
    report.loaded.update({name: ", ".join(source.keys) for name, source in fitting.items()})
    if report.missing or report.wrong:
        raise CheckpointError(_refusal(file, report), report)
    warn_if_variables_never_updated(variables | values)
    for name, value in values.items():
        variables[name].assign(value)
    return report


def warn_if_variables_never_updated(variables: Mapping[str, Any]) -> None:
    """Warn of trained batch norms whose moving statistics no training step has changed.

    Args:
        variables: by TF1 name.
    """
    found = []
    for name, mean in variables.items():
        scope, _, last = name.rpartition("/")
        if last != "moving_mean":
            continue
        prefix = f"{scope}/" if scope else ""
        others = ("moving_variance", "beta", "gamma")
        variance, beta, gamma = (_whole(variables, f"{prefix}{other}") for other in others)
        if variance is not None and never_updated(mean, variance, beta, gamma):
            found.append(scope or name)
    if found:
        warn_never_updated(found, stacklevel=3)


def _whole(variables: Mapping[str, Any], name: str) -> Any:
    """A variable, or the parts of a partitioned one in a row; `None` if there is none."""
    parts = [np.asarray(variables[part]).ravel() for part in parts_of(name, variables)]
    return np.concatenate(parts) if parts else variables.get(name)


def _variables(layer: Any) -> tuple[dict[str, keras.Variable], set[str]]:
    """The weights by the names that TF1 code would give them, and those names that it did give."""
    if not isinstance(layer, keras.layers.Layer):
        raise TypeError(f"load_checkpoint needs a Keras layer or model, received {layer!r}.")
    if not layer.built or not layer.weights:
        raise ValueError(
            f"{layer.name!r} {'has no weights' if layer.built else 'is not built'}, so there is nothing "
            "to load into. Call it on data once, or its build((None, …)), before load_checkpoint."
        )
    root = "" if isinstance(layer, keras.Model) else layer.name
    names: dict[int, str] = {}
    exact: set[str] = set()
    for path, inner in {"": layer, **layer_paths(layer)}.items():  # an inner layer after the outer ones
        scope = "/".join(part for part in (root, path) if part)
        for weight in inner.weights:
            names[id(weight)] = f"{scope}/{weight.path.removeprefix(f'{inner.path}/')}".lstrip("/")
        if isinstance(inner, VariableScopeLayer):
            names |= {id(weight): name for name, weight in inner.variables_by_name.items()}
            exact.update(inner.variables_by_name)
    found: dict[str, keras.Variable] = {}
    for weight in layer.weights:
        name = names[id(weight)]
        if name in found:
            raise ValueError(
                f"Two variables of {layer.name!r} are called {name!r} in TF1: {found[name].path} and "
                f"{weight.path}. Load into one layer at a time, load_checkpoint(path, layer)."
            )
        found[name] = weight
    return found, exact


def _without(variables: Mapping[str, Any], exclude: str | Sequence[str]) -> list[str]:
    """The names of the variables that are to be loaded."""
    scopes = [excluded.rstrip("/") for excluded in ([exclude] if isinstance(exclude, str) else exclude)]

    def is_in(name: str, scope: str) -> bool:
        return f"{name}/".startswith(f"{scope}/")

    unknown = [scope for scope in scopes if not any(is_in(name, scope) for name in variables)]
    if unknown:
        raise ValueError(
            f"exclude has {', '.join(map(repr, unknown))}, which is no variable or scope of the model. "
            f"It has {join_some(list(variables))}."
        )
    return [name for name in variables if not any(is_in(name, scope) for scope in scopes)]


def _refusal(file: CheckpointFile, report: CheckpointReport) -> str:
    remedy = "Map the names with name_map, or leave variables out with exclude."
    if file.object_based:
        remedy = "tf.train.Checkpoint wrote it, and restores it; it has no TF1 names."
    return f"The checkpoint {file.prefix!r} does not fit, and nothing was changed. {remedy}\n{report}"
