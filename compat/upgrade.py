"""Old model files into `.keras` files that are known to predict the same."""

from __future__ import annotations

import os
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from ..cloning import declared_inputs
from ..export import samples
from ..export.staging import staged
from .legacy import LegacyReport, load

# Rounding of float32 over some tens of layers, relative to the largest value of an output.
CLOSE = 1e-5


class UpgradeError(RuntimeError):
    """The new model does not predict what the old one did; nothing was written."""


@dataclass(frozen=True)
class UpgradeReport:
    """A legacy file that became a `.keras` file.

    Attributes:
        path: the new file.
        legacy: what the old file was, and what became of its batch norms.
        difference: the largest difference from the reference predictions, relative to the largest of
            them; `None` without a reference.
        samples: their number; 0 without a reference.
    """

    path: Path
    legacy: LegacyReport
    difference: float | None = None
    samples: int = 0


def upgrade(
    old: str | os.PathLike[str],
    new: str | os.PathLike[str],
    *,
    reference: str | os.PathLike[str] | None = None,
    rtol: float = CLOSE,
    overwrite: bool = False,
    **arguments: Any,
) -> UpgradeReport:
    """Load a model of Keras 1 or 2, write it as a `.keras` file, and prove that file.

    The file is read again before it is put in place; what it predicts must be what the loaded model
    does, and what `reference` says.

    Args:
        old: the legacy file, HDF5 or JSON.
        new: the `.keras` file.
        reference: an `.npz` file with inputs `x` and the old model's own predictions `y`; `x_0`,
            `x_1`, … or `y_0`, `y_1`, … where there are several, in the model's order.
        rtol: difference allowed from `y`, relative to its largest absolute value.
        overwrite: whether a file that is already at `new` may be replaced.
        **arguments: of `load_model`: weights, keras_version, backend, custom_objects.

    Raises:
        ValueError: as `load_model`; a `reference` that does not fit the model.
        UpgradeError: the predictions differ.
        FileExistsError: `new` is taken, and `overwrite` is false.
        OSError: a file cannot be read or written.
    """
    if os.path.exists(new) and not overwrite:
        raise FileExistsError(f"{new} exists already. Choose another path, or pass overwrite=True.")
    model, legacy = load(old, **arguments)
    known = None if reference is None else _read(reference, model)
    x = samples.draw(model) if known is None else known[0]
    expected = _predictions(model, x)
    difference = None if known is None else _difference(expected, known[1])
    if difference is not None and not difference <= rtol:
        raise UpgradeError(
            f"The loaded model differs from {reference} by {difference:.2g} of the largest prediction, "
            f"allowed is {rtol:.2g}. If the Keras version or the backend was given, is it the right "
            "one? Nothing was written."
        )
    with staged(Path(new), overwrite) as staging:
        model.save(staging)
        reread = _difference(_predictions(keras.models.load_model(staging), x), expected)
        if not reread <= CLOSE:
            raise UpgradeError(
                f"{new} would predict something else than the loaded model, by {reread:.2g} of the "
                "largest prediction. Nothing was written. Please report this with the file."
            )
    return UpgradeReport(Path(new), legacy, difference, 0 if known is None else len(known[1][0]))


def _read(path: str | os.PathLike[str], model: keras.Model) -> tuple[Any, list[np.ndarray]]:
    """Inputs as the model takes them, and the predictions for each of its outputs."""
    try:
        with open(path, "rb") as stream, np.load(stream, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
    except (ValueError, EOFError, TypeError, zipfile.BadZipFile) as error:  # what other files raise
        raise ValueError(f"{path} cannot be read as an .npz file: {error}") from error
    inputs = declared_inputs(model)
    x = _numbered(path, arrays, "x", len(tf.nest.flatten(inputs)))
    y = _numbered(path, arrays, "y", len(model.outputs))
    shapes = zip(y, model.outputs, strict=True)
    if any(one.dtype.kind not in "fiub" for one in (*x, *y)) or 0 in {one.ndim for one in (*x, *y)}:
        raise ValueError(f"{path} must hold arrays of numbers, with an axis of samples each.")
    if any(len(one) != len(x[0]) or one.shape[1:] != _shape(out, one) for one, out in shapes):
        raise ValueError(
            f"{path} has predictions of shapes {[one.shape for one in y]}, and the model predicts "
            f"{[tuple(one.shape) for one in model.outputs]} for {len(x[0])} samples."
        )
    return samples.check(model, tf.nest.pack_sequence_as(inputs, x)), y


def _shape(output: keras.KerasTensor, prediction: np.ndarray) -> tuple[int, ...]:
    """The output's shape for one sample, the prediction's sizes where it is not known."""
    sizes = zip(output.shape[1:], prediction.shape[1:], strict=False)
    return tuple(given if known is None else known for known, given in sizes)


def _numbered(path: Any, arrays: dict[str, np.ndarray], name: str, count: int) -> list[np.ndarray]:
    names = [name] if count == 1 and name in arrays else [f"{name}_{n}" for n in range(count)]
    missing = [one for one in names if one not in arrays]
    if missing:
        asked = name if count == 1 else ", ".join(names)
        raise ValueError(f"{path} must hold {asked}, and it holds {', '.join(arrays) or 'nothing'}.")
    return [arrays[one] for one in names]


def _predictions(model: keras.Model, x: Any) -> list[np.ndarray]:
    return [np.asarray(one) for one in tf.nest.flatten(model(x, training=False))]


def _difference(found: list[np.ndarray], expected: list[np.ndarray]) -> float:
    """The largest over the outputs, relative to each one's largest finite value; NaN equals NaN."""
    largest = 0.0
    for one, other in zip(found, expected, strict=True):
        same = (one == other) | (np.isnan(one) & np.isnan(other))
        with np.errstate(invalid="ignore"):  # inf − inf
            apart = np.where(same, 0, np.abs(one - other)).max(initial=0)
        size = np.abs(other[np.isfinite(other)]).max(initial=0)
        largest = np.fmax(largest, apart / (size or 1)) if not np.isnan(apart) else np.inf
    return float(largest)
