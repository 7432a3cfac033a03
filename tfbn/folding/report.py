"""What became of each batch norm of a model."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Folded:
    """One batch norm in a `FoldReport`.

    Attributes:
        path: the batch norm, as in `tfbn.population_statistics`.
        kind: the name of its class.
        into: path of the layer that took it up; `None` if it stays.
        reason: why it stays; `None` if it was folded.
    """

    path: str
    kind: str
    into: str | None = None
    reason: str | None = None


@dataclass(frozen=True)
class FoldReport:
    """Every batch norm of a model, and where it went or why it stays.

    `print(report)` shows one line for each.
    """

    entries: tuple[Folded, ...]

    @property
    def folded(self) -> tuple[Folded, ...]:
        return tuple(entry for entry in self.entries if entry.into is not None)

    @property
    def kept(self) -> tuple[Folded, ...]:
        return tuple(entry for entry in self.entries if entry.into is None)

    def __str__(self) -> str:
        lines = [f"{len(self.folded)} of {len(self.entries)} batch norms folded"]
        lines += [f"  {entry.path} -> {entry.into}" for entry in self.folded]
        lines += [f"  {entry.path} stays: {entry.reason}" for entry in self.kept]
        return "\n".join(lines)
