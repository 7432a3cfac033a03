"""Speed against peers with TensorFlow's oneDNN off and on, as ratios of medians.

    python benchmarks/run.py [--rounds 40] [--only training] [--networks 3]
    python benchmarks/run.py --from benchmarks/results.json

Subject and peer are timed in turns in one process. TensorFlow reads TF_ENABLE_ONEDNN_OPTS when it is
imported, so each setting has processes of its own, and this process does not import TensorFlow. A ratio
above 1 means that tfbn is faster. Peers that are not installed are left out: tf_keras, torch, and the
runtimes that serve ONNX, OpenVINO and LiteRT.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import drawing
import machine
import summary
import tables
from measure import Row
from rich.console import Console

HERE = Path(__file__).parent
DOCS = HERE.parent / "docs"
PARTS = ("training", "serving")


def fold_memory() -> float | None:
    """The result of `memory.py`, run in a process of its own; `None` where there is no /proc."""
    if sys.platform != "linux":
        return None
    script = [sys.executable, str(HERE / "memory.py")]
    return float(subprocess.run(script, check=True, capture_output=True, text=True).stdout)


def measured(part: str, onednn: bool, rounds: int, networks: int | None) -> Iterator[Row]:
    """The rows of one part under one setting, as soon as each is measured.

    Raises:
        click.ClickException: the process failed; the message has its output.
    """
    script = [sys.executable, str(HERE / f"{part}.py"), str(rounds)]
    script += [] if networks is None else [str(networks)]
    environment = machine.with_switch(onednn)
    with tempfile.TemporaryFile("w+") as log:
        with subprocess.Popen(
            script, env=environment, stdout=subprocess.PIPE, stderr=log, text=True
        ) as child:
            for line in child.stdout or ():
                yield Row(**json.loads(line))
        if child.returncode:
            log.seek(0)
            raise click.ClickException(
                f"{log.read()}\n{part}, oneDNN {'on' if onednn else 'off'}: exit {child.returncode}"
            )


def everything(
    parts: tuple[str, ...], settings: list[bool], rounds: int, networks: int | None
) -> tuple[list[Row], bool]:
    """All rows, and whether every process finished; the rows of one that fails later are kept."""
    rows, complete = [], True
    for part in parts:
        for onednn in settings:
            try:
                for row in measured(part, onednn, rounds, networks):
                    rows.append(row)
                    click.echo(
                        f"oneDNN {'on ' if onednn else 'off'}  {row.kind}  {row.name}"
                        f"  {row.subject:.2f} ms, peer {row.peer:.2f} ms"
                    )
            except click.ClickException as error:
                error.show()
                complete = False
    return rows, complete


def show(report: dict[str, Any], into: Path | None) -> None:
    """Write figures and tables of the results, into docs where everything was measured."""
    here, rows = machine.Machine(**report["machine"]), [Row(**row) for row in report["rows"]]
    kinds = summary.side_by_side(rows)
    Console().print(summary.table(kinds, str(here)))
    for sentence in summary.sentences(kinds):
        click.echo(sentence)
    memory = report["fold memory / weights"]
    if memory is not None:
        click.echo(f"fold adds {memory:.2f} times the weights to the peak memory of the process")
    folder = into or (DOCS if report["whole"] else HERE)
    for part, figure in drawing.FIGURES.items():
        drawing.draw(figure, kinds, here, folder / f"benchmarks-{part}.png")
    table, page = tables.markdown(kinds, str(here)), folder / "benchmarks.md"
    page.write_text(tables.replaced(page.read_text(), table) if folder.samefile(DOCS) else table)


def measure(only: str | None, rounds: int, networks: int | None) -> dict[str, Any]:
    """Everything that `results.json` holds."""
    here = machine.describe()
    click.echo(here)
    rows, complete = everything((only,) if only else PARTS, here.settings, rounds, networks)
    kinds = summary.side_by_side(rows)
    return {
        "machine": here._asdict(),
        "rounds": rounds,
        "complete": complete,
        "whole": complete and not only and networks is None,
        "fold memory / weights": None if only else fold_memory(),
        "ranges": {kind: summary.ranges(lines) for kind, lines in kinds.items()},
        "rows": [row._asdict() for row in rows],
    }


@click.command()
@click.option("--rounds", default=40, show_default=True, help="Timed calls of each side.")
@click.option("--only", type=click.Choice(PARTS), help="One part, and neither the other nor memory.")
@click.option("--networks", type=click.IntRange(0), help="The first so many networks of each part.")
@click.option(
    "--into",
    type=click.Path(path_type=Path, file_okay=False, exists=True),
    help="Folder of results.json, figures and table.  [default: benchmarks; what shows all in docs]",
)
@click.option(
    "--from",
    "source",
    type=click.Path(path_type=Path, dir_okay=False, exists=True),
    help="A results.json, to draw the figures and the table anew: nothing is measured.",
)
def main(
    rounds: int, only: str | None, networks: int | None, into: Path | None, source: Path | None
) -> None:
    """Measure tfbn against its peers with TensorFlow's oneDNN off and on.

    On two cores everything takes more than an hour: each of 13 networks is exported two or
    three times, some of them for other runtimes, too, and timed as often, under both settings.
    `--networks 1` takes a quarter of an hour, `--only training` half an hour, and
    `--only training --networks 0` (layers alone) some six minutes.
    """
    if source:
        show(json.loads(source.read_text()), into)
        return
    report = measure(only, rounds, networks)
    (into or HERE).joinpath("results.json").write_text(json.dumps(report, indent=1) + "\n")
    show(report, into)
    if not report["complete"]:
        sys.exit(1)


if __name__ == "__main__":
    main()
