"""What `export` needs of a format of files."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from ...compare import NamedArrays
from ..report import SpecsByName
from ..servable import Servable

# The signature that is written and reloaded, of a Keras model.
SIGNATURE = "serving_default"


class Reloaded(NamedTuple):
    """What was written, read again.

    Attributes:
        run: the function of named arrays that it serves. It raises `ExportError` where it fails.
        inputs, outputs: shape and type of what goes in and out, by name.
    """

    run: Callable[[NamedArrays], NamedArrays]
    inputs: SpecsByName
    outputs: SpecsByName


class Format(Protocol):
    """A format of files, with the choices that it leaves.

    Attributes:
        name: what messages and the report call it.
        freeze: whether weights become constants, as `tfbn.export` takes it.
        remedy: what to try where the outputs differ, as the end of "Try …".
    """

    @property
    def name(self) -> str: ...

    @property
    def freeze(self) -> bool | None: ...

    @property
    def remedy(self) -> str: ...

    def check_weights(self, owner: Any) -> None:
        """Refuse weights that it cannot hold.

        Args:
            owner: what holds them, with a name.

        Raises:
            ValueError: they are too large.
        """

    def check_target(self, path: str | os.PathLike[str], overwrite: bool) -> Path:
        """The path to write to.

        Raises:
            ValueError: it cannot be, or would mislead.
            FileExistsError: it is taken, and may not be replaced.
        """

    def beside(self, target: Path) -> tuple[str, ...]:
        """The names of files that belong to one at the target."""

    def write(self, servable: Servable, path: Path) -> str:
        """Write to a path that is not taken yet.

        Returns:
            Why the weights are variables there; `""` where they are constants.

        Raises:
            ValueError: the model cannot be written so.
            OSError: the system refuses it.
        """

    def write_from(self, save: Callable[[Path], Any], path: Path) -> None:
        """Write what `save` writes as a SavedModel; see `write`."""

    def holds(self, signature: str) -> bool:
        """Whether what is written has a signature of the name, of several that are there."""

    def reload(self, path: Path, signature: str = SIGNATURE) -> Reloaded:
        """Read a signature of what was written, with the format's own runtime."""


def local(path: str | os.PathLike[str]) -> Path:
    """A path on this machine.

    Raises:
        ValueError: it is elsewhere.
    """
    given = os.fsdecode(path)
    if "://" in given:
        raise ValueError(f"export writes to local directories, received {given}. Copy it there after.")
    return Path(given)
