"""What became of the batch norms of a legacy model."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class LegacyBatchNorm:
    """A batch norm of a legacy file.

    Attributes:
        path: its name, after those of the models and layers it is in.
        mode: of Keras 1; 0 for Keras 2.
        stored: what its second statistic was, "std" or "variance"; "" where none is used (modes 1, 2).
        epsilon: that the new layer has.
        became: the new layer.
    """

    path: str
    mode: int
    stored: str
    epsilon: float
    became: str

    def __str__(self) -> str:
        stored = f"stored a {self.stored}" if self.stored else "uses no stored statistics"
        return f"{self.path}: mode {self.mode}, {stored}; became {self.became}"


@dataclass(frozen=True)
class LegacyReport:
    """Who wrote a legacy model, and what its batch norms became.

    Attributes:
        keras_version, backend: as the files or the caller said; `None` where nobody did.
        batch_norms: in the order of the model.
        turned: whether channels-first layers were turned to channels last.
    """

    keras_version: str | None
    backend: str | None
    batch_norms: tuple[LegacyBatchNorm, ...]
    turned: bool = False

    def __str__(self) -> str:
        version = self.keras_version or "of unknown version"
        head = (
            f"Keras {version}, backend {self.backend or 'unknown'}, {len(self.batch_norms)} batch norms"
        )
        turned = ["turned to channels last; inputs and outputs are channels first"] * self.turned
        return "\n".join([head, *turned, *map(str, self.batch_norms)])
