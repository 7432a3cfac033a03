"""Pages of Markdown whose code runs, and whose outputs are what it prints.

On a page, blocks of ```python run in their order, in one process and an empty folder, as do blocks of
```console, whose lines `$ tfbn …` are commands. What follows a block of Python as ```text is what it
prints; what follows a command in its block, what that does. A comment `<!-- python … -->` runs unseen.

    python tests/helpers/pages.py docs/serving.md    # writes today's outputs into a page
"""

import contextlib
import io
import json
import os
import re
import shlex
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

BLOCK = re.compile(
    r"^```python\n(?P<python>.*?)^```\n(?:\n```text\n(?P<printed>.*?)^```\n)?"
    r"|^```console\n(?P<console>.*?)^```\n"
    r"|^<!-- python\n(?P<unseen>.*?)^-->\n",
    re.DOTALL | re.MULTILINE,
)
COMMAND = re.compile(r"^\$ (?P<command>.*\n)(?P<printed>(?:(?!\$ ).*\n)*)", re.MULTILINE)
NUMBER = r"-?\d+(?:\.\d+)?(?:e[+-]?\d+)?"
MEASURED = re.compile(
    r"-?\d+\.\d+(?:e[+-]?\d+)?|-?\d+e[+-]?\d+|\d+(?= deviations off)|…|\s+"  # 9.9 may be 10 elsewhere
)


class Step(NamedTuple):
    """A piece of Python or a command, and where what it prints is on the page, if it is there."""

    kind: str  # "python", "unseen" or "command"
    code: str
    printed: str | None
    place: tuple[int, int]


def steps(text: str) -> list[Step]:
    found = []
    for block in BLOCK.finditer(text):
        kind = next(name for name in ("python", "console", "unseen") if block[name] is not None)
        if kind == "console":
            start = block.start("console")
            for each in COMMAND.finditer(block["console"]):
                place = (start + each.start("printed"), start + each.end("printed"))
                found.append(Step("command", each["command"].strip(), each["printed"], place))
        elif kind == "unseen":
            found.append(Step(kind, block[kind], None, (0, 0)))
        else:
            found.append(Step(kind, block[kind], block["printed"], block.span("printed")))
    return found


def run(text: str, cwd: Path) -> list[str]:
    """What each step of a page prints, in a new process."""
    (cwd / "steps.json").write_text(json.dumps([(step.kind, step.code) for step in steps(text)]))
    done = subprocess.run(
        [sys.executable, str(Path(__file__).resolve()), "--run"],
        cwd=cwd,
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"COLUMNS": "100", "TF_CPP_MIN_LOG_LEVEL": "3"},
    )
    assert done.returncode == 0, done.stderr
    return json.loads((cwd / "printed.json").read_text())


def _run_here() -> None:
    names: dict[str, object] = {"__name__": "__main__"}
    printed = []
    for kind, code in json.loads(Path("steps.json").read_text()):
        if kind == "command":
            name, *arguments = shlex.split(code, comments=True)
            assert name == "tfbn", f"no command of ours: {code}"
            command = [sys.executable, "-m", "tfbn", *arguments]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            printed.append(done.stdout + done.stderr)
        elif code.startswith(">>> "):
            printed.append("")  # doctests, which another test runs
        else:
            with contextlib.redirect_stdout(io.StringIO()) as output:
                exec(compile(code, f"block {len(printed) + 1}", "exec"), names)
            printed.append(output.getvalue())
    Path("printed.json").write_text(json.dumps(printed))


def agree(want: str, got: str) -> bool:
    """Whether an output is that of the page.

    `…` on the page is anything. A number with a point or an exponent, or of deviations, may be off by a
    tenth and 0.02: other processors round otherwise, and training makes more of it. White space is white
    space. All else, words and whole numbers, is the same.
    """
    pattern, end, wanted = "", 0, []
    want = want.strip()
    for part in MEASURED.finditer(want):
        pattern += re.escape(want[end : part.start()])
        end = part.end()
        if part[0] == "…":
            pattern += ".*?"
        elif part[0].isspace():
            pattern += r"\s+"
        else:
            pattern += f"({NUMBER})"
            wanted.append(float(part[0]))
    pattern += re.escape(want[end:])
    match = re.fullmatch(pattern, "\n".join(map(str.rstrip, got.strip().splitlines())), re.DOTALL)
    if match is None:
        return False
    pairs = zip(map(float, match.groups()), wanted, strict=True)
    return all(abs(got - want) <= 0.02 + 0.1 * abs(want) for got, want in pairs)


def check(text: str, cwd: Path) -> int:
    """Run a page and compare what it prints; how many outputs there were."""
    outputs, compared = run(text, cwd), 0
    for step, got in zip(steps(text), outputs, strict=True):
        if step.printed is not None and not step.code.startswith(">>> "):
            assert agree(step.printed, got), f"{step.code}\nprints\n{got}\nand not\n{step.printed}"
            compared += 1
    return compared


def write(page: Path) -> None:
    """Put what a page's code prints today where its outputs are, but where they agree already."""
    text = page.read_text()
    with tempfile.TemporaryDirectory() as folder:
        outputs = run(text, Path(folder))
    for step, got in reversed([*zip(steps(text), outputs, strict=True)]):
        if step.printed is not None and not agree(step.printed, got):
            lines = "".join(f"{line.rstrip()}\n" for line in got.rstrip().splitlines())
            text = text[: step.place[0]] + lines + text[step.place[1] :]
    page.write_text(text)


if __name__ == "__main__":
    if sys.argv[1:] == ["--run"]:
        _run_here()
    else:
        for page in sys.argv[1:]:
            write(Path(page))
