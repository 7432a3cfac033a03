"""A check of an HDF5 file that the library leaves out, and then reads for ever.

Texts of variable length lie in global heaps: collections of objects, each with its size before it. A
free object of size 0, as in a file with a piece of zeros, keeps libhdf5 1.14 at the same place.
Source: HDF5 File Format Specification 3.0, III.E.
"""

from __future__ import annotations

import mmap
import os
import struct

from ..errors import LegacyModelError

_START = b"GCOL\x01\x00\x00\x00"
_HEAD = struct.Struct("<4s4xQ")  # signature, version and reserved bytes, size of the collection
_OBJECT = struct.Struct("<HHxxxxQ")  # index, references, size


def check(path: str) -> None:
    """Refuse a file whose heaps cannot be walked through.

    Raises:
        LegacyModelError: an object of a size that cannot be.
    """
    if not os.path.getsize(path):
        return
    with open(path, "rb") as stream, mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as data:
        at = data.find(_START)
        while at >= 0:
            _walk(data, at)
            at = data.find(_START, at + len(_START))


def _walk(data: mmap.mmap, start: int) -> None:
    if start + _HEAD.size > len(data):
        return
    end = start + _HEAD.unpack_from(data, start)[1]
    at = start + _HEAD.size
    while at + _OBJECT.size <= min(end, len(data)):
        index, _, size = _OBJECT.unpack_from(data, at)
        taken = _OBJECT.size + (size + 7) // 8 * 8 if index else size
        if taken < _OBJECT.size or at + taken > end:
            raise LegacyModelError(
                f"is damaged at byte {at}: a text there has {size} bytes. Copy the file again", "HDF5"
            )
        at += taken
