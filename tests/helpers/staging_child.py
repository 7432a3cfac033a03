"""A process that stages directories, to be killed and raced: `files.atomic` alone, without TensorFlow.

python staging_child.py atomic.py TARGET MODE STEP CONTENT…
"""

import importlib.util
import os
import signal
import sys
from pathlib import Path

FILES = ("saved_model.pb", "variables")
BESIDE = "m.bin"


def write(folder, content):
    """Something that is whole when its files agree."""
    folder.mkdir()
    for file in FILES:
        (folder / file).write_text(content * 1000)


def write_together(file, content):
    """Two files that are whole when they agree."""
    for path in (file, file.with_name(BESIDE)):
        path.write_text(content * 1000)


def die_before(step):
    """Kill this process right before its nth operation on files; those are what raises audit events."""
    left = step

    def count(event, arguments):
        nonlocal left
        if event.split(".")[0] in {"open", "os", "shutil", "tempfile", "fcntl", "glob", "ctypes"}:
            left -= 1
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(count)


def main(module, target, mode, step, *contents):
    """Stage each content; with mode "two steps" as where two directories cannot be swapped.

    With mode "together", two files.
    """
    together = mode == "together"
    spec = importlib.util.spec_from_file_location("atomic", module)
    atomic = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(atomic)
    if mode == "two steps":
        atomic._exchange = lambda new, other: False
    die_before(int(step))
    for content in contents:
        beside = [BESIDE] if together else []
        with atomic.staged(Path(target), mode != "keep", beside) as new:
            (write_together if together else write)(new, content)
            if mode == "keep":
                print("ready", flush=True)
                sys.stdin.readline()


if __name__ == "__main__":
    main(*sys.argv[1:])
