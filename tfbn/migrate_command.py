"""What the command does to migrate. TensorFlow is not started here."""

from __future__ import annotations

import sys
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

import click
from rich.console import Console
from rich.progress import track

from .compat.migrate.findings import Result
from .compat.migrate.run import migrate_files
from .compat.migrate.sources import python_files


def migrate(paths: tuple[Path, ...], write: bool, check: bool) -> None:
    """Rewrite the imports of all files, or show what would change: on stdout; advice goes to stderr."""
    files = list(python_files(paths))
    if not files:
        named = ", ".join(str(path) for path in paths)
        raise click.ClickException(f"There is no *.py file in {named}. Name a file, or another folder.")
    console = Console(stderr=True)
    work = track(
        migrate_files(files, writing=write),
        "Migrating",
        total=len(files),
        console=console,
        transient=True,
        disable=not console.is_terminal,
    )
    try:
        results = list(work)
    except BrokenProcessPool as error:
        raise click.ClickException(
            "A process that rewrites files was ended from outside, for lack of memory, say. Each file "
            "is the old one or the new one: run the command again."
        ) from error
    _show(results, write, check)
    changed = [result for result in results if result.diff]
    if any(result.failed for result in results) or (check and changed):
        sys.exit(1)


def _show(results: list[Result], write: bool, check: bool) -> None:
    changed = [result for result in results if result.diff]
    for result in changed:
        if check:
            click.echo(f"would change: {result.path}")
        elif not write:
            click.echo(result.diff, nl=False)  # bytes, in the file's own encoding
        elif not result.failed:
            click.echo(f"changed: {result.path}")
    for result in results:
        for line in result.lines():
            click.echo(line, err=True)
    skipped = sum(bool(result.skipped) for result in results)
    failed = sum(bool(result.failed) for result in results)
    said = sum(len(result.findings) for result in results)
    would = "changed" if write else "to change"
    files = f"{len(results)} file" + "s" * (len(results) != 1)
    click.echo(
        f"{files}: {len(changed) - failed} {would}, {skipped} skipped"
        + (f", {failed} not written" if failed else "")
        + f"; {said} things to look at."
        + ("" if write or check or not changed else " Write them with --write."),
        err=True,
    )
