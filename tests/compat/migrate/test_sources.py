"""Bytes: encodings, line ends, modes; and which files are looked at."""

import os
import stat
import subprocess

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tfbn.compat.migrate.one_file import migrate
from tfbn.compat.migrate.sources import BOM, UnreadableError, decoded, python_files, unified

# Lines that follow each other in a program of TensorFlow 1, and what becomes of them.
CHANGED = [
    (["import tensorflow as tf"], ["from tfbn.compat import tf1 as tf"]),
    (["import os, tensorflow as tf  # ü"], ["import os", "from tfbn.compat import tf1 as tf  # ü"]),
    (["from tensorflow.contrib import slim"], ["from tfbn.compat.tf1.contrib import slim"]),
    (
        ["def f():", "\tö = 1; import tensorflow.contrib as tc  "],
        ["def f():", "\tö = 1; from tfbn.compat.tf1 import contrib as tc  "],
    ),
    (
        ["from tensorflow.contrib import (", "  slim,  # ä", "  layers as l)"],
        ["from tfbn.compat.tf1.contrib import (", "  slim,  # ä", "  layers as l)"],
    ),
]
KEPT = [
    *(["x = 1  "], [""], ["\t"], ["# ä"], ["y = 'é'; z = 2"], ["\x0c"], ["    # x"], ["w = tf.layers"]),
    *(["x = \\", "   1"], ["'''a", "import tensorflow as tf", "'''"]),
]
ALWAYS = (["import tensorflow.contrib as tc"], ["from tfbn.compat.tf1 import contrib as tc"])


@st.composite
def programs(draw):
    """The bytes of a program before and after, in any encoding, with any line ends."""
    encoding, mark = draw(
        st.sampled_from([("utf-8", b""), ("utf-8", BOM), ("latin-1", b""), ("cp1252", b"")])
    )
    # Not "\r" beside "\n", of which two lines could make one.
    kinds = draw(st.sampled_from([["\n"], ["\r\n"], ["\r"], ["\n", "\r\n"]]))
    pieces = draw(st.lists(st.sampled_from([*CHANGED, *((kept, kept) for kept in KEPT)]), max_size=12))
    cookie = [] if encoding == "utf-8" else [f"# -*- coding: {encoding} -*-"]
    before, after = "", ""
    for old, new in [(cookie, cookie), *pieces, ALWAYS]:
        ends = [draw(st.sampled_from(kinds)) for _ in old]
        before += "".join(line + end for line, end in zip(old, ends, strict=True))
        # A line that becomes two ends them as it ended itself.
        new_ends = ends if len(new) == len(old) else ends * len(new)
        after += "".join(line + end for line, end in zip(new, new_ends, strict=True))
    if draw(st.booleans()):
        before, after = before.rstrip("\r\n"), after.rstrip("\r\n")
    return mark + before.encode(encoding), mark + after.encode(encoding)


@given(programs())
def test_everything_but_import_lines_stays_byte_for_byte(tmp_path_factory, program):
    before, after = program
    path = tmp_path_factory.mktemp("program") / "p.py"
    path.write_bytes(before)
    assert migrate(path, writing=True).skipped == ""
    assert path.read_bytes() == after
    again = migrate(path, writing=True)
    assert (again.diff, again.skipped) == (b"", "")


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"# tensorflow \xff", "it cannot be decoded: "),
        (b"# coding: nonsense\nimport tensorflow", "it cannot be decoded: unknown encoding: nonsense"),
        (BOM + b"# coding: latin-1\nimport tensorflow", "it cannot be decoded: "),
        (b"# coding: utf-7\nimport tensorflow # +AGE-", "its bytes are not those that utf-7 gives"),
    ],
)
def test_what_cannot_be_read_is_named(data, reason, tmp_path):
    with pytest.raises(UnreadableError, match=reason):
        decoded(data)
    path = tmp_path / "p.py"
    path.write_bytes(data)
    result = migrate(path, writing=True)
    assert result.diff == b""
    assert result.skipped.startswith(f"skipped: {reason}")
    assert path.read_bytes() == data


def test_what_python_cannot_parse_is_named(tmp_path):
    path = tmp_path / "p.py"
    path.write_bytes(b"import tensorflow\n\0")
    assert migrate(path).skipped.startswith("skipped: ")


def test_files_in_folders_are_found_once(tmp_path):
    for name in (
        *("a.py", "b.txt", "in/c.py", ".git/d.py", "site-packages/e.py", "v/lib/f.py"),
        "w/__pycache__/g.py",
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("")
    (tmp_path / "v" / "pyvenv.cfg").write_text("")
    (tmp_path / "in" / "loop").symlink_to(tmp_path)
    (tmp_path / "in" / "link.py").symlink_to(tmp_path / "b.txt")
    found = [tmp_path / "a.py", tmp_path / "in" / "c.py"]
    assert list(python_files([tmp_path])) == found
    assert list(python_files([tmp_path / "in" / "c.py", tmp_path])) == found[::-1]
    named = [tmp_path / "b.txt", tmp_path / ".git" / "d.py"]
    assert list(python_files([tmp_path / "b.txt", tmp_path / ".git"])) == named


OLD, NEW = b"import tensorflow.contrib as tc", b"from tfbn.compat.tf1 import contrib as tc"


def test_modes_and_links_stay(tmp_path):
    path, link = tmp_path / "p.py", tmp_path / "link.py"
    path.write_bytes(OLD)
    path.chmod(0o754)
    link.symlink_to(path)
    assert migrate(link, writing=True).diff
    assert link.is_symlink()
    assert path.read_bytes() == NEW
    assert stat.S_IMODE(path.stat().st_mode) == 0o754
    assert set(os.listdir(tmp_path)) == {"p.py", "link.py"}


def test_nothing_is_written_unless_asked(tmp_path):
    path = tmp_path / "p.py"
    path.write_bytes(OLD)
    assert migrate(path).diff
    assert path.read_bytes() == OLD


@pytest.mark.parametrize(
    "before",
    [b"a\n" + OLD + b"\nb", OLD, b"\xe4\r\n" + OLD + b"\r\n\xfc\r\n"],
    ids=["LF", "one", "CRLF"],
)
def test_diffs_can_be_applied(before, tmp_path):
    path = tmp_path / "p.py"
    path.write_bytes(before)
    after = before.replace(OLD, NEW)
    diff = unified(path.relative_to(tmp_path), before, after)
    subprocess.run(["git", "apply"], input=diff, check=True, capture_output=True, cwd=tmp_path)
    assert path.read_bytes() == after
