"""What was exported, and how far it is from the model."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ..folding import FoldReport
from ..messages import join_some

# Below this spread of the outputs a comparison shows little: 100 times the difference usually allowed.
MIN_OUTPUT_VARIATION = 1e-3

# Shape and type of tensors by name.
SpecsByName = dict[str, tuple[tuple[int | None, ...], str]]


class ExportError(RuntimeError):
    """What was written does not compute what the model computes; nothing was left behind.

    >>> import tfbn
    >>> issubclass(tfbn.ExportError, RuntimeError)
    True
    """


@dataclass(frozen=True)
class ExportReport:
    """A written and verified SavedModel, or file of another format.

    Attributes:
        format: the name of the format.
        path: where it is.
        fold: what became of the batch norms; `None` if folding was not asked for.
        difference: the largest absolute difference between any output of the given model and of the
            reloaded one.
        relative_difference: the same divided by the largest absolute value of that output.
        sensitivity: how far the model's own outputs move, relative to their size, when the inputs move
            by their last digit; `None` where no input is a floating-point number.
        in_training: the layers that the model calls with training=True, and batch norms behind them that
            train with them.
        samples: number of samples compared.
        spread: how far apart their outputs are, relative to the largest absolute value, in the output
            that varies least; `None` with one sample.
        reason_for_variables: why the weights are variables, as a SavedModel's may be; `""` where they
            are constants.
        inputs, outputs: shape (the batch size is `None`) and type of the signature's tensors by name.

    >>> import keras, tempfile, tfbn
    >>> model = keras.Sequential([keras.Input((4,)), tfbn.BatchNorm(), keras.layers.Dense(2)])
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     report = tfbn.export(model, f"{folder}/1")
    >>> len(report.fold.folded), report.relative_difference < 1e-5, report.weights
    (1, True, 'constants')
    """

    format: str
    path: Path
    fold: FoldReport | None
    difference: float
    relative_difference: float
    sensitivity: float | None
    in_training: tuple[str, ...]
    samples: int
    spread: float | None
    reason_for_variables: str
    inputs: SpecsByName
    outputs: SpecsByName

    @property
    def frozen(self) -> bool:
        """Whether the weights are constants."""
        return not self.reason_for_variables

    @property
    def weights(self) -> str:
        """What the weights are, in words."""
        return "constants" if self.frozen else f"variables: {self.reason_for_variables}"

    @property
    def doubts(self) -> str:
        """Why the comparison shows little; `""` if nothing is known against it."""
        if self.spread is None or self.spread >= MIN_OUTPUT_VARIATION:
            return ""
        return (
            f"the outputs hardly vary among the samples ({self.spread:.1g} relative), so that shows "
            "little: pass samples= on which they do"
        )

    def _notes(self) -> Iterator[str]:
        if self.sensitivity is not None:
            yield (
                f"the model's own outputs move by {self.sensitivity:.2g} relative when its inputs do by "
                "their last digit"
            )
        yield self.doubts
        if self.in_training:
            yield f"run as in training, for the model calls layers so: {join_some(self.in_training)}"

    def __str__(self) -> str:
        lines = [
            f"{self.format} {self.path}",
            f"  differs from the model by at most {self.difference:.2g} "
            f"({self.relative_difference:.2g} relative) on {self.samples} samples",
            *(f"  {sentence}" for sentence in self._notes() if sentence),
            f"  weights are {self.weights}",
        ]
        lines += [f"  input {name!r}: {dtype} {shape}" for name, (shape, dtype) in self.inputs.items()]
        lines += [f"  output {name!r}: {dtype} {shape}" for name, (shape, dtype) in self.outputs.items()]
        return "\n".join([*lines, *([str(self.fold)] if self.fold else [])])
