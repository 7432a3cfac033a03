"""The report of `diagnose`."""

from __future__ import annotations

import math
import os
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from ..population import PopulationStatistics
from .drawing import draw_drift
from .effect import Effect
from .evidence import Evidence
from .page import write_page
from .tables import Column, Table, as_text
from .verdicts import DRIFT, SEVERITY, Judgement, Verdict

if TYPE_CHECKING:
    from matplotlib.figure import Figure

STYLES = {
    "diverged": "bold red",
    "never updated": "red",
    "other data": "red",
    "lagging": "yellow",
    "frozen": "yellow",
    "small batches": "yellow",
    "fine": "green",
}
# What one of them does, and several.
SENTENCES = {
    "lagging": ("lags behind the data", "lag behind the data"),
    "never updated": ("was never updated", "were never updated"),
    "other data": ("has statistics of other data", "have statistics of other data"),
    "small batches": ("saw batches that are too small", "saw batches that are too small"),
    "frozen": ("is frozen with other statistics", "are frozen with other statistics"),
    "diverged": ("has diverged", "have diverged"),
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
        shape = self.evidence.numbers.shape
        mean, variance = (values.reshape(shape) for values in self.evidence.population)
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

    >>> import keras, tfbn
    >>> model = keras.Sequential([keras.Input((2,)), tfbn.BatchNorm(name="bn")], name="small")
    >>> report = tfbn.diagnose(model, np.arange(512.0).reshape(256, 2), verbose=0)
    >>> report.fine, report.summary
    (False, 'small: of its 1 batch norm, 1 was never updated.')
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
        total = f"{len(self.layers)} batch norm{'s' * (len(self.layers) > 1)}"
        if self.fine:
            return f"{self.model}: nothing is wrong with the statistics of its {total}."
        counts = Counter(layer.verdict for layer in self.layers.values())
        bad = sorted((verdict for verdict in counts if verdict != "fine"), key=SEVERITY.__getitem__)
        parts = [f"{counts[verdict]} {SENTENCES[verdict][counts[verdict] > 1]}" for verdict in bad]
        return f"{self.model}: of its {total}, {', '.join(parts)}.{self._change()}"

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
            Column("drift", "drift", number=True, bar=True),
            Column("mean off", "shift", number=True),
            Column("variance ×", "variance ratio", number=True),
            Column("reason", "reason"),
            Column("remedy", "remedy"),
        )
        return Table(self.summary, columns, self.rows(), self.left)

    def plot(self) -> Figure:
        """Drift by layer, variances beside the data's, distributions of gamma and of inference scales.

        Needs matplotlib, `tfbn[plot]`: `report.plot().savefig("drift.png")`.
        """
        verdicts = {path: layer.verdict for path, layer in self.layers.items()}
        seen = [layer.evidence for layer in self.layers.values()]
        return draw_drift(self.summary, verdicts, sorted(seen, key=lambda each: each.numbers.position))

    def to_html(self, path: str | os.PathLike[str]) -> None:
        """Write the table as one page for a browser, which needs no network; columns sort by a click."""
        notes = [
            "Drift: how far normalised values are from what the data's own statistics would make them, "
            f"1 being their own deviation. Up to {DRIFT:.2f} is fine, and more where samples are few."
        ]
        write_page(path, f"Diagnosis of {self.model}", self.table(), notes)

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
