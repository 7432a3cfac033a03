"""Exports killed, without room, racing: the old artefact stays whole, or the new one is whole."""

import errno
import itertools
import multiprocessing
import os
import random
import resource
import signal
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import staging_child
import tensorflow as tf
from export_child import export_forever, small_model

import tfbn
from tfbn.export import staging

MISSING = None


def contents(target):
    """What a target that the child wrote holds, found whole; `MISSING` if there is none."""
    try:
        folder = os.open(target, os.O_RDONLY)
    except FileNotFoundError:
        return MISSING
    try:
        texts = set()
        for file in staging_child.FILES:
            with open(os.open(file, os.O_RDONLY, dir_fd=folder)) as stream:
                texts.add(stream.read())
    finally:
        os.close(folder)
    assert len(texts) == 1, "half of one version and half of another"
    (text,) = texts
    assert len(text) == 1000
    return text[0]


def child(target, mode, *contents, step=0):
    command = [sys.executable, staging_child.__file__, staging.__file__, target, mode, step, *contents]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return subprocess.Popen(list(map(str, command)), text=True, **pipes)


def stage_nothing(target):
    with pytest.raises(InterruptedError), staging.staged(target):
        raise InterruptedError


@pytest.mark.parametrize("mode", ["swap", "two steps", "nothing there"])
def test_killed_before_any_step_a_target_is_the_old_or_the_new_one(mode, tmp_path):
    target = tmp_path / "deep" / "m"
    old = MISSING if mode == "nothing there" else "o"
    found = []
    for step in itertools.count(1):
        if old:
            target.parent.mkdir()
            staging_child.write(target, old)
        process = child(target, mode, "n", step=step)
        assert process.communicate()[1] == ""
        at_once = contents(target)
        target.parent.mkdir(exist_ok=True)
        stage_nothing(target)
        found.append((at_once, contents(target)))
        # Nothing of the killed process is left, neither its files nor the old ones.
        left = sorted(path.relative_to(tmp_path).name for path in tmp_path.rglob("*"))
        assert left == (sorted(["deep", "m", *staging_child.FILES]) if found[-1][1] else ["deep"]), step
        for path in sorted(tmp_path.rglob("*"), reverse=True):
            path.rmdir() if path.is_dir() else path.unlink()
        if process.returncode == 0:
            break
        assert process.returncode == -signal.SIGKILL
    assert step > 12
    expected = {(old, old), ("n", "n")} | ({(MISSING, "o")} if mode == "two steps" else set())
    assert set(found) == expected


@pytest.mark.parametrize("mode", ["swap", "two steps"])
def test_three_processes_that_write_one_target_leave_one_whole(mode, tmp_path):
    target = tmp_path / "m"
    staging_child.write(target, "o")
    writers = [child(target, mode, *name * 100) for name in "abc"]
    seen = set()
    while any(writer.poll() is None for writer in writers):
        try:
            seen.add(contents(target))
        except FileNotFoundError:  # Opened before it was replaced, read after it was removed.
            continue
    for writer in writers:
        assert writer.communicate() == ("", "")
        assert writer.returncode == 0
    assert contents(target) in set("abc")
    assert os.listdir(tmp_path) == ["m"]
    assert len(seen & set("abc")) > 1
    if mode == "swap":  # At every instant a reader finds one there.
        assert MISSING not in seen


def test_of_processes_that_must_not_overwrite_one_wins(tmp_path):
    target = tmp_path / "deep" / "m"
    writers = {name: child(target, "keep", name) for name in "abc"}
    for writer in writers.values():
        assert writer.stdout.readline() == "ready\n"
    errors = {name: writer.communicate("go\n")[1] for name, writer in writers.items()}
    (winner,) = (name for name, error in errors.items() if not error)
    assert contents(target) == winner
    for name in set("abc") - {winner}:
        last = errors[name].splitlines()[-1]
        assert last.startswith(f"FileExistsError: {target} exists now, written by another process since")
        assert last.endswith("Choose another path, or pass overwrite=True.")
    assert os.listdir(target.parent) == ["m"]


def test_the_staging_folders_of_living_processes_and_strangers_stay(tmp_path):
    target = tmp_path / "m"
    for name in (".m.tfbn-notes", ".m.backup", ".mm.tfbn-abcdefgh", "m.tfbn-abcdefgh"):
        (tmp_path / name).mkdir()
    (tmp_path / ".m.tfbn-a_file__").write_text("")
    before = sorted(os.listdir(tmp_path))
    with staging.staged(target) as outer:
        stage_nothing(target)
        staging_child.write(outer, "n")
    assert contents(target) == "n"
    assert sorted(os.listdir(tmp_path)) == sorted([*before, "m"])


def test_a_file_system_without_locks_is_written_and_not_cleaned(tmp_path, monkeypatch):
    def no_locks(*arguments):
        raise OSError(errno.ENOLCK, "No locks available")

    left = tmp_path / ".m.tfbn-abcdefgh"
    left.mkdir()
    monkeypatch.setattr(staging.fcntl, "flock", no_locks)
    with staging.staged(tmp_path / "m") as new:
        staging_child.write(new, "n")
    assert contents(tmp_path / "m") == "n"
    assert sorted(os.listdir(tmp_path)) == [left.name, "m"]
    monkeypatch.undo()
    stage_nothing(tmp_path / "m")
    assert os.listdir(tmp_path) == ["m"]


@pytest.mark.parametrize("again", [True, False])
def test_when_the_new_one_cannot_be_moved_in_the_old_one_comes_back(again, tmp_path, monkeypatch):
    """Even if it cannot be moved back either: then the next one does it."""
    target = tmp_path / "m"
    staging_child.write(target, "o")
    rename = os.rename

    def full(source, destination):
        if destination == target and (again or staging.NEW in Path(source).parts):
            raise OSError(errno.ENOSPC, "No space left on device")
        rename(source, destination)

    monkeypatch.setattr(staging, "_exchange", lambda one, other: False)
    monkeypatch.setattr(os, "rename", full)
    with (
        pytest.raises(
            OSError, match="m cannot be written: No space left .* at .*Choose another path|No"
        ),
        staging.staged(target, overwrite=True) as new,
    ):
        staging_child.write(new, "n")
    assert contents(target) == (MISSING if again else "o")
    monkeypatch.undo()
    stage_nothing(target)
    assert contents(target) == "o"
    assert os.listdir(tmp_path) == ["m"]


def served(path):
    """What the SavedModel answers to zeros: the offset of the model that was exported."""
    signature = tf.saved_model.load(str(path)).signatures["serving_default"]
    (offset,) = set(signature(x=tf.zeros((1, 2)))["output_0"].numpy().ravel().tolist())
    return offset


@pytest.mark.parametrize(("file", "width"), [("variables", 5000), ("saved_model", 3)])
@pytest.mark.parametrize("existing", [False, True])
def test_a_full_disk(existing, file, width, tmp_path):
    # A limit on the size of files stands in for the disk: the system refuses what TensorFlow writes.
    path = tmp_path / "m"
    if existing:
        tfbn.export(small_model(1.0), path)
    before = {file: file.is_file() and file.read_bytes() for file in tmp_path.rglob("*")}
    model = small_model(2.0, width)
    unlimited = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (3000, unlimited[1]))
    try:
        with pytest.raises(OSError, match=f"cannot be written: .*m/{file}.* too large.* Make room"):
            tfbn.export(model, path, overwrite=existing)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, unlimited)
    assert {file: file.is_file() and file.read_bytes() for file in tmp_path.rglob("*")} == before
    tfbn.export(model, path, overwrite=existing)
    assert served(path) == 2.0


def test_a_target_that_cannot_be_written_is_named_before_any_work(tmp_path, monkeypatch):
    def read_only(*arguments, **keywords):
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(tfbn.folding, "fold", None)
    model = small_model(1.0)
    with pytest.raises(OSError, match=r" /proc/m cannot be written: .* at /proc\. Choose"):
        tfbn.export(model, "/proc/m")  # Where root cannot write either.
    for where, name in ((tempfile, "mkdtemp"), (os, "mkdir")):
        with monkeypatch.context() as patch:
            patch.setattr(where, name, read_only)
            with pytest.raises(OSError, match="deep/m cannot be written: Read-only file system at "):
                tfbn.export(model, tmp_path / "deep" / "m")
        assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("overwrite", [True, False])
def test_two_exports_to_one_path_at_once(overwrite, tmp_path):
    path = tmp_path / "deep" / "m"
    models = [small_model(1.0), small_model(2.0)]
    if overwrite:
        tfbn.export(models[0], path)
    stdout = sys.stdout
    with ThreadPoolExecutor(2) as pool:
        exports = [pool.submit(tfbn.export, model, path, overwrite=overwrite) for model in models]
    assert sys.stdout is stdout
    errors = [export.exception() for export in exports]
    if overwrite:
        assert errors == [None, None]
        assert served(path) in (1.0, 2.0)
    else:
        (loser,) = (error for error in errors if error)
        assert isinstance(loser, FileExistsError)
        assert "m exists " in str(loser)
        assert served(path) == [1.0, 2.0][errors.index(None)]
    assert os.listdir(path.parent) == ["m"]


def test_what_comes_to_the_path_during_the_export_is_not_replaced(tmp_path, monkeypatch):
    path = tmp_path / "m"
    tfbn.export(small_model(1.0), path)
    fold = tfbn.folding.fold

    def fold_slowly(model):
        (path / "notes.txt").write_text("years of work")
        return fold(model)

    monkeypatch.setattr(tfbn.folding, "fold", fold_slowly)
    with pytest.raises(FileExistsError, match=r"is not just a SavedModel .*notes\.txt"):
        tfbn.export(small_model(2.0), path, overwrite=True)
    assert (path / "notes.txt").read_text() == "years of work"
    assert served(path) == 1.0
    assert os.listdir(tmp_path) == ["m"]


@pytest.mark.slow
def test_killed_at_random_moments(tmp_path, monkeypatch):
    """Each child is forked from a process that has imported TensorFlow and run nothing of it."""
    monkeypatch.setenv("OPENBLAS_NUM_THREADS", "1")  # So that the process that forks has one thread.
    monkeypatch.setenv(
        "PYTHONPATH", os.pathsep.join(sys.path)
    )  # Python 3.11 preloads from nowhere else.
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["export_child"])
    path, moments = tmp_path / "m", random.Random(0)
    tfbn.export(small_model(0.0), path)
    found, rooms = [0.0], set()
    for number in range(50):
        offsets, ready = [2.0 * number + 1, 2.0 * number + 2], context.Event()
        process = context.Process(target=export_forever, args=(path, offsets, ready))
        process.start()
        if number % 5:  # Some are killed in their first export, which is slower, and most in later ones.
            assert ready.wait(60)
        time.sleep(moments.uniform(0, 0.2))
        process.kill()
        process.join()
        assert process.exitcode == -signal.SIGKILL
        found.append(served(path))
        assert found[-1] in {found[-2], *offsets}
        left = set(os.listdir(tmp_path)) - {"m"}
        assert len(left) <= 1  # Each child removes what the one before it left.
        rooms |= left
    assert len(set(found)) > 25
    assert len(rooms) > 25  # They were in the midst of exports.
    tfbn.export(small_model(-1.0), path, overwrite=True)
    assert served(path) == -1.0
    assert os.listdir(tmp_path) == ["m"]
