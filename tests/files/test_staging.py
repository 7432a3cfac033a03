"""Staging alone, killed before every step and raced: the target is the old one or the new one, whole."""

import errno
import itertools
import os
import shutil
import signal
import subprocess
import sys
from contextlib import nullcontext
from pathlib import Path

import pytest

import staging_child
from tfbn.files import atomic

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
    command = [sys.executable, staging_child.__file__, atomic.__file__, target, mode, step, *contents]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return subprocess.Popen(list(map(str, command)), text=True, **pipes)


def stage_nothing(target):
    with pytest.raises(InterruptedError), atomic.staged(target):
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
    target, seen = tmp_path / "m", set()
    while not seen & set("abc"):  # Once more if others took all the reader's turns.
        if target.exists():
            shutil.rmtree(target)
        staging_child.write(target, "o")
        writers = [child(target, mode, *name * 100) for name in "abc"]
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


@pytest.mark.parametrize("overwrite", [True, False])
def test_what_comes_in_the_last_moment_is_replaced_only_if_it_may(overwrite, tmp_path, monkeypatch):
    target, replace = tmp_path / "m", os.replace

    def replace_late(source, destination):
        staging_child.write(target, "o")
        replace(source, destination)

    monkeypatch.setattr(os, "replace", replace_late)
    allowed = (
        nullcontext() if overwrite else pytest.raises(FileExistsError, match="m exists now, written")
    )
    with allowed, atomic.staged(target, overwrite=overwrite) as new:
        staging_child.write(new, "n")
    assert contents(target) == ("n" if overwrite else "o")
    assert os.listdir(tmp_path) == ["m"]


def test_the_staging_folders_of_living_processes_and_strangers_stay(tmp_path):
    target = tmp_path / "m"
    for name in (".m.tfbn-notes", ".m.backup", ".mm.tfbn-abcdefgh", "m.tfbn-abcdefgh"):
        (tmp_path / name).mkdir()
    (tmp_path / ".m.tfbn-a_file__").write_text("")
    before = sorted(os.listdir(tmp_path))
    with atomic.staged(target) as outer:
        stage_nothing(target)
        staging_child.write(outer, "n")
    assert contents(target) == "n"
    assert sorted(os.listdir(tmp_path)) == sorted([*before, "m"])


def test_a_file_system_without_locks_is_written_and_not_cleaned(tmp_path, monkeypatch):
    def no_locks(*arguments):
        raise OSError(errno.ENOLCK, "No locks available")

    left = tmp_path / ".m.tfbn-abcdefgh"
    left.mkdir()
    monkeypatch.setattr(atomic.fcntl, "flock", no_locks)
    with atomic.staged(tmp_path / "m") as new:
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
        if destination == target and (again or atomic.NEW in Path(source).parts):
            raise OSError(errno.ENOSPC, "No space left on device")
        rename(source, destination)

    monkeypatch.setattr(atomic, "_exchange", lambda new, other: False)
    monkeypatch.setattr(os, "rename", full)
    with (
        pytest.raises(
            OSError, match="m cannot be written: No space left .* at .*Choose another path|No"
        ),
        atomic.staged(target, overwrite=True) as new,
    ):
        staging_child.write(new, "n")
    assert contents(target) == (MISSING if again else "o")
    monkeypatch.undo()
    stage_nothing(target)
    assert contents(target) == "o"
    assert os.listdir(tmp_path) == ["m"]


def contents_together(file):
    """What two files hold, found whole; `MISSING` if the one that is opened first is not there."""
    if not file.exists():
        return MISSING
    (text,) = {path.read_text() for path in (file, file.with_name(staging_child.BESIDE))}
    assert len(text) == 1000
    return text[0]


@pytest.mark.parametrize("old", ["o", MISSING])
def test_killed_before_any_step_files_are_replaced_together(old, tmp_path):
    target, found = tmp_path / "deep" / "m.xml", []
    for step in itertools.count(1):
        if old:
            target.parent.mkdir()
            staging_child.write_together(target, old)
        process = child(target, "together", "n", step=step)
        assert process.communicate()[1] == ""
        at_once = contents_together(target)
        target.parent.mkdir(exist_ok=True)
        with pytest.raises(InterruptedError), atomic.staged(target, True, [staging_child.BESIDE]):
            raise InterruptedError
        found.append((at_once, contents_together(target)))
        left = sorted(path.relative_to(tmp_path).name for path in tmp_path.rglob("*"))
        assert left == (["deep", staging_child.BESIDE, "m.xml"] if found[-1][1] else ["deep"]), step
        shutil.rmtree(target.parent)
        if process.returncode == 0:
            break
        assert process.returncode == -signal.SIGKILL
    assert step > 15
    assert set(found) == {(old, old), (MISSING, old), ("n", "n")}


def test_three_processes_that_write_two_files_leave_those_of_one(tmp_path):
    target = tmp_path / "m.xml"
    staging_child.write_together(target, "o")
    writers = [child(target, "together", *name * 100) for name in "abc"]
    for writer in writers:
        assert writer.communicate() == ("", "")
        assert writer.returncode == 0
    assert contents_together(target) in set("abc")
    assert sorted(os.listdir(tmp_path)) == [staging_child.BESIDE, "m.xml"]


@pytest.mark.parametrize("number", [1, 2, 3, 4])
def test_when_a_file_cannot_be_moved_in_all_old_ones_come_back(number, tmp_path, monkeypatch):
    target, rename, left = tmp_path / "m.xml", os.rename, [number]
    staging_child.write_together(target, "o")

    def full(source, destination):
        left[0] -= 1
        if left[0] == 0:
            raise OSError(errno.ENOSPC, "No space left on device")
        rename(source, destination)

    def stage():
        with atomic.staged(target, True, [staging_child.BESIDE]) as new:
            staging_child.write_together(new, "n")
            monkeypatch.setattr(os, "rename", full)

    with pytest.raises(OSError, match="m.xml cannot be written: No space left"):
        stage()
    monkeypatch.undo()
    assert contents_together(target) == "o"
    assert sorted(os.listdir(tmp_path)) == [staging_child.BESIDE, "m.xml"]


def test_files_that_came_meanwhile_are_not_replaced_unless_they_may_be(tmp_path):
    target = tmp_path / "m.xml"

    def stage():
        with atomic.staged(target, False, [staging_child.BESIDE]) as new:
            staging_child.write_together(new, "n")
            target.with_name(staging_child.BESIDE).write_text("years of work")

    with pytest.raises(FileExistsError, match="m.xml exists now, written by another process"):
        stage()
    assert os.listdir(tmp_path) == [staging_child.BESIDE]
    assert target.with_name(staging_child.BESIDE).read_text() == "years of work"
