"""A TF1 checkpoint on disk: where it is, which variables it holds, and their values."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from typing import Any

import numpy as np
import tensorflow as tf

# What NewCheckpointReader and RestoreV2 raise of a file that they cannot read.
READ_ERRORS = (tf.errors.OpError, ValueError, IndexError, RuntimeError)


class CheckpointFile:
    """A checkpoint that `tf.compat.v1.train.Saver` wrote, of the format V1 or V2.

    Args:
        path: prefix of its files, one of them (`.index`, `.meta`, `.data-…`), or the folder of the last
            checkpoint. A prefix may end in `/`: its base name is empty then.

    Attributes:
        prefix: of its files.
        shapes, dtypes: of its variables, by name.

    Raises:
        TypeError: `path` is no path.
        FileNotFoundError: no checkpoint there.
        OSError: files that cannot be read.
    """

    def __init__(self, path: Any) -> None:
        self.prefix = _prefix(path)
        try:
            reader = tf.compat.v1.train.NewCheckpointReader(self.prefix)
            shapes, dtypes = reader.get_variable_to_shape_map(), reader.get_variable_to_dtype_map()
        except READ_ERRORS as error:
            folder = tf.io.gfile.isdir(self.prefix) and not tf.io.gfile.exists(f"{self.prefix}.index")
            if not folder and not isinstance(error, tf.errors.NotFoundError):
                raise self._unreadable(error) from error
            raise FileNotFoundError(
                f"No TF1 checkpoint at {str(path)!r}. Pass the prefix of its files, for "
                "model.ckpt-7.index 'model.ckpt-7', or a folder whose file 'checkpoint' names it."
            ) from error
        self.shapes: dict[str, tuple[int, ...]] = {name: tuple(shape) for name, shape in shapes.items()}
        self.dtypes: dict[str, tf.DType] = dtypes

    @property
    def object_based(self) -> bool:
        """Whether `tf.train.Checkpoint` wrote it, which names variables by the way to them."""
        return "_CHECKPOINTABLE_OBJECT_GRAPH" in self.shapes

    def read(self, names: Iterable[str]) -> dict[str, np.ndarray]:
        """The values of variables, whole ones of those that were saved in slices.

        Raises:
            OSError: files that cannot be read.
        """
        names = list(dict.fromkeys(names))
        if not names:
            return {}
        try:
            # Unlike the reader it also puts the slices of format V1 together.
            values = tf.raw_ops.RestoreV2(
                prefix=self.prefix,
                tensor_names=names,
                shape_and_slices=[""] * len(names),
                dtypes=[self.dtypes[name] for name in names],
            )
        except READ_ERRORS as error:
            raise self._unreadable(error) from error
        return {name: value.numpy() for name, value in zip(names, values, strict=True)}

    def _unreadable(self, error: Exception) -> OSError:
        why = re.sub(r"\{\{.*?\}\} | \[Op:.*", "", str(getattr(error, "message", error)))
        return OSError(
            f"The checkpoint {self.prefix!r} cannot be read, and nothing was changed: {why}. It is "
            "damaged, incomplete or something else: copy all of its files again."
        )


def _prefix(path: Any) -> str:
    if not isinstance(path, (str, bytes, os.PathLike)):
        raise TypeError(f"path must be a string or a pathlib.Path, received {path!r}.")
    text = re.sub(r"\.(index|meta|data-\d{5}-of-\d{5})$", "", os.fsdecode(path))
    if tf.io.gfile.exists(f"{text}.index"):
        return text
    if not tf.io.gfile.isdir(text):
        shards = f"{text}-?????-of-?????"  # V1 from Saver(sharded=True); the reader takes the pattern
        return shards if tf.io.gfile.glob(shards) else text
    last = tf.train.latest_checkpoint(text) or text
    if tf.io.gfile.isdir(last) and not tf.io.gfile.exists(f"{last}.index"):
        return f"{text.rstrip('/')}/"  # its base name is empty
    return last
