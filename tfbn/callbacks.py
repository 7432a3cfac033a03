"""Callbacks for `keras.Model.fit`: recalibration at its end or for validation, and drift in logs."""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf

from .batch_norms import AnyBatchNorm, batch_norms
from .diagnosis.diagnose import examine
from .population import data as reading
from .population import recalibrate

WHEN = ("end", "validation")


class Recalibrate(keras.callbacks.Callback):
    """Population statistics in place of the moving averages, at the end of training or for validation.

    With `"end"` the model is recalibrated once, when `fit` ends. With `"validation"` it is so before
    each validation, and afterwards the moving averages are put back: validation, and what looks at its
    results (EarlyStopping, ReduceLROnPlateau), see the model as it would be recalibrated, and training
    goes on as it would without the callback. The model that `fit` leaves has moving averages then; for
    both, pass two callbacks. If a validation raises, the moving averages are put back by the next `fit`
    or validation with this callback.

    Args:
        data: as in `tfbn.recalibrate`; what it may read again and again, not an iterator, with
            `"validation"`.
        steps: number of batches to use; all of them if `None`.
        when: `"end"` or `"validation"`.

    Raises:
        ValueError: another `when`, endless data without `steps`, or an iterator with `"validation"`.

    >>> import numpy as np, tfbn
    >>> x, model = np.arange(64.0)[:, None], keras.Sequential([tfbn.BatchNorm()])
    >>> model.compile("sgd", "mse")
    >>> _ = model.fit(x, x, callbacks=[tfbn.callbacks.Recalibrate(x)], verbose=0)
    >>> print(model.layers[0].moving_mean.numpy())
    [31.5]
    """

    def __init__(self, data: Any, steps: int | None = None, when: str = "end") -> None:
        super().__init__()
        if when not in WHEN:
            raise ValueError(f"when must be 'end' or 'validation', received {when!r}.")
        reading.check(data, steps)
        if when == "validation":
            _check_repeatable(data, "Recalibrate")
        self._data, self._steps, self._when = data, steps, when
        self._kept: list[tuple[Any, tf.Tensor]] = []

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        self._put_back()

    def on_test_begin(self, logs: dict[str, Any] | None = None) -> None:
        self._put_back()
        if self._when == "validation":
            self._kept = [(each, tf.identity(each)) for each in _statistics(self.model)]
            recalibrate(self.model, self._data, self._steps, verbose=0)

    def on_test_end(self, logs: dict[str, Any] | None = None) -> None:
        self._put_back()

    def _put_back(self) -> None:
        kept, self._kept = self._kept, []
        for variable, value in kept:
            variable.assign(value)

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
        if self._when == "end":
            recalibrate(self.model, self._data, self._steps, verbose=0)


class Monitor(keras.callbacks.Callback):
    """The drift of every batch norm in the logs after each epoch, and so in History and TensorBoard.

    `logs["drift"]` is the largest, `logs["drift/PATH"]` that of each layer: how far its normalised
    values are from what the data's own statistics would make them, as `tfbn.diagnose` has it; up to 1/3
    is fine. Callbacks that write logs come after this one in the list.

    Args:
        data: as in `tfbn.diagnose`; not an iterator. A few hundred samples will do.
        steps: number of batches to use; all of them if `None`.
        every: epochs from one measurement to the next; the others have the numbers of the last one.

    Raises:
        ValueError: endless data without `steps`, an iterator, or `every` below 1.

    >>> import numpy as np, tfbn
    >>> x, model = np.arange(64.0)[:, None], keras.Sequential([tfbn.BatchNorm(name="bn")])
    >>> model.compile("sgd", "mse")
    >>> history = model.fit(x, x, callbacks=[tfbn.callbacks.Monitor(x)], verbose=0)
    >>> sorted(history.history)
    ['drift', 'drift/bn', 'loss']
    """

    def __init__(self, data: Any, steps: int | None = None, every: int = 1) -> None:
        super().__init__()
        reading.check(data, steps)
        _check_repeatable(data, "Monitor")
        if not (isinstance(every, int) and every >= 1):
            raise ValueError(f"every must be a positive number of epochs, received {every!r}.")
        self._data, self._steps, self._every = data, steps, every
        self._last: dict[str, float] = {}

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        if epoch % self._every == 0 or not self._last:
            seen, _ = examine(self.model, self._data, self._steps, verbose=0)
            drifts = {path: evidence.drift for path, evidence in seen.items()}
            self._last = {"drift": max(drifts.values(), default=0.0)}
            self._last |= {f"drift/{path}": value for path, value in drifts.items()}
        if logs is not None:
            logs.update(self._last)


def _check_repeatable(data: Any, who: str) -> None:
    if hasattr(data, "__next__"):
        raise ValueError(
            f"{who} reads data again and again, received a {type(data).__name__}, which ends. Pass "
            "arrays, a tf.data.Dataset or a PyDataset."
        )


def _statistics(model: keras.Model) -> list[Any]:
    """The variables that recalibration assigns."""
    names = ("moving_mean", "moving_variance", "moving_stddev")

    def variables(layer: AnyBatchNorm) -> list[Any]:
        return [variable for name in names if (variable := getattr(layer, name, None)) is not None]

    return [variable for layer in batch_norms(model).values() for variable in variables(layer)]
