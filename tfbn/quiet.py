"""The command `tfbn`: whether this is it, and how TensorFlow starts without burying its answer."""

import functools
import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager

WORKER = "_TFBN_WORKER"  # set in the environment of processes that the command starts


@functools.cache  # for once `python -m tfbn` runs, its arguments are those of a file
def is_command() -> bool:
    """Whether this is the command `tfbn`, or started by it, and no program that imports the package."""
    if os.environ.get(WORKER):
        return True
    if sys.argv[0] == "-m":  # as it is while Python looks for the module to run, whose arguments follow
        return sys.orig_argv[-len(sys.argv)] == "tfbn"
    return os.path.basename(sys.argv[0]) in ("tfbn", "tfbn.exe")


@contextmanager
def starting() -> Iterator[None]:
    """Import TensorFlow in the block without the lines that its libraries write to stderr.

    They write before they read any log level, so the file descriptor itself is redirected. If the
    import fails, the lines are shown.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    stderr = os.dup(2)
    with tempfile.TemporaryFile() as aside:
        os.dup2(aside.fileno(), 2)
        try:
            yield
        except BaseException:
            aside.seek(0)
            os.write(stderr, aside.read())
            raise
        finally:
            os.dup2(stderr, 2)
            os.close(stderr)
