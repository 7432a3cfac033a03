"""Files as bytes and as text, byte for byte: encodings, line ends, the last line; found in folders."""

from __future__ import annotations

import os
import re
import shutil
import stat
import tokenize
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from difflib import diff_bytes, unified_diff
from pathlib import Path

from ...files.atomic import staged

BOM = b"\xef\xbb\xbf"
INSTALLED = ("site-packages", "dist-packages", "__pycache__", "node_modules")
_LINE = re.compile(rb"[^\n]*\n|[^\n]+")


class UnreadableError(Exception):
    """The bytes are no text in the encoding that they name."""


@dataclass(frozen=True)
class Source:
    """The text of a file, and how it is turned into bytes again.

    Attributes:
        text: all of it, line ends as they are, without a byte order mark.
        encoding: what the file says by PEP 263, or UTF-8.
        mark: its byte order mark, or nothing.
    """

    text: str
    encoding: str
    mark: bytes = b""

    def encoded(self, text: str) -> bytes:
        """The bytes of another text in the same encoding."""
        return self.mark + text.encode(self.encoding)


def decoded(data: bytes) -> Source:
    """The text of a file.

    Raises:
        UnreadableError: the encoding is not known, is not the one in use, or is not undone by itself.
    """
    mark = BOM if data.startswith(BOM) else b""
    try:
        first = iter(data.splitlines(keepends=True)[:2])  # ended by carriage returns alone, too
        encoding = tokenize.detect_encoding(first.__next__)[0].replace("utf-8-sig", "utf-8")
        source = Source(data[len(mark) :].decode(encoding), encoding, mark)
    except (SyntaxError, UnicodeDecodeError, LookupError) as error:
        raise UnreadableError(f"it cannot be decoded: {error}") from error
    if source.encoded(source.text) != data:
        raise UnreadableError(f"its bytes are not those that {encoding} gives of its text")
    return source


def mentions(data: bytes) -> bool:
    """Whether a file can be about TensorFlow or Keras at all."""
    return b"tensorflow" in data or b"keras" in data or b"tf_slim" in data


def python_files(paths: Iterable[Path]) -> Iterator[Path]:
    """The files among the paths, and all `*.py` in the folders among them, each once.

    Hidden folders, installed packages and virtual environments in a folder are left out, and links are
    not followed: what they lead to is in the folder itself, or is not meant.
    """
    seen: set[str] = set()
    for path in paths:
        for found in _below(path) if path.is_dir() else (path,):
            real = os.path.realpath(found)
            if real not in seen:
                seen.add(real)
                yield found


def _below(folder: Path) -> Iterator[Path]:
    for here, folders, files in os.walk(folder):
        folders[:] = sorted(
            name
            for name in folders
            if not name.startswith(".")
            and name not in INSTALLED
            and not os.path.exists(os.path.join(here, name, "pyvenv.cfg"))
        )
        for name in sorted(files):
            path = Path(here, name)
            if name.endswith(".py") and not path.is_symlink():
                yield path


def write(path: Path, data: bytes) -> None:
    """Replace a file in one step; its mode stays, and a link to it stays one.

    Raises:
        OSError: it cannot be written.
    """
    target = Path(os.path.realpath(path))
    mode = stat.S_IMODE(target.stat().st_mode)
    with staged(target, overwrite=True) as new:
        new.write_bytes(data)
        shutil.copystat(target, new)
        os.utime(new)
        new.chmod(mode)


def unified(path: Path, before: bytes, after: bytes) -> bytes:
    """A unified diff, as `patch -p1` and `git apply` take it where the path is relative."""
    name = os.fsencode(path.as_posix())
    old, new = (name, name) if path.is_absolute() else (b"a/" + name, b"b/" + name)
    lines = diff_bytes(unified_diff, _LINE.findall(before), _LINE.findall(after), old, new)
    ended = (
        line if line.endswith(b"\n") else line + b"\n\\ No newline at end of file\n" for line in lines
    )
    return b"".join(ended)
