"""TF1 checkpoints into Keras models, by name."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from ..batch_norms import layer_paths, never_updated
from .variable_scope import VariableScopeLayer

Names = Mapping[str, str] | Callable[[str], str] | None

# What Keras' layers call their weights, and what contrib's and slim's did.
OTHER_NAMES = {
    "kernel": ("weights", "depthwise_weights"),
    "bias": ("biases",),
    "depthwise_kernel": ("depthwise_weights",),
    "pointwise_kernel": ("pointwise_weights",),
}
SHADOW = "ExponentialMovingAverage"


@dataclass(frozen=True)
class CheckpointReport:
    """What `load_checkpoint` found.

    Attributes:
        loaded: names of variables of the model, and the names in the checkpoint that they came from.
        missing: variables of the model that the checkpoint does not have.
        wrong: names in the model, and why the value under that name does not fit.
        unused: names in the checkpoint that nothing asked for.
    """

    loaded: dict[str, str] = field(default_factory=dict)
    missing: list[str] = field(default_factory=list)
    wrong: dict[str, str] = field(default_factory=dict)
    unused: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        lines = [f"{len(self.loaded)} variables loaded."]
        lines += [f"Missing in the checkpoint: {', '.join(self.missing)}."] if self.missing else []
        lines += [f"{name}: {why}." for name, why in self.wrong.items()]
        lines += [f"Unused in the checkpoint: {', '.join(self.unused)}."] if self.unused else []
        return "\n".join(lines)


class CheckpointError(ValueError):
    """A checkpoint that does not fit; `report` says where."""

    def __init__(self, message: str, report: CheckpointReport) -> None:
        super().__init__(message)
        self.report = report


def load_checkpoint(
    path: Any,
    layer_or_model: keras.layers.Layer,
    name_map: Names = None,
    *,
    exclude: Sequence[str] = (),
    moving_averages: bool = False,
) -> CheckpointReport:
    """Load a TF1 checkpoint into a layer or model, by the names of its variables.

    A `VariableScopeLayer` has its variables' TF1 names. In other models the layer's path is the scope,
    as in `dense/kernel`; contrib's and slim's `weights` and `biases` are found too, and the scopes of a
    layer whose name has `_` for `/`.

    Args:
        path: prefix of a checkpoint of any TF1 format, its `.index` file, or the folder of the last one.
        layer_or_model: built.
        name_map: from names in the model to names in the checkpoint: a function, or a mapping of whole
            names (`"conv1/BatchNorm/gamma": "conv1_bn/scale"`), of scopes (`"conv1/BatchNorm":
            "conv1_bn"`) and of last parts (`"moving_mean": "pop_mean"`).
        exclude: names, or scopes, in the model that are left as they are.
        moving_averages: take `…/ExponentialMovingAverage` where there is one.

    Returns:
        What was loaded, and what in the checkpoint was not used.

    Raises:
        TypeError: not a Keras layer or model.
        FileNotFoundError: no checkpoint there.
        CheckpointError: a ValueError: something is missing or has another shape, or the layer is not
            built. Nothing was changed.
    """
    targets = _targets(layer_or_model)
    reader = _reader(path)
    stored = reader.get_variable_to_shape_map()
    report, values = CheckpointReport(), []
    for name, variable in targets.items():
        if any(name == one or name.startswith(f"{one}/") for one in exclude):
            continue
        key = _find(name, stored, name_map, moving_averages)
        if key is None:
            report.missing.append(name)
            continue
        value, why = _value(reader, key, name, variable, targets)
        if why:
            report.wrong[name] = why
        else:
            report.loaded[name] = key
            values.append((variable, value))
    report.unused.extend(sorted(stored.keys() - set(report.loaded.values())))
    if report.missing or report.wrong or not targets:
        raise CheckpointError(
            f"The checkpoint {str(path)!r} does not fit, and nothing was changed. Map the names with "
            f"name_map, or leave variables out with exclude.\n{report}",
            report,
        )
    for variable, value in values:
        variable.assign(value)
    warn_if_never_updated(targets)
    return report


def warn_if_never_updated(variables: Mapping[str, Any]) -> None:
    """Warn of trained batch norms whose moving statistics no training step has changed.

    Args:
        variables: by TF1 name.
    """
    found = []
    for name, mean in variables.items():
        scope, _, last = name.rpartition("/")
        rest = [
            variables.get(f"{scope}/{one}" if scope else one)
            for one in ("moving_variance", "beta", "gamma")
        ]
        if last == "moving_mean" and rest[0] is not None and never_updated(mean, *rest):
            found.append(scope or name)
    if found:
        warnings.warn(
            f"The batch norms {', '.join(found)} were trained, but their moving statistics are still 0 "
            "and 1: the operations in UPDATE_OPS were not run, and at inference nothing is normalised. "
            "Run them with the training step, or call tfbn.recalibrate(model, data).",
            stacklevel=3,
        )


def _targets(layer: Any) -> dict[str, keras.Variable]:
    """The variables of a layer or model by the names that a TF1 checkpoint would have for them."""
    if not isinstance(layer, keras.layers.Layer):
        raise TypeError(f"load_checkpoint needs a Keras layer or model, received {layer!r}.")
    scoped = [layer, *layer_paths(layer).values()]
    scoped = [one for one in scoped if isinstance(one, VariableScopeLayer)]
    names = {id(v): name for one in scoped for name, v in one.variables_by_name.items()}
    prefix = f"{layer.path}/" if isinstance(layer, keras.Model) else ""
    return {names.get(id(v), v.path.removeprefix(prefix)): v for v in layer.weights}


def _reader(path: Any) -> Any:
    text = str(path).removesuffix(".index")
    if Path(text).is_dir() and not Path(text, ".index").exists():
        text = tf.train.latest_checkpoint(text) or text
    elif Path(text).is_dir():
        text = f"{Path(text)}/"  # a prefix whose base name is empty
    try:
        return tf.compat.v1.train.NewCheckpointReader(text)
    except (tf.errors.OpError, ValueError) as error:
        raise FileNotFoundError(
            f"No TF1 checkpoint at {str(path)!r}. Pass the prefix of its files: for model.ckpt-7.index "
            f"it is 'model.ckpt-7'. TensorFlow says: {error}"
        ) from error


def _find(name: str, stored: Mapping[str, Any], name_map: Names, shadows: bool) -> str | None:
    """The name in the checkpoint of what the model calls `name`."""
    for candidate in _candidates(name, name_map):
        for key in ([f"{candidate}/{SHADOW}"] if shadows else []) + [candidate]:
            if key in stored:
                return key
    flat: dict[str, list[str]] = {}
    for key in stored:
        flat.setdefault(key.replace("/", "_"), []).append(key)
    for candidate in _candidates(name, name_map):
        same = flat.get(candidate.replace("/", "_"), [])
        if len(same) == 1:
            return same[0]
    return None


def _candidates(name: str, name_map: Names) -> Iterable[str]:
    if callable(name_map):
        yield name_map(name)
        return
    renamed = dict(name_map or {})
    if name in renamed:
        yield renamed[name]
        return
    scope, _, last = name.rpartition("/")
    outer = max((one for one in renamed if f"{scope}/".startswith(f"{one}/")), key=len, default=None)
    scope = renamed[outer] + scope[len(outer) :] if outer else scope
    for part in (renamed.get(last, last), *OTHER_NAMES.get(last, ())):
        yield f"{scope}/{part}" if scope else part
    # Where the last releases put what corrects a moving mean: below the path, once more.
    owner = name.removesuffix("/biased").removesuffix("/local_step").removesuffix("/moving_mean")
    if owner != name and owner:
        yield f"{owner}/{name}"
    if "/part_" in name:
        yield name.rpartition("/part_")[0]


def _value(
    reader: Any, key: str, name: str, variable: keras.Variable, targets: Mapping[str, Any]
) -> tuple[np.ndarray | None, str]:
    """The stored value as the variable takes it, or why it does not."""
    value, shape = reader.get_tensor(key), tuple(variable.shape)
    base, _, part = name.rpartition("/part_")
    if part.isdigit() and not key.endswith(f"/part_{part}"):
        value = _part(value, int(part), base, targets)
    if value.shape != shape:
        return None, f"{key} has shape {value.shape} where the model has {shape}"
    kept = tf.as_dtype(variable.dtype)
    if np.issubdtype(value.dtype, np.floating) != kept.is_floating:
        return None, f"{key} holds {value.dtype} where the model has {kept.name}"
    return value, ""


def _part(value: np.ndarray, number: int, base: str, targets: Mapping[str, Any]) -> np.ndarray:
    """The slice of a whole tensor that a partitioned variable keeps in its part of that number."""
    shapes = []
    while f"{base}/part_{len(shapes)}" in targets:
        shapes.append(tuple(targets[f"{base}/part_{len(shapes)}"].shape))
    for axis, size in enumerate(value.shape):
        if sum(shape[axis] for shape in shapes) == size != shapes[0][axis]:
            start = sum(shape[axis] for shape in shapes[:number])
            return np.take(value, range(start, start + shapes[number][axis]), axis)
    return value
