"""Every batch norm of a model, and what its weights alone tell."""

from __future__ import annotations

import os

import keras

from ..batch_norms import excluded_batch_norms
from ..folding import fold
from ..messages import one_line
from .inspection import Inspection, LayerInspection
from .layers import loaded, numbers_of
from .weights import findings


def inspect(model: keras.Model | str | os.PathLike[str]) -> Inspection:
    """List every batch norm of a model, and what its weights alone tell; without data.

    Ours, Keras' own, Keras 1's (`compat`), declared subclasses, those in nested models, wrappers and TF1
    code in layers. The weights tell: statistics still at their initial values, dead channels (gamma or
    variance near 0), a variance below epsilon, a scale `gamma / sqrt(variance + epsilon)` that
    explodes, NaN, infinity and negative variances. Limits are in `tfbn/diagnosis/weights.py`.
    What only data tells, `tfbn.diagnose` finds.

    Args:
        model: a built Keras model, or the path of a `.keras` file. Files of Keras 1 and 2 are loaded
            with `tfbn.compat.load_model` first. It is not changed; it is folded once, to say where each
            batch norm would go, which takes the memory of a copy.

    Returns:
        An `Inspection`: `print` shows a table, `rows()` suits pandas, `layers[path]` has all numbers.

    Raises:
        TypeError: no model.
        ValueError: a model that is not built, or a file that cannot be loaded.

    >>> import tfbn
    >>> model = keras.Sequential([keras.Input((2,)), tfbn.BatchNorm(name="bn")], name="small")
    >>> tfbn.inspect(model).summary
    'small: 1 batch norm, something remarkable in 1 by the weights.'
    """
    model = loaded(model, "inspect")
    places = _places(model)
    layers = {
        path: LayerInspection(numbers, places.get(path, "not known"), findings(numbers))
        for path, numbers in numbers_of(model).items()
    }
    left = {path: why for path, (_, why) in excluded_batch_norms(model).items()}
    return Inspection(model.name, layers, left)


def _places(model: keras.Model) -> dict[str, str]:
    """Where `fold` would put each batch norm, or why it stays."""
    try:
        _, report = fold(model)
    except Exception as error:  # whatever else of the model cannot be copied: it is only looked at here
        return dict.fromkeys(numbers_of(model), f"stays: {one_line(error)}")
    return {
        entry.path: f"into {', '.join(entry.into)}" if entry.into else f"stays: {entry.reason}"
        for entry in report.entries
    }
