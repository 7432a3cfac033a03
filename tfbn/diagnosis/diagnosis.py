"""The report of `diagnose`."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ..population import PopulationStatistics
from .effect import Effect
from .evidence import Evidence
from .tables import Column, Table, as_text
from .verdicts import SEVERITY, Judgement, Verdict

STYLES = {
    "diverged": "bold red",
    "never updated": "red",
    "other data": "red",
    "lagging": "yellow",
    "frozen": "yellow",
    "small batches": "yellow",
    "fine": "green",
}
SENTENCES = {
    "fine": "are those of the data",
    "lagging": "lag behind the data",
    "never updated": "were never updated",
    "other data": "are those of other data",
    "small batches": "come of batches that are too small",
    "frozen": "are frozen, and not those of the data",
    "diverged": "have diverged",
}


@dataclass(frozen=True, eq=False)
class LayerDiagnosis:
    """One batch norm in a `Diagnosis`.

    Attributes:
        verdict: `"fine"`, `"lagging"`, `"never updated"`, `"other data"`, `"small batches"`,
            `"frozen"` or `"diverged"`.
        reason: what was seen, in words.
        remedy: what to do, in a sentence; empty where all is fine.
        evidence: the numbers: `evidence.numbers` of the layer, `shift`, `variance_ratio` and
            `channel_drift` per channel, `drift`, `residue`, `values_a_batch`.
    """

    verdict: Verdict
    reason: str
    remedy: str
    evidence: Evidence

    @classmethod
    def of(cls, evidence: Evidence, judgement: Judgement) -> LayerDiagnosis:
        return cls(judgement.verdict, judgement.reason, judgement.remedy, evidence)

    @property
    def population(self) -> PopulationStatistics:
        """What recalibration would assign."""
        mean, variance = self.evidence.population
        return PopulationStatistics(mean, variance, self.evidence.count)

    def row(self) -> dict[str, Any]:
        seen = self.evidence
        with np.errstate(all="ignore"):
            return seen.numbers.settings | {
                "verdict": self.verdict,
                "drift": _number(seen.drift),
                "shift": _number(np.median(np.abs(seen.shift))),
                "variance ratio": _number(np.median(seen.variance_ratio)),
                "initial value left": seen.residue,
                "values a batch": seen.values_a_batch,
                "values": seen.count,
                "reason": self.reason,
                "remedy": self.remedy,
            }


@dataclass(frozen=True, eq=False)
class Diagnosis:
    """What is wrong with a model's batch norms, worst first; `print` shows a table.

    Attributes:
        model: the model's name.
        layers: by path, worst first.
        left: batch norms that training does not use, or the data does not reach, and why, by path.
        effect: what recalibration would do to outputs, loss and metrics; `None` where the data can be
            read once only.
    """

    model: str
    layers: Mapping[str, LayerDiagnosis]
    left: Mapping[str, str] = field(default_factory=dict)
    effect: Effect | None = None

    @property
    def fine(self) -> bool:
        """Whether no verdict is bad."""
        return all(layer.verdict == "fine" for layer in self.layers.values())

    @property
    def worst(self) -> LayerDiagnosis | None:
        return next(iter(self.layers.values()), None)

    @property
    def summary(self) -> str:
        """One sentence for the model; with what recalibration would do where something is wrong."""
        if self.worst is None:
            return f"{self.model}: no batch norm was measured."
        total = len(self.layers)
        if self.fine:
            return f"{self.model}: {total} of {total} moving statistics are those of the data."
        counts = Counter(layer.verdict for layer in self.layers.values())
        bad = sorted((verdict for verdict in counts if verdict != "fine"), key=SEVERITY.__getitem__)
        parts = [f"{counts[verdict]} {SENTENCES[verdict]}" for verdict in bad]
        return f"{self.model}: of {total} moving statistics {', '.join(parts)}.{self._change()}"

    def _change(self) -> str:
        if self.effect is None or not self.effect.before:
            return ""
        names = [name for name in self.effect.before if name != "loss"] or ["loss"]
        before, after = self.effect.before, self.effect.after
        parts = [f"{name} from {before[name]:.4g} to {after[name]:.4g}" for name in names]
        return f" Recalibration changes {', '.join(parts)}."

    def rows(self) -> list[dict[str, Any]]:
        """A dictionary for each batch norm, as `pandas.DataFrame` takes them, worst first."""
        return [layer.row() for layer in self.layers.values()]

    def as_dict(self) -> dict[str, Any]:
        """All of it in types that JSON has."""
        effect = None if self.effect is None else vars(self.effect)
        layers = [{name: _for_json(value) for name, value in row.items()} for row in self.rows()]
        return {
            "model": self.model,
            "summary": self.summary,
            "fine": self.fine,
            "effect": effect,
            "layers": layers,
            "left": dict(self.left),
        }

    def table(self) -> Table:
        """What `print` and the HTML page show."""
        columns = (
            Column("batch norm", "path"),
            Column("verdict", "verdict"),
            Column("drift", "drift", number=True),
            Column("mean off", "shift", number=True),
            Column("variance ×", "variance ratio", number=True),
            Column("reason", "reason"),
            Column("remedy", "remedy"),
        )
        return Table(self.summary, columns, self.rows(), self.left)

    def __str__(self) -> str:
        return as_text(self.table())


def worst_first(layers: Mapping[str, LayerDiagnosis]) -> dict[str, LayerDiagnosis]:
    """By verdict, and then by drift."""

    def badness(path: str) -> tuple[int, float]:
        return SEVERITY[layers[path].verdict], -layers[path].evidence.drift

    return {path: layers[path] for path in sorted(layers, key=badness)}


def _number(value: Any) -> float:
    return float(value)


def _for_json(value: Any) -> Any:
    """JSON has no NaN and no infinity."""
    return None if isinstance(value, float) and not math.isfinite(value) else value
