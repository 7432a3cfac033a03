"""Keras models with batch norms in code that Keras cannot show: folded in the graph of their call."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from pathlib import Path

import tensorflow as tf

from ...folding import FoldEntry, FoldReport
from ..formats.format import SIGNATURE, Format
from ..servable import Servable
from ..signature import outputs_by_name
from .exporting import why_variables
from .graph import Frozen, check_operations, frozen
from .signatures import Signatures, of_named
from .writing import write

NUMBERS = re.compile(r"(_\d+)+$")


def in_its_graph(servable: Servable, fold_report: FoldReport) -> InItsGraph | None:
    """A Keras model folded in its graph, where it has batch norms in code that Keras cannot show.

    Returns:
        `None` where nothing more can be folded so.
    """
    hidden = [entry for entry in fold_report.kept if entry.hidden]
    if not hidden:
        return None
    specs = {spec.name: spec for spec in tf.nest.flatten(servable.specs)}

    def serve(**named: tf.Tensor) -> dict[str, tf.Tensor]:
        inputs = tf.nest.pack_sequence_as(servable.specs, [named[name] for name in specs])
        return outputs_by_name(servable.call(inputs))

    try:
        function = of_named(serve, specs)
        check_operations(function, f"The model {servable.name!r}")
        found = frozen(function, True, f"the model {servable.name!r}")
    except (
        Exception
    ):  # Whatever the model's own code raises: the usual way will say it, if it is so there.
        return None
    signatures = Signatures(servable.name, {SIGNATURE: function}, servable.owner)
    assert found.fold is not None
    entries = _told(fold_report, found.fold)
    report = replace(fold_report, entries=entries)
    return (
        InItsGraph(signatures, found, report) if len(report.folded) > len(fold_report.folded) else None
    )


@dataclass(frozen=True)
class InItsGraph:
    """A Keras model's function, folded.

    Attributes:
        report: what became of all batch norms, in the model and in its graph.
    """

    signatures: Signatures
    function: Frozen
    report: FoldReport

    def write(self, file_format: Format, path: Path) -> str:
        """As `Format.write`."""
        functions = {SIGNATURE: self.function}
        reason = why_variables(functions, file_format, self.signatures.name)
        file_format.write_from(
            lambda saved: write(self.signatures, functions, bool(reason), saved), path
        )
        return reason


def _told(model: FoldReport, graph: FoldReport) -> tuple[FoldEntry, ...]:
    """A model's entries, with what became in its graph of those that are hidden.

    A copied layer may number what is inside it anew, so numbers at the ends of names do not count: of
    several, the first in the model is the first in the graph.
    """
    left = list(graph.entries)
    entries = []
    for entry in model.entries:
        names = [re.escape(NUMBERS.sub("", name)) + r"(_\d+)*" for name in entry.path.split("/")]
        pattern = re.compile("(^|/)" + "/(.*/)?".join(names) + "/")
        found = next((other for other in left if pattern.search(other.path)), None)
        if not entry.hidden or found is None:
            entries.append(entry)
            continue
        left.remove(found)
        entries.append(replace(entry, into=found.into, reason=found.reason, hidden=False))
    return tuple(entries)
