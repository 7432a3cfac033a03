"""An HDF5 file as data: groups, texts and arrays, and nothing that leads out of the file."""

from __future__ import annotations

import math
import os
from contextlib import AbstractContextManager
from typing import Any

import h5py
import numpy as np

from ..errors import LegacyModelError, translated
from . import heaps

_MOST_STRINGS = 1 << 20
_MOST_DIGITS = 6  # chunks of an attribute: name0, name1, … as Keras splits long ones


class HDF5File:
    """A file opened for reading; every failure is a `LegacyModelError` that names the part.

    Only hard links are followed, along names that the caller gives, so that neither cycles nor links
    out of the file matter. Sizes are compared with what the file holds before anything is read.
    """

    def __init__(self, path: str) -> None:
        self._size = os.path.getsize(path)
        self._left = self._size  # bytes that all arrays together may have
        heaps.check(path)
        with _reading(""):
            self.root = h5py.File(path, "r")

    def __enter__(self) -> HDF5File:
        return self

    def __exit__(self, *error: object) -> None:
        self.root.close()

    def group(self, parent: h5py.Group, name: str) -> h5py.Group | None:
        """The group of that name, or `None`."""
        found = self._child(parent, name)
        if found is not None and not isinstance(found, h5py.Group):
            raise LegacyModelError(f"is no group but {type(found).__name__}", _part(parent, name))
        return found

    def names(self, parent: h5py.Group) -> list[str]:
        """What a group lists."""
        part = _part(parent, "")
        with _reading(part):
            if len(parent) > _MOST_STRINGS:
                raise LegacyModelError(f"lists {len(parent)} members", part)
            return list(parent)

    def array(self, parent: h5py.Group, name: str) -> np.ndarray:
        """The numbers of a dataset."""
        part = _part(parent, name)
        found = self._child(parent, name)
        if not isinstance(found, h5py.Dataset):
            kind = "missing" if found is None else "no dataset"
            raise LegacyModelError(f"the weight is {kind}. Save the model again", part)
        with _reading(part):
            self._check(found, part)
            values = found[()]
        return np.asarray(values)

    def text(self, parent: h5py.Group, name: str) -> str | None:
        """An attribute that is one string, or `None`."""
        value = self._attribute(parent, name)
        if value is None:
            return None
        if isinstance(value, bytes):
            with _reading(_part(parent, name)):
                value = value.decode("utf-8")
        if not isinstance(value, str):
            raise LegacyModelError(f"is no text but {type(value).__name__}", _part(parent, name))
        return value

    def number(self, parent: h5py.Group, name: str, most: int) -> int | None:
        """An attribute that is one integer of 0 to `most`, or `None`."""
        value = self._attribute(parent, name)
        if value is None:
            return None
        if not isinstance(value, (int, np.integer)) or not 0 <= value <= most:
            raise LegacyModelError(f"is no integer of 0 to {most}", _part(parent, name))
        return int(value)

    def texts(self, parent: h5py.Group, name: str) -> list[str] | None:
        """An attribute that is a list of strings, in chunks too, or `None`."""
        value = self._attribute(parent, name)
        if value is not None:
            return _strings(value, _part(parent, name))
        found: list[str] = []
        for chunk in range(10**_MOST_DIGITS):
            value = self._attribute(parent, f"{name}{chunk}")
            if value is None:
                return found if chunk else None
            found += _strings(value, _part(parent, f"{name}{chunk}"))
        return found

    def _child(self, parent: h5py.Group, name: str) -> Any:
        found: Any = parent
        for step in name.split("/"):
            part = _part(parent, name)
            if step in ("", "."):
                raise LegacyModelError(f"{name!r} is no name within its group", part)
            if not isinstance(found, h5py.Group):
                return None
            with _reading(part):
                link = found.get(step, getlink=True)
                if link is None:
                    return None
                if not isinstance(link, h5py.HardLink):
                    raise LegacyModelError(
                        f"is a {type(link).__name__}, which may lead anywhere. Save the model again",
                        part,
                    )
                found = found[step]
        return found

    def _attribute(self, parent: h5py.Group, name: str) -> Any:
        part = _part(parent, name)
        with _reading(part):
            if name not in parent.attrs:
                return None
            stored = parent.attrs.get_id(name)
            count = math.prod(stored.shape) if stored.shape is not None else 0
            if count > _MOST_STRINGS or count * stored.dtype.itemsize > self._size:
                raise LegacyModelError(f"declares {count} values, more than are there", part)
            if stored.dtype.kind == "O" and not h5py.check_string_dtype(stored.dtype):
                raise LegacyModelError("holds objects; only numbers and texts are read", part)
            return parent.attrs[name]

    def _check(self, dataset: h5py.Dataset, part: str) -> None:
        """Refuse a dataset that is no plain numbers or that claims more than the file holds."""
        shape, dtype = dataset.shape, dataset.dtype
        if shape is None or dtype.kind not in "fiu":
            raise LegacyModelError(f"holds {dtype} and no plain numbers", part)
        if dataset.is_virtual or dataset.external:
            raise LegacyModelError("keeps its numbers in other files. Copy it with h5repack", part)
        size = math.prod(shape) * dtype.itemsize
        if size > dataset.id.get_storage_size():
            raise LegacyModelError(
                f"declares {size} bytes (shape {shape}) and stores {dataset.id.get_storage_size()}. "
                "The file is damaged, or compressed: h5repack -f NONE unpacks it",
                part,
            )
        self._left -= size
        if self._left < 0:
            raise LegacyModelError("with the weights before it has more bytes than the file", part)


def _part(parent: h5py.Group, name: str) -> str:
    return f"{(parent.name or '').rstrip('/')}/{name}"


def _strings(value: Any, part: str) -> list[str]:
    values = np.asarray(value).reshape(-1).tolist()
    with _reading(part):
        found = [text.decode("utf-8") if isinstance(text, bytes) else text for text in values]
    if not all(isinstance(text, str) for text in found):
        raise LegacyModelError("is no list of names", part)
    return found


def _reading(part: str) -> AbstractContextManager[None]:
    """What h5py raises of a damaged file is nearly anything."""
    return translated(
        part,
        "cannot be read as HDF5 ({}). The file is damaged or incomplete: copy it again",
    )
