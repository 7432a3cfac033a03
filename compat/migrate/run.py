"""All files, in several processes where there are many."""

from __future__ import annotations

import os
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from functools import partial
from multiprocessing import get_context
from pathlib import Path

from ...quiet import WORKER
from .findings import Result
from .one_file import migrate

FEW = 32  # files that are done sooner than a process starts
CHUNK = 8


def migrate_files(
    paths: list[Path], writing: bool = False, processes: int | None = None
) -> Iterator[Result]:
    """What becomes of each file, in their order, as it is known.

    Args:
        writing: whether the files are rewritten.
        processes: how many share the work; otherwise as many as there are processors, and none but this
            one for a few files.
    """
    one = partial(migrate, writing=writing)
    workers = processes or (os.cpu_count() or 1 if len(paths) > FEW else 1)
    if workers == 1:
        yield from map(one, paths)
        return
    with _marked(), ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        yield from pool.map(one, paths, chunksize=CHUNK)


@contextmanager
def _marked() -> Iterator[None]:
    """The processes that start meanwhile know that they are the command's: TensorFlow stays out."""
    before = os.environ.get(WORKER)
    os.environ[WORKER] = "1"
    try:
        yield
    finally:
        if before is None:
            del os.environ[WORKER]
        else:
            os.environ[WORKER] = before
