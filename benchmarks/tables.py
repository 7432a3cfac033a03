"""The whole table in Markdown, and its place in a page."""

from __future__ import annotations

from summary import Line, number, with_mean

START, END = "<!-- table -->", "<!-- end of table -->"
HEADER = "| | oneDNN off | oneDNN on |\n|---|--:|--:|"


def cell(ratio: float | None, milliseconds: float | None) -> str:
    """The ratio and, of a measurement, how long tfbn took."""
    return number(ratio) + ("" if milliseconds is None else f" ({milliseconds:.3g} ms)")


def row(line: Line) -> str:
    off = cell(line.off, line.milliseconds_off)
    return f"| {line.name} | {off} | {cell(line.on, line.milliseconds_on)} |"


def markdown(kinds: dict[str, list[Line]], title: str) -> str:
    """The title and, for each kind, a table of all its lines and their mean."""
    parts = [title.replace("\n", "; ")]
    for kind, lines in kinds.items():
        parts += [f"### {kind}", "\n".join([HEADER, *map(row, with_mean(lines))])]
    return "\n\n".join(parts) + "\n"


def replaced(page: str, table: str) -> str:
    """The page with this table between its two marks, in place of what stands there.

    Raises:
        ValueError: it does not have both marks once.
    """
    before, *after = page.split(START)
    if len(after) != 1 or after[0].count(END) != 1:
        raise ValueError(f"The page must have {START} and, behind it, {END}, once each.")
    return f"{before}{START}\n\n{table}\n{END}{after[0].split(END)[1]}"
