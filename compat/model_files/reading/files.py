"""The files of Keras 1 and 2 as data: the JSON of the architecture and the arrays by layer."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import h5py
import numpy as np

from ....messages import other_file
from ..errors import LegacyModelError
from . import archive, tfjs
from .archive import Tree
from .hdf5 import HDF5File

_DEEPEST = 200  # levels of a JSON text; models nested ten deep have about 80
_MOST_WEIGHTS = 1 << 16


@dataclass(frozen=True)
class LayerWeights:
    """The arrays of one layer, in the order that the file lists them."""

    name: str
    names: tuple[str, ...]
    arrays: tuple[np.ndarray, ...]


@dataclass(frozen=True)
class LegacyFile:
    """What the files say.

    Attributes:
        config: the JSON object of the model.
        layers: the weights of its layers.
        numbered: whether layers are numbered and not named, as before Keras 1.0.
        versions, backends: what the files say of who wrote them, by where they say it.
        tree: the weights in place of `layers`, of a `.keras` archive.
    """

    config: dict[str, Any]
    layers: tuple[LayerWeights, ...]
    numbered: bool
    versions: dict[str, str]
    backends: dict[str, str]
    tree: Tree | None = None


def read(path: str, weights: str | None) -> LegacyFile:
    """Read a whole model, or the JSON of one and a file of its weights.

    Raises:
        LegacyModelError: no such files, or damaged ones; files of Keras 3 and of TensorFlow.
    """
    versions: dict[str, str] = {}
    backends: dict[str, str] = {}
    with _named_in_errors(path):
        if _kind(path) == "archive":
            if weights is not None:
                raise LegacyModelError("this holds its weights itself. Leave weights= out")
            versions[archive.METADATA] = archive.version(path) or ""
            backends[archive.METADATA] = "tensorflow"  # such releases had no other
            config = parse(archive.config(path), archive.CONFIG)
            return LegacyFile(config, (), False, versions, backends, archive.weights(path))
        config = _architecture(path, versions, backends)
        if weights is None and (found := tfjs.topology(config)) is not None:
            versions["modelTopology"] = tfjs.keras_version(config)
            backends["modelTopology"] = "tensorflow"
            return LegacyFile(found, (), False, versions, backends, tfjs.weights(path, config, found))
        _check_keras2(config)
        for where, found in (("keras_version", versions), ("backend", backends)):
            if isinstance(config.get(where), str):
                found.setdefault("JSON", config[where])
        if weights is None and not h5py.is_hdf5(path):
            raise LegacyModelError(
                "this is an architecture without weights. Pass their HDF5 file as weights="
            )
    weights = path if weights is None else weights
    with _named_in_errors(weights):
        return _with_weights(weights, config, versions, backends)


@contextmanager
def _named_in_errors(path: str) -> Iterator[None]:
    try:
        yield
    except LegacyModelError as error:
        error.path = path
        raise


def _architecture(path: str, versions: dict[str, str], backends: dict[str, str]) -> dict[str, Any]:
    if _kind(path) == "json":
        with open(path, "rb") as stream:
            return parse(stream.read(), "JSON")
    with HDF5File(path) as opened:
        text = opened.text(opened.root, "model_config")
        if text is None:
            raise LegacyModelError(
                "the file holds weights and no architecture. Pass the JSON that model.to_json() made as "
                "the path, and this file as weights=",
                "model_config",
            )
        _note_writer(opened, versions, backends, "")
        return parse(text, "model_config")


def _check_keras2(config: dict[str, Any]) -> None:
    if "module" in config and "keras_version" not in config:
        raise LegacyModelError(
            "this is the JSON of a model of Keras 3. Make it with keras.models.model_from_json(text), "
            "and call its load_weights"
        )


def _with_weights(
    path: str, config: dict[str, Any], versions: dict[str, str], backends: dict[str, str]
) -> LegacyFile:
    if _kind(path) != "hdf5":
        raise LegacyModelError("this is no HDF5 file, as weights= must be")
    with HDF5File(path) as opened:
        group = opened.group(opened.root, "model_weights")
        group = opened.root if group is None else group
        _note_writer(opened, versions, backends, "weights")
        numbered = opened.number(group, "nb_layers", _MOST_WEIGHTS)
        layers = _named(opened, group) if numbered is None else _numbered(opened, group, numbered)
    return LegacyFile(config, layers, numbered is not None, versions, backends)


def _named(opened: HDF5File, group: h5py.Group) -> tuple[LayerWeights, ...]:
    names = opened.texts(group, "layer_names")
    if names is None:
        raise LegacyModelError(
            "the attribute is missing: no weights that Keras 1 or 2 saved. Save the model again",
            f"{group.name}/layer_names",
        )
    if len(set(names)) != len(names):
        raise LegacyModelError("lists a layer twice", f"{group.name}/layer_names")
    layers = []
    for name in names:
        child = opened.group(group, name)
        if child is None:
            raise LegacyModelError("the layer's group is missing. Save the model again", name)
        weights = opened.texts(child, "weight_names")
        if weights is None:
            raise LegacyModelError("the attribute weight_names is missing. Save the model again", name)
        if len(set(weights)) != len(weights):
            raise LegacyModelError("lists a weight twice", f"{name}/weight_names")
        arrays = tuple(opened.array(child, path) for path in weights)
        layers.append(LayerWeights(name, tuple(weights), arrays))
    return tuple(layers)


def _numbered(opened: HDF5File, group: h5py.Group, count: int) -> tuple[LayerWeights, ...]:
    layers = []
    for number in range(count):
        name = f"layer_{number}"
        child = opened.group(group, name)
        if child is None:
            raise LegacyModelError("the layer's group is missing. Save the model again", name)
        weights = opened.number(child, "nb_params", _MOST_WEIGHTS) or 0
        names = tuple(f"param_{number}" for number in range(weights))
        layers.append(LayerWeights(name, names, tuple(opened.array(child, weight) for weight in names)))
    return tuple(layers)


def _note_writer(
    opened: HDF5File, versions: dict[str, str], backends: dict[str, str], prefix: str
) -> None:
    """Collect what a file says of the Keras that wrote it, at its root or at its weights."""
    for place in ("", "model_weights"):
        group = opened.group(opened.root, place) if place else opened.root
        for name, found in (("keras_version", versions), ("backend", backends)):
            text = opened.text(group, name) if group is not None else None
            if text is not None:
                found[f"{prefix} {place}/{name}".strip()] = text


def parse(text: str | bytes, part: str) -> dict[str, Any]:
    """A JSON object, of bounded depth.

    Raises:
        LegacyModelError: no JSON object, or one that is nested too deep.
    """
    try:
        value = json.loads(text)
        if isinstance(value, str):  # json.dump(model.to_json(), file) writes a text within a text
            value = json.loads(value)
    except (ValueError, RecursionError) as error:
        text = "neither HDF5 nor JSON" if part == "JSON" else "no JSON"
        raise LegacyModelError(
            f"this is {text} ({error}). Pass what model.to_json() made", part
        ) from error
    if not isinstance(value, dict):
        raise LegacyModelError(f"is no JSON object but {type(value).__name__}", part)
    level: list[Any] = [value]
    for _ in range(_DEEPEST):
        members = [value.values() if isinstance(value, dict) else value for value in level]
        level = [value for each in members for value in each if isinstance(value, (dict, list))]
    if level:
        raise LegacyModelError(f"is nested more than {_DEEPEST} levels deep", part)
    return value


def _kind(path: str) -> str:
    """Which of "hdf5", "json" and "archive" a file is; an error for what is none."""
    if (other := other_file(path)) is not None:
        raise LegacyModelError(other)
    if os.path.isdir(path):
        raise LegacyModelError("this is a folder, and should be a file: HDF5, .keras or JSON")
    if not os.path.exists(path):
        raise LegacyModelError("there is no such file")
    try:
        with open(path, "rb") as stream:
            start = stream.read(4)
    except OSError as error:
        raise LegacyModelError(f"cannot be read: {error.strerror}") from error
    if start == b"PK\x03\x04":
        if (archive.version(path) or "").startswith("2."):
            return "archive"
        raise LegacyModelError(
            "this is a zip archive, as .npz files are, and the .keras files of Keras 3, which "
            "keras.models.load_model reads as they are"
        )
    return "hdf5" if h5py.is_hdf5(path) else "json"
