"""A report as one page for a browser: no network, sortable, light and dark."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Mapping
from html import escape
from pathlib import Path
from typing import Any

from ..files.atomic import staged
from .tables import Column, Table, cell

STYLE = """
:root { color-scheme: light dark; --ink: #1c1e21; --paper: #fff; --line: #d9dce1; --soft: #f4f5f7;
  --bad: #b3261e; --warn: #8a5a00; --good: #1b6e3c; --bar: #c9d4e8; }
@media (prefers-color-scheme: dark) { :root { --ink: #e6e7ea; --paper: #16181c; --line: #353941;
  --soft: #1f2227; --bad: #ff8a80; --warn: #f0b95a; --good: #7bd39a; --bar: #36486b; } }
body { margin: 2rem auto; max-width: 90rem; padding: 0 1rem; color: var(--ink);
  background: var(--paper); font: 15px/1.45 system-ui, sans-serif; }
h1 { font-size: 1.3rem; } p.summary { font-size: 1.05rem; max-width: 60rem; }
div.scroll { overflow-x: auto; } table { border-collapse: collapse; width: 100%; }
th, td { padding: .4rem .6rem; border-bottom: 1px solid var(--line); text-align: left;
  vertical-align: top; overflow-wrap: anywhere; }
thead th { position: sticky; top: 0; background: var(--soft); white-space: nowrap; }
th button { all: unset; cursor: pointer; font-weight: 600; }
th button:focus-visible { outline: 2px solid; }
th[aria-sort=ascending] button::after { content: " ▲"; }
th[aria-sort=descending] button::after { content: " ▼"; }
th.number, td.number { text-align: right; white-space: nowrap; font-variant-numeric: tabular-nums; }
td.bar { background: linear-gradient(var(--bar), var(--bar)) no-repeat left / var(--part) 100%;
  min-width: 5rem; }
td.verdict { white-space: nowrap; }
td.path { font-family: ui-monospace, monospace; min-width: 8rem; }
.diverged, .never, .other { color: var(--bad); font-weight: 600; }
.lagging, .frozen, .small { color: var(--warn); font-weight: 600; } .fine { color: var(--good); }
"""

# Clicked again, a column is sorted the other way round; numbers by value, empty cells last.
SCRIPT = """
document.querySelectorAll("th button").forEach((button) => button.addEventListener("click", () => {
  const head = button.closest("th"), body = head.closest("table").tBodies[0], at = head.cellIndex;
  const down = head.getAttribute("aria-sort") === "ascending";
  head.parentNode.querySelectorAll("th").forEach((other) => other.removeAttribute("aria-sort"));
  head.setAttribute("aria-sort", down ? "descending" : "ascending");
  const value = (row) => row.cells[at].dataset.value ?? row.cells[at].textContent;
  const order = (a, b) => {
    const [x, y] = [value(a), value(b)];
    if (x === "" || y === "") return (x === "") - (y === "");
    const compared = isNaN(x) || isNaN(y) ? x.localeCompare(y) : x - y;
    return down ? -compared : compared;
  };
  [...body.rows].sort(order).forEach((row) => body.append(row));
}));
"""


def write_page(path: str | os.PathLike[str], title: str, table: Table, notes: list[str]) -> None:
    """Write a table with its title as a page to `path`, in one step.

    Args:
        notes: further sentences above the table.
    """
    with staged(Path(path), overwrite=True) as staging:
        Path(staging).write_text("".join(_page(title, table, notes)), encoding="utf-8")


def _page(title: str, table: Table, notes: list[str]) -> Iterator[str]:
    yield '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
    yield '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
    yield f"<title>{escape(title)}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n"
    yield f'<h1>{escape(title)}</h1>\n<p class="summary">{escape(table.title)}</p>\n'
    yield from (f"<p>{escape(note)}</p>\n" for note in notes)
    yield '<div class="scroll">\n<table>\n<thead>\n<tr>'
    for column in table.columns:
        kind = ' class="number"' if column.number else ""
        yield f'<th scope="col"{kind}><button type="button">{escape(column.title)}</button></th>'
    yield "</tr>\n</thead>\n<tbody>\n"
    largest = {column.key: _largest(table, column) for column in table.columns if column.bar}
    for row in table.rows:
        yield "<tr>"
        yield from (_cell(column, row, largest.get(column.key)) for column in table.columns)
        yield "</tr>\n"
    for path, reason in table.left.items():
        between = "<td></td>" * (len(table.columns) - 2)
        yield f'<tr><td class="path">{escape(path)}</td>{between}<td>left: {escape(reason)}</td></tr>\n'
    yield f"</tbody>\n</table>\n</div>\n<script>{SCRIPT}</script>\n</body>\n</html>\n"


def _cell(column: Column, row: Mapping[str, Any], largest: float | None) -> str:
    value = row[column.key]
    text = escape(cell(value))
    if column.number:
        known = isinstance(value, (int, float)) and math.isfinite(value)
        sort = f"{float(value):.6g}" if known else ""
        part = f' style="--part: {100 * float(value) / largest:.0f}%"' if known and largest else ""
        kind = "number bar" if part else "number"
        return f'<td class="{kind}" data-value="{sort}"{part}>{text}</td>'
    kind = {"path": "path", "verdict": f"verdict {text.split(' ')[0]}"}.get(column.key, "")
    return f'<td class="{kind}">{text}</td>' if kind else f"<td>{text}</td>"


def _largest(table: Table, column: Column) -> float | None:
    values = [row[column.key] for row in table.rows]
    known = [value for value in values if isinstance(value, (int, float)) and math.isfinite(value)]
    return max(known, default=0.0) or None
