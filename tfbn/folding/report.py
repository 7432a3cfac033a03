"""What became of each batch norm of a model."""

from __future__ import annotations

from dataclasses import dataclass

from ..messages import join_some


@dataclass(frozen=True)
class FoldEntry:
    """One batch norm in a `FoldReport`.

    Attributes:
        path: the batch norm, as in `tfbn.population_statistics`.
        kind: the name of its class.
        into: paths of the layers that took it up; empty if it stays.
        reason: why it stays, and what would let it go; `None` if it was folded.
        hidden: whether it stays because it is inside code that Keras cannot show as a graph.
    """

    path: str
    kind: str
    into: tuple[str, ...] = ()
    reason: str | None = None
    hidden: bool = False


@dataclass(frozen=True)
class FoldReport:
    """Every batch norm of a model, and where it went or why it stays.

    `print(report)` shows them as a table, one line for each.

    Attributes:
        entries: one for each batch norm.
        shared: paths of the layers that cannot be copied, and are used as they are in both models.

    >>> import keras, tfbn
    >>> layers = [keras.Input((4,)), tfbn.BatchNorm(name="bn"), keras.layers.Softmax()]
    >>> _, report = tfbn.fold(keras.Sequential(layers))
    >>> report.folded, report.kept[0].path
    ((), 'bn')
    """

    entries: tuple[FoldEntry, ...]
    shared: tuple[str, ...] = ()

    @property
    def folded(self) -> tuple[FoldEntry, ...]:
        return tuple(entry for entry in self.entries if entry.reason is None)

    @property
    def kept(self) -> tuple[FoldEntry, ...]:
        return tuple(entry for entry in self.entries if entry.reason is not None)

    def __str__(self) -> str:
        width = max((len(entry.path) for entry in self.entries), default=0)
        lines = [f"{len(self.folded)} of {len(self.entries)} batch norms folded"]
        lines += [f"  {entry.path:{width}} -> {', '.join(entry.into)}" for entry in self.folded]
        lines += [f"  {entry.path:{width}} stays: {entry.reason}" for entry in self.kept]
        if self.shared:
            lines.append(f"  shared with the given model: {join_some(self.shared)}")
        return "\n".join(lines)
