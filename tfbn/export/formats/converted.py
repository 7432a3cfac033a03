"""Files that a converter makes of a SavedModel, which keeps the names of inputs and outputs."""

from __future__ import annotations

import os
import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from ...compare import NamedArrays
from ...messages import one_line
from .. import freezing
from ..report import ExportError
from ..servable import Servable
from .format import SIGNATURE, Reloaded, local
from .savedmodel import SavedModel


class Converted(ABC):
    """One file, and those beside it (see `Format`).

    Attributes:
        telling: patterns of the part of a message that says what the format lacks, the best one first.
        limit: bytes of weights that a file holds, if there is a limit.
    """

    name: str
    telling: tuple[str, ...]
    limit: int | None = freezing.GRAPHDEF_LIMIT_BYTES
    freeze = True  # there are no variables in it
    remedy = "fold=False to see whether folding does it, or allow more"

    @abstractmethod
    def convert(self, saved: Path, path: Path) -> None:
        """Make the file of a SavedModel. Any exception but `OSError` says that it cannot be made."""

    @abstractmethod
    def load(self, path: Path) -> Reloaded:
        """`reload`, with exceptions of any kind."""

    def check_weights(self, owner: Any) -> None:
        size = freezing.size_of(owner)
        if self.limit is not None and size > self.limit:
            raise ValueError(
                f"The weights of {owner.name!r} are {size / 1e9:.1f} GB, and a file of {self.name} "
                f"holds at most {self.limit / 1e9:.1f} GB. Export a SavedModel."
            )

    def check_target(self, path: str | os.PathLike[str], overwrite: bool) -> Path:
        target = local(path)
        if target.is_dir():
            raise FileExistsError(f"{target} is a directory. Choose another name for the file.")
        others = [target.with_name(name) for name in self.beside(target)]
        for taken in [place for place in (target, *others) if place.exists()]:
            if not target.exists():
                raise FileExistsError(
                    f"{taken} exists, and {target} does not, which it would belong to. Move it away, or "
                    "choose another path."
                )
            if not overwrite:
                raise FileExistsError(
                    f"{taken} exists already. Choose another path, or pass overwrite=True."
                )
        return target

    def beside(self, target: Path) -> tuple[str, ...]:
        return ()

    def write(self, servable: Servable, path: Path) -> str:
        self.write_from(partial(SavedModel(freeze=False).write, servable), path)
        return ""

    def write_from(self, save: Callable[[Path], Any], path: Path) -> None:
        # Beside the file, where there is room and what a killed process leaves is removed.
        with TemporaryDirectory(dir=path.parent) as folder:
            saved = Path(folder) / "saved"
            save(saved)
            try:
                with self._quoted():
                    self.convert(saved, path)
            except OSError as error:  # a full disk, for instance
                raise OSError(
                    f"The {self.name} file cannot be written. Make room, or choose another path. The "
                    f"system says: {one_line(error)}"
                ) from error

    def holds(self, signature: str) -> bool:
        return signature == SIGNATURE

    def reload(self, path: Path, signature: str = SIGNATURE) -> Reloaded:
        assert self.holds(signature), signature
        with self._quoted():
            loaded = self.load(path)
        for name, (shape, _) in loaded.inputs.items():
            if shape[:1] not in ((), (None,)):
                raise ExportError(
                    f"The {self.name} file takes {name} in batches of {shape[0]} only. Nothing was "
                    "written. See that each layer takes any batch size."
                )

        def run(arrays: NamedArrays) -> NamedArrays:
            try:
                return loaded.run(arrays)
            except Exception as error:  # any operation of the graph may fail
                raise ExportError(
                    f"The reloaded {self.name} file does not run on inputs on which the model does. "
                    "Nothing was written. See that each layer takes any batch size. Its runtime says: "
                    f"{self._said(error)}"
                ) from error

        return loaded._replace(run=run)

    @contextmanager
    def _quoted(self) -> Iterator[None]:
        try:
            yield
        except OSError:
            raise
        except Exception as error:  # converters and runtimes raise anything
            raise ValueError(
                f"{self.name} cannot express this model: {self._said(error).rstrip('.')}. Nothing was "
                "written. Replace the layer that needs it, or export another format."
            ) from error

    def _said(self, error: Exception) -> str:
        found = (re.search(pattern, str(error)) for pattern in self.telling)
        told = next((match[0] for match in found if match), None)
        return one_line(error if told is None else ValueError(told))
