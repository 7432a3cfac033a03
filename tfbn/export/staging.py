"""Write beside the target, then rename: the target is the old one or the new one, never half of it."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def staged(target: Path) -> Iterator[Path]:
    """A path, not taken yet, on the target's file system; moved to the target if all goes well.

    A file or directory at the target is replaced only then. When the block raises, or is
    interrupted, nothing is left but what was there before.

    Raises:
        OSError: nothing can be written there.
    """
    target = Path(os.path.abspath(target))
    ancestor = next(one for one in target.parents if one.exists())
    try:
        room = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=ancestor))
    except OSError as error:
        raise OSError(
            error.errno,
            f"{target} cannot be written: {error.strerror} at {ancestor}. Choose another path",
        ) from error
    try:
        new = room / "new" / target.name
        new.parent.mkdir()
        yield new
        target.parent.mkdir(parents=True, exist_ok=True)
        _replace(new, target, aside=room / "old")
    finally:
        shutil.rmtree(room)


def _replace(new: Path, target: Path, aside: Path) -> None:
    if not target.is_dir():
        os.replace(new, target)
        return
    # A directory that is not empty cannot be replaced in one call of every file system.
    try:
        os.rename(target, aside)
        os.rename(new, target)
    except BaseException:
        if aside.exists() and not target.exists():
            os.rename(aside, target)
        raise
