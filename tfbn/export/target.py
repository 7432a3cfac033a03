"""Where a SavedModel may be written."""

from __future__ import annotations

import os
from pathlib import Path

# What a SavedModel's folder may hold. A directory that contains anything else is not overwritten.
FILES = {"saved_model.pb", "saved_model.pbtxt", "fingerprint.pb", "keras_metadata.pb"}
FILES |= {"variables", "assets", "assets.extra", "debug"}

# Names of other formats, which are files.
OTHER_SUFFIXES = {".keras", ".h5", ".hdf5", ".tflite", ".onnx", ".xml"}


def check_target(path: str | os.PathLike[str], overwrite: bool) -> Path:
    """The path to write to.

    Raises:
        ValueError: TensorFlow or `staging` could not write there, or it would mislead.
        FileExistsError: it is taken, and may not be replaced.
    """
    given = os.fsdecode(path)
    if "://" in given:
        raise ValueError(f"export writes to local directories, received {given}. Copy it there after.")
    target = Path(given)
    if set("*?[") & set(os.path.abspath(target)):
        raise ValueError(
            f"TensorFlow takes *, ? and [ in paths for patterns, received {given}. Rename it."
        )
    if target.suffix in OTHER_SUFFIXES:
        raise ValueError(
            f"export writes a SavedModel, which is a directory, received {given}. Leave {target.suffix} "
            "out, or write that format with Keras: tfbn.fold(model)[0].export or .save."
        )
    if (target.parent / "saved_model.pb").exists():
        raise FileExistsError(f"{target.parent} is a SavedModel itself. Choose a path beside it.")
    if not target.exists():
        return target
    found = {entry.name for entry in target.iterdir()} if target.is_dir() else {"a file"}
    if found - FILES or (found and "saved_model.pb" not in found):
        raise FileExistsError(
            f"{target} exists and is not just a SavedModel (it holds {', '.join(sorted(found))}), so "
            "it is not replaced. Move it away, or choose another path."
        )
    if not overwrite:
        raise FileExistsError(f"{target} exists already. Choose another path, or pass overwrite=True.")
    return target
