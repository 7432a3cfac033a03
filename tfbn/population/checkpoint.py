"""A file with what a pass has summed up so far, so that a pass that was killed can be gone on with."""

from __future__ import annotations

import os
from collections.abc import Callable
from time import monotonic

from .data_pass import NOTHING, Seen
from .shards import Statistics

SECONDS = 30.0  # from one writing to the next: what a killed pass loses at most


class Checkpoint:
    """What earlier passes have summed up, and the file to which this one writes the whole.

    Args:
        path: of the file; `None` for none.
        steps: batches to measure in all.
        summed_up: the statistics of this pass, given how much it has measured.

    Raises:
        ValueError: the file is no such file, of other weights, or of more batches.
    """

    def __init__(
        self,
        path: str | os.PathLike[str] | None,
        steps: int | None,
        summed_up: Callable[[Seen], Statistics],
    ) -> None:
        self._path, self._summed_up = path, summed_up
        self._written = monotonic()
        self._begun = Statistics()
        if path is not None and os.path.exists(path):
            self._begun = Statistics.load(path)
            self._check_begun(steps)

    @property
    def already(self) -> Seen:
        """How much of the data is measured before this pass."""
        return Seen(self._begun.batches, self._begun.samples)

    def after_batch(self, seen: Seen) -> None:
        """Write the file, unless it was written a moment ago."""
        if self._path is not None and monotonic() - self._written >= SECONDS:
            self.finish(seen)

    def finish(self, seen: Seen) -> Statistics:
        """All that was measured, by this pass and before; the file then holds it."""
        measured = Seen(*(now - before for now, before in zip(seen, self.already, strict=True)))
        together = self._begun.merge(self._summed_up(measured))
        if self._path is not None:
            together.save(self._path)
            self._written = monotonic()
        return together

    def _check_begun(self, steps: int | None) -> None:
        if self._begun.weights not in ("", self._summed_up(NOTHING).weights):
            raise ValueError(
                f"{self._path} was measured with other weights than the model's, or other names of "
                "layers. Load the model that it is of, or pass checkpoint= another file."
            )
        if steps is not None and self._begun.batches > steps:
            raise ValueError(
                f"{self._path} holds {self._begun.batches} batches, more than steps={steps}. Raise "
                "steps, or pass checkpoint= another file."
            )
