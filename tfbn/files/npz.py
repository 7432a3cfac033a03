"""Arrays by name in `.npz` files, which users write with `numpy.savez`."""

from __future__ import annotations

import os
import zipfile

import numpy as np


def read(path: str | os.PathLike[str], how: str) -> dict[str, np.ndarray]:
    """The arrays of an `.npz` file by name.

    Args:
        how: how such a file is written, for the error.

    Raises:
        ValueError: it is another file, or one that cannot be read.
    """
    if not zipfile.is_zipfile(path):
        raise ValueError(f"{path} is no .npz file, or a damaged one. {how}")
    try:
        with np.load(path, allow_pickle=False) as file:
            return {name: file[name] for name in file.files}
    except (ValueError, EOFError, zipfile.BadZipFile) as error:
        raise ValueError(f"{path} cannot be read as numbers: {error}") from error
