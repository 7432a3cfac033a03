"""`tfbn migrate` as a user types it."""

import importlib.util
import os
import pathlib
import re
import subprocess
import sys
from concurrent.futures.process import BrokenProcessPool

import pytest

from paths import ROOT
from tfbn.compat.migrate import run as running
from tfbn.compat.migrate.run import migrate_files

OLD, NEW = "import tensorflow as tf\nx = tf.get_variable('x')\n", "from tfbn.compat import tf1 as tf\n"
NEW += OLD.partition("\n")[2]


@pytest.fixture
def folder(tmp_path):
    """Make a folder with one program of each kind."""
    (tmp_path / "old").mkdir()
    (tmp_path / "old" / "tf1.py").write_text(OLD)
    (tmp_path / "old" / "tf2.py").write_text("import tensorflow as tf\ntf.nn.relu(1.0)\n")
    (tmp_path / "old" / "two.py").write_text("import tensorflow as tf\nprint tf.__version__\n")
    (tmp_path / "old" / "latin.py").write_bytes(b"# tensorflow \xe4\n")
    (tmp_path / "old" / "other.py").write_text("import os\n")
    return tmp_path / "old"


DIFF = """--- a/old/tf1.py
+++ b/old/tf1.py
@@ -1,2 +1,2 @@
-import tensorflow as tf
+from tfbn.compat import tf1 as tf
 x = tf.get_variable('x')
"""


def test_a_diff_is_shown(run, folder):
    result = run("migrate", "old")
    assert result.exit_code == 0
    assert result.stdout == DIFF
    assert (
        "5 files: 1 to change, 2 skipped; 1 things to look at. Write them with --write." in result.stderr
    )
    for line in (
        "latin.py:1: skipped: it cannot be",
        "tf2.py:1: left as",
        "two.py:2: skipped: it is Python 2",
    ):
        assert os.path.join("old", line) in result.stderr
    assert (folder / "tf1.py").read_text() == OLD


def test_files_are_written(run, folder):
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    result = run("migrate", "old", "--write")
    assert result.exit_code == 0
    assert result.stdout == f"changed: {os.path.join('old', 'tf1.py')}\n"
    assert "5 files: 1 changed, 2 skipped" in result.stderr
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before | {
        "tf1.py": NEW.encode()
    }
    again = run("migrate", "old", "--write")
    assert (again.exit_code, again.stdout) == (0, "")


def test_check_tells_by_its_status(run, folder):
    result = run("migrate", "old", "--check")
    assert result.exit_code == 1
    assert result.stdout == f"would change: {os.path.join('old', 'tf1.py')}\n"
    assert (folder / "tf1.py").read_text() == OLD
    run("migrate", "old", "--write")
    result = run("migrate", "old", "--check")
    assert (result.exit_code, result.stdout) == (0, "")
    assert "two.py:2: skipped: it is Python 2" in result.stderr


def test_one_file_is_enough(run, folder):
    result = run("migrate", os.path.join("old", "other.py"), os.path.join("old", "tf1.py"))
    assert result.stdout == DIFF
    assert result.stderr.startswith("2 files: 1 to change, 0 skipped")


def test_what_is_refused(run, folder, tmp_path, monkeypatch):
    (tmp_path / "empty").mkdir()
    result = run("migrate", "empty")
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr == "Error: There is no *.py file in empty. Name a file, or another folder.\n"
    result = run("migrate", "old", "--write", "--check")
    assert (result.exit_code, result.stderr.count("\n")) == (1, 1)
    found = importlib.util.find_spec
    monkeypatch.setattr(
        "tfbn.cli_migrate.find_spec", lambda name: None if name == "libcst" else found(name)
    )
    result = run("migrate", "old", "--write")
    assert result.exit_code == 1
    assert 'not installed: pip install "tfbn[migrate]", or pip install libcst.' in result.stderr
    assert (folder / "tf1.py").read_text() == OLD


def test_what_cannot_be_written_is_named(run, folder, monkeypatch):
    def refuse(path, data):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("tfbn.compat.migrate.one_file.write", refuse)
    result = run("migrate", "old", "--write")
    assert (result.exit_code, result.stdout) == (1, "")
    assert "tf1.py:1: not written: Permission denied." in result.stderr
    assert "5 files: 0 changed, 2 skipped, 1 not written" in result.stderr


def test_what_cannot_be_read_is_named(run, folder, monkeypatch):
    read = pathlib.Path.read_bytes

    def refuse(path):  # as the system would, but root may read everything
        if path.name == "tf1.py":
            raise PermissionError(13, "Permission denied")
        return read(path)

    with monkeypatch.context() as patch:
        patch.setattr(pathlib.Path, "read_bytes", refuse)
        result = run("migrate", "old")
    assert (result.exit_code, result.stdout) == (0, "")
    assert "tf1.py:1: skipped: it cannot be read: Permission denied." in result.stderr
    assert "5 files: 0 to change, 3 skipped" in result.stderr


def test_a_process_that_is_killed_is_named(run, folder, monkeypatch):
    def killed(paths, writing):
        yield from migrate_files(paths[:1], writing)
        raise BrokenProcessPool

    monkeypatch.setattr("tfbn.migrate_command.migrate_files", killed)
    result = run("migrate", "old", "--write")
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr.startswith("Error: A process that rewrites files was ended from outside")


def test_several_processes_do_the_same(folder):
    paths = sorted(folder.iterdir()) * (running.CHUNK + 1)
    alone, shared = (list(migrate_files(paths, processes=number)) for number in (1, 2))
    assert alone == shared
    assert [result.path for result in shared] == [str(path) for path in paths]
    assert running.WORKER not in os.environ


@pytest.mark.checkout
def test_the_documentation_shows_what_the_command_says(run, tmp_path):
    section = (ROOT / "docs" / "migrating.md").read_text().partition("## One minute")[2]
    program, diff, report = re.findall(r"^```\w*\n(.*?)^```$", section, re.DOTALL | re.MULTILINE)[1:4]
    (tmp_path / "old").mkdir()
    (tmp_path / "old" / "train.py").write_text(program)
    result = run("migrate", "old/")
    assert (result.stdout, result.stderr) == (diff, report)


# Each process, also those that it starts, tells at its exit what it has imported.
LIST_MODULES = """
import atexit, os, sys
name = f"imported{os.getpid()}.txt"
atexit.register(lambda: open(name, "w").write(" ".join(sys.modules)))
"""


@pytest.mark.parametrize("command", [["-m", "tfbn"], ["-c", "from tfbn.cli import main; main()"]])
def test_tensorflow_is_never_started(command, folder, tmp_path):
    (tmp_path / "sitecustomize.py").write_text(LIST_MODULES)
    for number in range(2 * running.FEW):
        (folder / f"p{number}.py").write_text(OLD)
    path = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")]).rstrip(os.pathsep)
    environment = os.environ | {"PYTHONPATH": path}
    if command[0] == "-c":  # as the script does, which Windows and macOS name differently
        command[1] = f"import sys; sys.argv[0] = 'tfbn'; {command[1]}"
    done = subprocess.run(
        [sys.executable, *command, "migrate", "old"],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("+from tfbn.compat import tf1 as tf\n") == 2 * running.FEW + 1
    reports = [set(path.read_text().split()) for path in tmp_path.glob("imported*.txt")]
    working = sum("tfbn.compat.migrate.one_file" in imported for imported in reports)
    assert working == 1 + (os.cpu_count() or 1) or os.cpu_count() == 1
    for imported in reports:
        assert not {"tensorflow", "keras", "numpy"} & imported
