"""Reports as tables: for the terminal by rich, and what a page shows of them."""

from __future__ import annotations

import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table as RichTable

WIDTH = 140  # of a printed table, whatever the terminal: a log file has none


@dataclass(frozen=True)
class Column:
    """One column: its title, the key of its values in the rows, and what they are.

    Attributes:
        number: whether they are numbers.
        bar: whether a page shows each as a bar, beside the largest.
    """

    title: str
    key: str
    number: bool = False
    bar: bool = False


@dataclass(frozen=True)
class Table:
    """A table before it is drawn.

    Attributes:
        title: a sentence.
        columns: in order.
        rows: values by the columns' keys, and more.
        left: what has no row, and why, by path.
    """

    title: str
    columns: Sequence[Column]
    rows: Sequence[Mapping[str, Any]]
    left: Mapping[str, str]


def cell(value: Any) -> str:
    """A value as text: four digits of a number, nothing for `None` and NaN."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    if isinstance(value, tuple):
        return ", ".join(map(str, value))
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def rich_table(table: Table, styles: Mapping[str, str] | None = None) -> RichTable:
    """A table of rich's.

    Args:
        styles: a colour for each text of a cell that has one.
    """
    drawn = RichTable(title=escape(table.title), title_justify="left")
    for column in table.columns:
        if column.number:
            drawn.add_column(column.title, justify="right", no_wrap=True)
        else:
            drawn.add_column(column.title, overflow="fold")
    for row in table.rows:
        drawn.add_row(*(_styled(cell(row[column.key]), styles or {}) for column in table.columns))
    for path, reason in table.left.items():
        drawn.add_row(escape(path), *[""] * (len(table.columns) - 2), escape(f"left: {reason}"))
    return drawn


def _styled(text: str, styles: Mapping[str, str]) -> str:
    return f"[{styles[text]}]{escape(text)}[/]" if text in styles else escape(text)


def as_text(table: Table) -> str:
    """What `print` shows: the table without colours."""
    console = Console(file=(text := io.StringIO()), width=WIDTH, color_system=None)
    console.print(rich_table(table))
    return "\n".join(line.rstrip() for line in text.getvalue().rstrip().splitlines())
