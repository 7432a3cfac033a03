"""The `.keras` archives of Keras 2.12 to 2.15: a zip of the architecture and the arrays by layer."""

from __future__ import annotations

import json
import re
import shutil
import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import h5py
import numpy as np

from ..errors import LegacyModelError
from .hdf5 import HDF5File

METADATA, CONFIG, WEIGHTS = "metadata.json", "config.json", "model.weights.h5"
_MOST_PACKED = 200  # times: weights are stored as they are, or nearly incompressible
_MOST_TEXT = 1 << 28
_DEEPEST = 64  # groups in groups

# What holds the layers of a model: since 2.15, and before.
_LAYERS = ("layers", "_layer_checkpoint_dependencies")
# The number of the second layer of a class: since 2.14, and before.
_SECONDS = (1, 2)


@dataclass(frozen=True)
class Tree:
    """The arrays of a layer or a model, and those of what is inside it by name."""

    arrays: tuple[np.ndarray, ...] = ()
    inside: dict[str, Tree] = field(default_factory=dict)

    def of_layers(self, class_names: list[str]) -> list[Tree]:
        """Those of a model's layers, whose groups are called by their classes."""
        held = next((self.inside[name].inside for name in _LAYERS if name in self.inside), {})
        numbered = (group_names(class_names, second) for second in _SECONDS)
        names = max(numbered, key=lambda names: sum(name in held for name in names))
        return [held.get(name, Tree()) for name in names]

    def all_arrays(self) -> list[np.ndarray]:
        """Its own, and those of all inside it: of the cell of a recurrent layer, say."""
        return [*self.arrays, *(array for tree in self.inside.values() for array in tree.all_arrays())]


def version(path: str) -> str | None:
    """The version of Keras that wrote an archive; `None` where it is another zip file."""
    try:
        with zipfile.ZipFile(path) as archive:
            found = json.loads(_text(archive, METADATA))
    except (zipfile.BadZipFile, KeyError, ValueError, OSError):
        return None
    stated = found.get("keras_version") if isinstance(found, dict) else None
    return stated if isinstance(stated, str) else None


def config(path: str) -> str:
    """The JSON of the architecture."""
    with _member(path, CONFIG) as archive:
        return _text(archive, CONFIG)


def weights(path: str) -> Tree:
    """The arrays of the model."""
    with _member(path, WEIGHTS) as archive, tempfile.NamedTemporaryFile(suffix=".h5") as file:
        member = archive.getinfo(WEIGHTS)
        if member.file_size > _MOST_PACKED * max(member.compress_size, 1 << 10):
            raise LegacyModelError(
                f"declares {member.file_size} bytes, far more than there are", WEIGHTS
            )
        with archive.open(member) as packed:
            shutil.copyfileobj(packed, file)
        file.flush()
        with HDF5File(file.name) as opened:
            return _tree(opened, opened.root, 0)


def group_names(class_names: list[str], second: int = 1) -> list[str]:
    """What Keras 2 called the groups of a model's layers: by class, and numbered, but for the first."""
    before: dict[str, int] = {}
    names = []
    for class_name in class_names:
        name = _snake_case(class_name.rpartition(">")[2])
        number = before[name] = before.get(name, second - 2) + 1
        names.append(name if number < second else f"{name}_{number}")
    return names


def _snake_case(name: str) -> str:
    name = re.sub(r"\W+", "", name)
    name = re.sub("(.)([A-Z][a-z]+)", r"\1_\2", name)
    return re.sub("([a-z])([A-Z])", r"\1_\2", name).lower()


@contextmanager
def _member(path: str, name: str) -> Iterator[zipfile.ZipFile]:
    try:
        with zipfile.ZipFile(path) as archive:
            yield archive
    except KeyError as error:
        raise LegacyModelError("is missing from the archive. Save the model again", name) from error
    except (zipfile.BadZipFile, zipfile.LargeZipFile, EOFError, NotImplementedError) as error:
        raise LegacyModelError(
            f"cannot be unpacked ({error}). The file is damaged or incomplete: copy it again", name
        ) from error


def _text(archive: zipfile.ZipFile, name: str) -> str:
    if archive.getinfo(name).file_size > _MOST_TEXT:
        raise LegacyModelError(f"is longer than {_MOST_TEXT} bytes", name)
    return archive.read(name).decode("utf-8", "replace")


def _tree(archive: HDF5File, group: h5py.Group, depth: int) -> Tree:
    if depth > _DEEPEST:
        raise LegacyModelError(f"holds groups more than {_DEEPEST} deep", group.name or "")
    own = archive.group(group, "vars")
    numbers = [] if own is None else archive.names(own)
    if sorted(numbers) != sorted(map(str, range(len(numbers)))):
        raise LegacyModelError("does not number its weights", f"{group.name}/vars")
    arrays = tuple(archive.array(own, str(number)) for number in range(len(numbers)))
    inside: dict[str, Any] = {}
    for name in archive.names(group):
        child = archive.group(group, name) if name != "vars" else None
        if child is not None:
            inside[name] = _tree(archive, child, depth + 1)
    return Tree(arrays, inside)
