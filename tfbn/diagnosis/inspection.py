"""The report of `inspect`."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from .drawing import draw_weights
from .layers import LayerNumbers
from .page import write_page
from .tables import Column, Table, as_text

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True, eq=False)
class LayerInspection:
    """One batch norm in an `Inspection`.

    Attributes:
        numbers: its settings, and its weights per channel.
        fold: where `tfbn.fold` would put it, `"into conv"`, or why it stays, `"stays: …"`.
        findings: what is remarkable about its weights, in words; empty if nothing is.
    """

    numbers: LayerNumbers
    fold: str
    findings: tuple[str, ...]

    def row(self) -> dict[str, Any]:
        return self.numbers.settings | {"fold": self.fold, "findings": "; ".join(self.findings)}


@dataclass(frozen=True, eq=False)
class Inspection:
    """Every batch norm of a model, and what its weights alone tell; `print` shows a table.

    Attributes:
        model: the model's name.
        layers: by path, in the model's order.
        left: layers of subclasses that are not known to compute batch normalisation, and why, by path.

    >>> import keras, tfbn
    >>> layers = [keras.Input((2,)), tfbn.BatchNorm(name="bn"), keras.layers.Dense(1, name="dense")]
    >>> model = keras.Sequential(layers)
    >>> layer = tfbn.inspect(model).layers["bn"]
    >>> layer.fold, layer.findings
    ('into dense', ('moving statistics at their initial values 0 and 1',))
    """

    model: str
    layers: Mapping[str, LayerInspection]
    left: Mapping[str, str] = field(default_factory=dict)

    @property
    def summary(self) -> str:
        """One sentence."""
        if not self.layers:
            return f"{self.model}: it has no batch norm."
        remarkable = sum(bool(layer.findings) for layer in self.layers.values())
        found = "nothing remarkable" if not remarkable else f"something remarkable in {remarkable}"
        total = f"{len(self.layers)} batch norm{'s' * (len(self.layers) > 1)}"
        return f"{self.model}: {total}, {found} by the weights."

    def rows(self) -> list[dict[str, Any]]:
        """A dictionary for each batch norm, as `pandas.DataFrame` takes them."""
        return [layer.row() for layer in self.layers.values()]

    def as_dict(self) -> dict[str, Any]:
        """All of it in types that JSON has."""
        return {
            "model": self.model,
            "summary": self.summary,
            "layers": self.rows(),
            "left": dict(self.left),
        }

    def table(self) -> Table:
        """What `print` and the HTML page show."""
        columns = (
            Column("batch norm", "path"),
            Column("class", "class"),
            Column("channels", "channels", number=True),
            Column("axis", "axis", number=True),
            Column("decay", "decay", number=True),
            Column("epsilon", "epsilon", number=True),
            Column("frozen by", "frozen by"),
            Column("fold", "fold"),
            Column("its weights tell", "findings"),
        )
        return Table(self.summary, columns, self.rows(), self.left)

    def plot(self) -> Figure:
        """Distributions of gamma, of the scales at inference and of the moving statistics, by layer.

        Needs matplotlib, `tfbn[plot]`: `report.plot().savefig("weights.png")`.
        """
        return draw_weights(self.summary, [layer.numbers for layer in self.layers.values()])

    def to_html(self, path: str | os.PathLike[str]) -> None:
        """Write the table as one page for a browser, which needs no network; columns sort by a click."""
        write_page(path, f"Batch norms of {self.model}", self.table(), [])

    def __str__(self) -> str:
        return as_text(self.table())
