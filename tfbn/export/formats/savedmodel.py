"""TensorFlow's SavedModel: a folder with a graph, and what TensorFlow Serving takes."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import tensorflow as tf

from ...compare import NamedArrays
from ...messages import one_line
from .. import freezing
from ..report import ExportError
from ..servable import Servable
from ..signature import outputs_by_name, specs_by_name
from .format import SIGNATURE, Reloaded, local

# What a SavedModel's folder may hold. A directory that contains anything else is not overwritten.
FILES = {"saved_model.pb", "saved_model.pbtxt", "fingerprint.pb", "keras_metadata.pb"}
FILES |= {"variables", "assets", "assets.extra", "debug"}


@dataclass(frozen=True)
class SavedModel:
    """Writes and reloads SavedModels (see `Format`).

    Attributes:
        freeze: whether weights become constants, as `tfbn.export` takes it.
    """

    freeze: bool | None = None
    name = "SavedModel"
    remedy = "fold=False or freeze=False to see which of them does it, or allow more"

    def check_weights(self, owner: Any) -> None:
        freezing.unfrozen_because(owner, self.freeze)

    def check_target(self, path: str | os.PathLike[str], overwrite: bool) -> Path:
        return check_target(path, overwrite)

    def beside(self, target: Path) -> tuple[str, ...]:
        return ()

    def write(self, servable: Servable, path: Path) -> str:
        def serve(inputs: Any) -> Any:
            outputs = servable.call(inputs)
            inside = outputs.values() if isinstance(outputs, Mapping) else outputs
            nested = isinstance(outputs, (Mapping, list, tuple)) and any(map(tf.nest.is_nested, inside))
            return outputs_by_name(outputs) if nested else outputs

        archive, reason = freezing.archive(servable, serve, self.freeze)
        with _quiet():
            try:
                archive.write_out(str(path))
            except tf.errors.OpError as error:  # TensorFlow's own, on a full disk, for instance
                raise OSError(
                    "The SavedModel cannot be written. Make room, or choose another path. TensorFlow "
                    f"says: {one_line(error)}"
                ) from error
        return reason

    def write_from(self, save: Callable[[Path], Any], path: Path) -> None:
        save(path)

    def holds(self, signature: str) -> bool:
        return True

    def reload(self, path: Path, signature: str = SIGNATURE) -> Reloaded:
        loaded = tf.saved_model.load(str(path)).signatures[signature]

        def run(arrays: NamedArrays) -> NamedArrays:
            try:
                outputs = loaded(**{name: tf.constant(array) for name, array in arrays.items()})
            except Exception as error:  # any operation of the graph may fail
                raise ExportError(
                    "The reloaded SavedModel does not run on inputs on which the model does. Nothing "
                    "was written. A layer may compute with the shapes that it was traced with: see that "
                    f"it takes any batch size. TensorFlow says: {one_line(error)}"
                ) from error
            return {name: tensor.numpy() for name, tensor in outputs.items()}

        return Reloaded(
            run=run,
            inputs=specs_by_name(loaded.structured_input_signature[1]),
            outputs=specs_by_name(loaded.structured_outputs),
        )


def check_target(path: str | os.PathLike[str], overwrite: bool) -> Path:
    """The path to write to.

    Raises:
        ValueError: TensorFlow or `files.atomic` could not write there, or it would mislead.
        FileExistsError: it is taken, and may not be replaced.
    """
    target = local(path)
    if set("*?[") & set(os.path.abspath(target)):
        raise ValueError(
            f"TensorFlow takes *, ? and [ in paths for patterns, received {target}. Rename it."
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


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keras would print the staging path. The setting is a thread's own, unlike `sys.stdout`."""
    interactive = keras.config.is_interactive_logging_enabled()
    keras.config.disable_interactive_logging()
    try:
        yield
    finally:
        if interactive:
            keras.config.enable_interactive_logging()
