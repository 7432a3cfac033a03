"""Write beside the target, then rename: the target is the old one or the new one, never half of it.

A staging folder `.NAME.tfbn-XXXXXXXX` beside the target is locked for as long as its process lives. So
the next process that writes to the same target knows those of killed processes, and removes them.
"""

from __future__ import annotations

import ctypes
import errno
import glob
import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

try:
    import fcntl
except ImportError:  # Windows: nothing is locked, and what killed processes left stays.
    fcntl = None  # type: ignore[assignment]

# What a staging folder holds: the new one, the old one while neither is at the target, then the one that
# was replaced, and the lock; and of several files, while they are moved, the old ones beside the target.
NEW, OLD, REPLACED, LOCK, ASIDE = "new", "old", "replaced", "lock", "aside"

# What a system says that cannot move a directory to where another is.
NOT_EMPTY = (errno.ENOTEMPTY, errno.EEXIST)

# Arguments of Linux' renameat2: paths as they are, and what is at the two of them swapped.
AT_FDCWD, RENAME_EXCHANGE = -100, 2


@contextmanager
def staged(target: Path, overwrite: bool = False, beside: Sequence[str] = ()) -> Iterator[Path]:
    """A path, not taken yet, on the target's file system; moved to the target if all goes well.

    With `overwrite`, a file or directory at the target is then replaced. A directory is so in one step
    where the system can swap two (Linux, on its usual file systems); elsewhere in two, between which a
    reader finds nothing there. When the block raises, or is interrupted, nothing is left but what was
    there before. What a killed process left is removed when the next one stages for the same target;
    if it was killed between the two steps, that brings the old one back first.

    Args:
        beside: names of files that belong to a file at the target. Written beside the new one, they are
            put in place with it: for as long as they are not all there, nothing is at the target.

    Raises:
        FileExistsError: something came to the target meanwhile, and `overwrite` is false.
        OSError: nothing can be written there.
    """
    target = Path(os.path.abspath(target))
    with _parents(target):
        with _clear_errors(target):
            _recover(target, beside)
            staging_dir, lock = _make_staging_dir(target)
        try:
            new = staging_dir / NEW / target.name
            new.parent.mkdir()
            yield new
            if target.exists() and not overwrite:
                raise _taken(target)
            with _clear_errors(target):
                if beside:
                    _replace_together(new, target, staging_dir, overwrite, beside)
                else:
                    _replace(new, target, staging_dir, overwrite)
        finally:
            if not (staging_dir / OLD).exists():
                # What cannot be removed does not hide the block's own error; the next one tries again.
                shutil.rmtree(staging_dir, ignore_errors=True)
            if lock is not None:
                os.close(lock)


@contextmanager
def _clear_errors(target: Path) -> Iterator[None]:
    try:
        yield
    except FileExistsError:
        raise
    except OSError as error:
        ancestor = next(folder for folder in target.parents if folder.exists())
        raise OSError(
            error.errno,
            f"{target} cannot be written: {error.strerror} at {ancestor}. Choose another path.",
        ) from error


def _taken(target: Path) -> FileExistsError:
    return FileExistsError(
        f"{target} exists now, written by another process since this one began. Choose another path, or "
        "pass overwrite=True."
    )


@contextmanager
def _parents(target: Path) -> Iterator[None]:
    """The folders above the target: made if missing, removed again if nothing comes into them."""
    missing = [folder for folder in target.parents if not folder.exists()]
    try:
        with _clear_errors(target):
            for folder in reversed(missing):
                folder.mkdir(exist_ok=True)
        yield
    finally:
        with suppress(OSError):  # It holds the target, or what another process wrote.
            for folder in missing:
                folder.rmdir()


def _make_staging_dir(target: Path) -> tuple[Path, int | None]:
    """A new staging folder beside the target, and its lock."""
    while True:
        staging_dir = Path(tempfile.mkdtemp(prefix=_prefix(target), dir=target.parent))
        try:
            return staging_dir, _lock(staging_dir)
        except (BlockingIOError, FileNotFoundError):
            continue  # Another process saw it without its lock, and removes it.
        except OSError:
            return staging_dir, None  # No locks here: nor does another process remove it.


def _prefix(target: Path) -> str:
    return f".{target.name}.tfbn-"


def _lock(staging_dir: Path) -> int:
    """A descriptor that locks a staging folder until it is closed, if only by the death of its process.

    Raises:
        BlockingIOError: another process has locked it.
        FileNotFoundError: another process has removed it.
        OSError: it is not ours to lock, or the file system has no locks.
    """
    if fcntl is None:
        raise OSError(errno.ENOTSUP, os.strerror(errno.ENOTSUP))
    lock = os.open(staging_dir / LOCK, os.O_CREAT | os.O_RDWR)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.fstat(lock).st_nlink == 0:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(staging_dir))
    except BaseException:
        os.close(lock)
        raise
    return lock


def _recover(target: Path, beside: Sequence[str]) -> None:
    """Remove what killed processes left beside the target, and bring back what one had moved aside."""
    for staging_dir in target.parent.glob(glob.escape(_prefix(target)) + "?" * 8):
        try:
            lock = _lock(staging_dir)
        except OSError:
            continue  # Of a living process, of another user, or on a file system without locks.
        try:
            with _alone_in(target.parent):
                _bring_back(target, staging_dir, beside)
            shutil.rmtree(staging_dir, ignore_errors=True)
        finally:
            os.close(lock)


def _replace(new: Path, target: Path, staging_dir: Path, overwrite: bool) -> None:
    """Move `new` to the target, and into the staging folder what was there."""
    try:
        os.replace(new, target)  # To where nothing is, or an empty directory, or over a file.
    except OSError as error:
        if not overwrite and error.errno in NOT_EMPTY:
            raise _taken(target) from error
        if not (overwrite and new.is_dir()):
            raise
        if not _exchange(new, target):
            _replace_in_two_steps(new, target, staging_dir)


def _replace_in_two_steps(new: Path, target: Path, staging_dir: Path) -> None:
    try:
        with suppress(FileNotFoundError):  # Another process has just moved it away.
            os.rename(target, staging_dir / OLD)
        os.rename(new, target)
    except BaseException as error:
        if not (isinstance(error, OSError) and error.errno in NOT_EMPTY):
            if (staging_dir / OLD).exists() and not target.exists():
                os.rename(staging_dir / OLD, target)
            raise
        # Another process came in between: its own stays, as if ours had come before.
    with suppress(FileNotFoundError):
        os.rename(staging_dir / OLD, staging_dir / REPLACED)


def _replace_together(
    new: Path, target: Path, staging_dir: Path, overwrite: bool, beside: Sequence[str]
) -> None:
    """`_replace`, of a file with others beside it: it goes first and comes last, so never lacks them."""
    with _alone_in(target.parent):  # Two at once would leave files of both.
        if not overwrite and any(target.with_name(name).exists() for name in (target.name, *beside)):
            raise _taken(target)
        (staging_dir / ASIDE).mkdir()
        try:
            if target.exists():
                os.rename(target, staging_dir / OLD)
            for name in beside:
                with suppress(FileNotFoundError):
                    os.rename(target.with_name(name), staging_dir / ASIDE / name)
                os.rename(new.with_name(name), target.with_name(name))
            os.rename(new, target)
        except BaseException:
            _bring_back(target, staging_dir, beside)
            raise
        os.rename(staging_dir / ASIDE, staging_dir / REPLACED)
        with suppress(FileNotFoundError):
            os.rename(staging_dir / OLD, staging_dir / REPLACED / target.name)


def _bring_back(target: Path, staging_dir: Path, beside: Sequence[str]) -> None:
    """Undo what was moved, unless the target is there, which comes last."""
    if target.exists():
        return
    for name in beside if (staging_dir / ASIDE).exists() else ():
        place = target.with_name(name)
        if not (staging_dir / NEW / name).exists():
            place.unlink(missing_ok=True)
        with suppress(FileNotFoundError):
            os.rename(staging_dir / ASIDE / name, place)
    with suppress(FileNotFoundError):
        os.rename(staging_dir / OLD, target)
    with suppress(FileNotFoundError):
        os.rmdir(staging_dir / ASIDE)


@contextmanager
def _alone_in(folder: Path) -> Iterator[None]:
    """One process after the other, where the system has locks."""
    lock = None
    try:
        with suppress(OSError, AttributeError):
            lock = os.open(folder, os.O_RDONLY)
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield
    finally:
        if lock is not None:
            os.close(lock)


def _exchange(path: Path, other: Path) -> bool:
    """Swap what is at two paths in one step; false where the system or the file system cannot."""
    try:
        rename = ctypes.CDLL(None).renameat2
    except (AttributeError, OSError, TypeError):  # Not Linux.
        return False
    paths = AT_FDCWD, os.fsencode(path), AT_FDCWD, os.fsencode(other)
    return bool(rename(*paths, RENAME_EXCHANGE) == 0)
