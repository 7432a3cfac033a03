"""Old model files into `.keras` files, checked against what the old model predicted."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np

from ..batch_norms import layer_paths
from ..data_format import check_kernels
from ..declared_graph import declared_inputs
from ..export import samples
from ..files.atomic import staged
from ..population.untouched import untouched
from .model_files import InTraining, LegacyReport, load
from .predictions import Reference, largest_relative_difference, predictions

# Rounding of float32 over some tens of layers, relative to the largest value of an output.
DEFAULT_RTOL = 1e-5

# Of Keras' `predict`, unless told. What mode 2 predicts depends on it.
PREDICT_BATCH = 32


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
    rtol: float = DEFAULT_RTOL,
    overwrite: bool = False,
    **arguments: Any,
) -> UpgradeReport:
    """Load a model of Keras 1 or 2, write it as a `.keras` file, and check that file.

    The file is read again before it is put in place; what it predicts must be what the loaded model
    does, and what `reference` says.

    Args:
        old: the legacy file, as `load_model` takes it.
        new: the `.keras` file.
        reference: an `.npz` file with inputs `x` and the old model's own predictions `y`; `x_0`,
            `x_1`, … or `y_0`, `y_1`, … where there are several, in the model's order. With batch norms
            of mode 2, or layers that always train, `y` may come from one batch or from batches of 32, as
            `predict` made them.
        rtol: difference allowed from `y`, relative to its largest absolute value.
        overwrite: whether a file that is already at `new` may be replaced.
        **arguments: of `load_model`: weights, keras_version, backend, data_format, custom_objects.

    Raises:
        ValueError: as `load_model`; a `reference` that does not fit the model.
        RuntimeError: a model that stays channels first, and that TensorFlow cannot run on this machine.
        UpgradeError: the predictions differ.
        FileExistsError: `new` is taken, and `overwrite` is false.
        OSError: a file cannot be read or written.
    """
    if os.path.exists(new) and not overwrite:
        raise FileExistsError(f"{new} exists already. Choose another path, or pass overwrite=True.")
    model, legacy = load(old, **arguments)
    # What loading could not turn, converting cannot either.
    check_kernels(model, convertible=arguments.get("data_format") == "channels_first")
    known = None if reference is None else Reference.read(reference, model)
    distance = None
    if known is not None:
        by_batch = any(batch_norm.mode == 2 for batch_norm in legacy.batch_norms)
        by_batch |= any(isinstance(layer, InTraining) for layer in layer_paths(model).values())
        with untouched(model):  # a layer that always trains moves its statistics
            sizes = (None, PREDICT_BATCH)[: 1 + by_batch]
            distance = min(known.difference(model, size) for size in sizes)
        if not distance <= rtol:
            if _is_random(model, known.x):
                raise UpgradeError(
                    "The model's predictions are random, since the old one runs layers as in training "
                    "always: no reference can be met. Upgrade it without one. Nothing was written."
                )
            raise UpgradeError(
                f"The loaded model differs from {reference} by {distance:.2g} of the largest prediction,"
                f" allowed is {rtol:.2g}. Is it the reference of this model, and are the weights, the "
                "Keras version and the backend right, as far as they were given? Nothing was written."
            )
    x = samples.draw(declared_inputs(model)) if known is None else known.x
    with staged(Path(new), overwrite) as staging:
        model.save(staging)
        written = keras.models.load_model(staging, custom_objects=arguments.get("custom_objects"))
        with untouched(written), untouched(model):
            reread = largest_relative_difference(predictions(written, x), predictions(model, x))
        if not reread <= DEFAULT_RTOL and not (_is_random(model, x) and _same_weights(written, model)):
            raise UpgradeError(
                f"{new} would predict something else than the loaded model, by {reread:.2g} of the "
                "largest prediction. Nothing was written. Please report this with the file."
            )
    return UpgradeReport(Path(new), legacy, distance, 0 if known is None else len(known.y[0]))


def _is_random(model: keras.Model, x: Any) -> bool:
    with untouched(model):
        return largest_relative_difference(predictions(model, x), predictions(model, x)) > DEFAULT_RTOL


def _same_weights(model: keras.Model, other: keras.Model) -> bool:
    pairs = zip(model.get_weights(), other.get_weights(), strict=True)
    return all(np.array_equal(array, other_array) for array, other_array in pairs)
