"""Exports killed, without room, racing: the old SavedModel stays whole, or the new one is whole."""

import errno
import multiprocessing
import os
import random
import resource
import signal
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor

import pytest
import tensorflow as tf

import tfbn
from export_child import export_until_killed, small_model
from sweeps import some

HUNG = 600  # seconds, some hundred times what a process needs alone


def served(path):
    """What the SavedModel answers to zeros: the offset of the model that was exported."""
    signature = tf.saved_model.load(str(path)).signatures["serving_default"]
    (offset,) = set(signature(x=tf.zeros((1, 2)))["output_0"].numpy().ravel().tolist())
    return offset


@pytest.mark.parametrize(("file", "freeze"), [("variables", False), ("saved_model", True)])
@pytest.mark.parametrize("existing", [False, True])
def test_a_full_disk(existing, file, freeze, tmp_path):
    # A limit on the size of files stands in for the disk: the system refuses what TensorFlow writes.
    path = tmp_path / "m"
    if existing:
        tfbn.export(small_model(1.0), path)
    before = {file: file.is_file() and file.read_bytes() for file in tmp_path.rglob("*")}
    model = small_model(2.0, width=5000)
    unlimited = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (3000, unlimited[1]))
    try:
        with pytest.raises(OSError, match=f"cannot be written. Make room, .*m/{file}.* too large"):
            tfbn.export(model, path, overwrite=existing, freeze=freeze)
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


@pytest.mark.parametrize("kills", some([20, 50], [20]))
def test_killed_at_random_moments(kills, tmp_path, monkeypatch):
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
    for number in range(kills):
        offsets, moment = [2.0 * number + 1, 2.0 * number + 2], moments.uniform(1e-3, 0.2)
        # Some are killed in their first export, which is slower, and most in later ones.
        arguments = (path, offsets, moment, number % 5 > 0)
        process = context.Process(target=export_until_killed, args=arguments)
        process.start()
        process.join(HUNG)
        process.kill()
        assert process.exitcode == -signal.SIGPROF
        found.append(served(path))
        assert found[-1] in {found[-2], *offsets}
        left = set(os.listdir(tmp_path)) - {"m"}
        assert len(left) <= 1  # Each child removes what the one before it left.
        rooms |= left
    assert len(set(found)) > kills / 2
    assert len(rooms) > kills / 2  # They were in the midst of exports.
    tfbn.export(small_model(-1.0), path, overwrite=True)
    assert served(path) == -1.0
    assert os.listdir(tmp_path) == ["m"]
