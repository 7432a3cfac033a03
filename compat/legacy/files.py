"""The files of Keras 1 and 2 as data: the JSON of the architecture and the arrays by layer."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from typing import Any

import h5py
import numpy as np

from .errors import LegacyModelError
from .hdf5 import Archive

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
    """

    config: dict[str, Any]
    layers: tuple[LayerWeights, ...]
    numbered: bool
    versions: dict[str, str]
    backends: dict[str, str]


def read(path: str, weights: str | None) -> LegacyFile:
    """Read a whole model, or the JSON of one and a file of its weights.

    Raises:
        LegacyModelError: no such files, or damaged ones; files of Keras 3 and of TensorFlow.
    """
    versions: dict[str, str] = {}
    backends: dict[str, str] = {}
    whole = _kind(path) == "hdf5"
    if whole:
        with Archive(path) as archive:
            text = archive.text(archive.root, "model_config")
            if text is None:
                raise LegacyModelError(
                    "holds weights and no architecture. Pass the JSON that model.to_json() made as the "
                    "path, and this file as weights=",
                    "model_config",
                )
            _origin(archive, versions, backends, "")
            config = parse(text, "model_config")
    else:
        with open(path, "rb") as stream:
            config = parse(stream.read(), "JSON")
    for where, found in (("keras_version", versions), ("backend", backends)):
        if isinstance(config.get(where), str):
            found.setdefault("JSON", config[where])
    if weights is None and not whole:
        raise LegacyModelError("is an architecture without weights. Pass their HDF5 file as weights=")
    return _with_weights(path if weights is None else weights, config, versions, backends)


def _with_weights(
    path: str, config: dict[str, Any], versions: dict[str, str], backends: dict[str, str]
) -> LegacyFile:
    if _kind(path) != "hdf5":
        raise LegacyModelError(f"{path!r} is no HDF5 file", "weights")
    with Archive(path) as archive:
        group = archive.group(archive.root, "model_weights")
        group = archive.root if group is None else group
        _origin(archive, versions, backends, "weights")
        numbered = archive.number(group, "nb_layers", _MOST_WEIGHTS)
        layers = _named(archive, group) if numbered is None else _numbered(archive, group, numbered)
    return LegacyFile(config, layers, numbered is not None, versions, backends)


def _named(archive: Archive, group: h5py.Group) -> tuple[LayerWeights, ...]:
    names = archive.texts(group, "layer_names")
    if names is None:
        raise LegacyModelError(
            "the attribute is missing: no weights that Keras 1 or 2 saved. Save the model again",
            f"{group.name}/layer_names",
        )
    if len(set(names)) != len(names):
        raise LegacyModelError("lists a layer twice", f"{group.name}/layer_names")
    layers = []
    for name in names:
        child = archive.group(group, name)
        if child is None:
            raise LegacyModelError("the layer's group is missing. Save the model again", name)
        weights = archive.texts(child, "weight_names")
        if weights is None:
            raise LegacyModelError("the attribute weight_names is missing. Save the model again", name)
        if len(set(weights)) != len(weights):
            raise LegacyModelError("lists a weight twice", f"{name}/weight_names")
        arrays = tuple(archive.array(child, one) for one in weights)
        layers.append(LayerWeights(name, tuple(weights), arrays))
    return tuple(layers)


def _numbered(archive: Archive, group: h5py.Group, count: int) -> tuple[LayerWeights, ...]:
    layers = []
    for number in range(count):
        name = f"layer_{number}"
        child = archive.group(group, name)
        if child is None:
            raise LegacyModelError("the layer's group is missing. Save the model again", name)
        weights = archive.number(child, "nb_params", _MOST_WEIGHTS) or 0
        names = tuple(f"param_{one}" for one in range(weights))
        layers.append(LayerWeights(name, names, tuple(archive.array(child, one) for one in names)))
    return tuple(layers)


def _origin(archive: Archive, versions: dict[str, str], backends: dict[str, str], prefix: str) -> None:
    """Collect what a file says of the Keras that wrote it, at its root or at its weights."""
    for place in ("", "model_weights"):
        group = archive.group(archive.root, place) if place else archive.root
        for name, found in (("keras_version", versions), ("backend", backends)):
            text = archive.text(group, name) if group is not None else None
            if text is not None:
                found[f"{prefix} {place}/{name}".strip()] = text


def parse(text: str | bytes, part: str) -> dict[str, Any]:
    """A JSON object, of bounded depth.

    Raises:
        LegacyModelError: none.
    """
    try:
        value = json.loads(text)
        if isinstance(value, str):  # json.dump(model.to_json(), file) writes a text within a text
            value = json.loads(value)
    except (ValueError, RecursionError) as error:
        raise LegacyModelError(f"is no JSON ({error}). Pass what model.to_json() made", part) from error
    level = [value]
    for _ in range(_DEEPEST):
        level = (
            [
                inner
                for one in level
                for inner in (one.values() if isinstance(one, dict) else one)
                if isinstance(inner, (dict, list))
            ]
            if isinstance(value, dict)
            else []
        )
        if not level:
            break
    if level:
        raise LegacyModelError(f"is nested more than {_DEEPEST} levels deep", part)
    if not isinstance(value, dict):
        raise LegacyModelError(f"is no JSON object but {type(value).__name__}", part)
    return value


def _kind(path: str) -> str:
    """Which of "hdf5" and "json" a file is; an error for what is neither."""
    if os.path.isdir(path):
        raise LegacyModelError(
            f"{path!r} is a folder. Load a SavedModel with keras.layers.TFSMLayer, "
            "a TF1 checkpoint with tfbn.compat.load_checkpoint"
        )
    if not os.path.exists(path):
        if os.path.exists(f"{path}.index"):
            raise LegacyModelError(
                f"{path!r} is a TensorFlow checkpoint. Use tfbn.compat.load_checkpoint, or "
                "load_weights of a model that you make"
            )
        raise LegacyModelError(f"there is no file {path!r}")
    try:
        with open(path, "rb") as stream:
            start = stream.read(4)
    except OSError as error:
        raise LegacyModelError(f"{path!r} cannot be read: {error}") from error
    if start == b"PK\x03\x04":
        raise LegacyModelError(
            f"{path!r} is a zip archive, as the .keras files of Keras 3 are. Use keras.models.load_model"
        )
    if path.endswith(".index"):
        raise LegacyModelError(
            f"{path!r} belongs to a TensorFlow checkpoint. Use tfbn.compat.load_checkpoint"
        )
    return "hdf5" if h5py.is_hdf5(path) else "json"
