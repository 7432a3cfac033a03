"""One pass over the data through a model, with accumulators in place of its batch norms."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import nullcontext
from types import SimpleNamespace
from typing import Any, NamedTuple

import keras
import numpy as np
import tensorflow as tf

from ..batch_norms import has_call_of_its_own, layer_paths
from ..data_format import explained
from ..messages import one_line
from . import data as reading
from .accumulator import MomentAccumulator, listening, standing_in
from .untouched import functions_run_eagerly, has_functions, untouched


class Seen(NamedTuple):
    """How much of the data a pass has read."""

    batches: int
    samples: int


NOTHING = Seen(0, 0)


def pass_over(
    model: keras.Model,
    accumulators: Mapping[str, MomentAccumulator],
    data: Any,
    steps: int | None,
    verbose: int | str,
    already: Seen = NOTHING,
    after_batch: Callable[[Seen], None] | None = None,
) -> Seen:
    """Let all data through the model, and the accumulators sum up what reaches them.

    Args:
        already: how much of the data is read only, since an earlier pass has measured it.
        after_batch: called between two batches, with how much was read by then.

    Returns:
        How much was read.
    """
    batches, batch_size = reading.readable(model, data)
    runner = _MeasurementModel(model, accumulators, already, after_batch)
    eagerly = bool(getattr(model, "run_eagerly", False)) or _repeats_over_free_time(model, accumulators)
    runner.compile(run_eagerly=eagerly, jit_compile=False)
    with (
        untouched(model),
        functions_run_eagerly(has_functions(model)),
        standing_in(model, accumulators),
        warnings.catch_warnings(),
    ):
        # Data that ends by itself is welcome here; too little of it is an error below.
        warnings.filterwarnings("ignore", message="Your input ran out of data")
        warnings.filterwarnings("ignore", message="Even though the `tf.config.experimental_run_func")
        try:
            runner.evaluate(batches, batch_size=batch_size, steps=steps, verbose=verbose)
        except tf.errors.OpError as error:
            if (lacking := explained(error)) is not None:
                raise RuntimeError(lacking) from error
            raise
    _check_read(runner.seen, steps, already)
    return runner.seen


def _check_read(seen: Seen, steps: int | None, already: Seen) -> None:
    if seen.batches == 0:
        raise ValueError(reading.NO_BATCH)
    if steps is not None and seen.batches < steps:
        raise ValueError(
            f"data ended after {seen.batches} of steps={steps} batches. Pass more data, repeat it "
            "(tf.data.Dataset.repeat), or lower steps."
        )
    if seen.batches < already.batches:
        _refuse_other_data(seen, already)


def _refuse_other_data(seen: Seen, already: Seen) -> None:
    raise ValueError(
        f"The checkpoint holds {already.batches} batches of {already.samples} samples in all, and the "
        f"first {seen.batches} of data have {seen.samples}: it is of other data, or of other batches. "
        "Pass the same data in the same order, or checkpoint= another file."
    )


class _OneProcess:
    """What Keras asks of a strategy to read data; TensorFlow has its default one outside scopes only."""

    def experimental_distribute_dataset(self, dataset: tf.data.Dataset) -> tf.data.Dataset:
        return dataset

    def scope(self) -> Any:
        return nullcontext()


class _MeasurementModel(keras.Model):
    """Lets Keras' own `evaluate` read the data and draw the progress bar, for any kind of data.

    Whatever the strategy, batches go through the model whole, as one process sends them.
    """

    def __init__(
        self,
        model: keras.Model,
        accumulators: Mapping[str, MomentAccumulator],
        already: Seen,
        after_batch: Callable[[Seen], None] | None,
    ) -> None:
        super().__init__(name="population_pass")
        # Out of Keras' sight: under another strategy than the model's it would make an optimizer for it.
        self._of = SimpleNamespace(model=model, accumulators=dict(accumulators))
        self.built = True  # under a strategy Keras would build it by a call that it does not have
        self.batches = self.samples = 0
        self._already, self._after_batch = already, after_batch or (lambda seen: None)
        self._declared = reading.declared_batch_size(model)

    def make_test_function(self, force: bool = False) -> None:
        step = self._step
        if not self.run_eagerly:
            step = tf.function(step, reduce_retracing=True, autograph=False)

        def measure_batch(iterator: Iterator[Any]) -> dict[str, Any]:
            model = self._of.model
            x = reading.preprocessed(model, next(iterator))
            reading.check_inputs(model, x, self.batches + 1)
            size = reading.size_of_batch(x)
            reading.check_size(model, self._declared, size, self.batches + 1)
            self.batches, self.samples = self.batches + 1, self.samples + size
            if not self._was_measured():
                self._prepare(x)
                self._check_finite(np.isfinite(step(x)))
                self._after_batch(self.seen)
            return {"samples": self.samples}

        self.test_function = measure_batch

    @property
    def seen(self) -> Seen:
        return Seen(self.batches, self.samples)

    def _was_measured(self) -> bool:
        """Whether this batch is one that an earlier pass has measured."""
        if self.batches == self._already.batches and self.samples != self._already.samples:
            _refuse_other_data(self.seen, self._already)
        return self.batches <= self._already.batches

    def _prepare(self, x: Any) -> None:
        model = self._of.model
        if not model.built:
            self._build(x)
        first = self.batches == self._already.batches + 1
        if first and _runs_batch_norms_itself(model, self._accumulators):
            self._learn_how_training_calls(x)

    def _check_finite(self, finite: np.ndarray) -> None:
        for path, is_finite in zip(self._of.accumulators, finite, strict=True):
            if not is_finite:
                raise ValueError(
                    f"Batch {self.batches} gives the batch norm {path!r} NaN or infinite "
                    "statistics. Look for NaN or very large values in that batch and in the "
                    "weights of the layers before it. The model was not changed."
                )

    @property
    def distribute_strategy(self) -> Any:
        """Keras asks it to cut batches up for replicas: here they stay whole."""
        return _OneProcess()

    @property
    def _runs_eagerly(self) -> bool:
        """Also where user code is a tf.function: in a graph that would run as plain Python now."""
        return bool(self.run_eagerly or tf.config.functions_run_eagerly())

    @property
    def _accumulators(self) -> list[MomentAccumulator]:
        return list(self._of.accumulators.values())

    def _step(self, x: Any) -> tf.Tensor:
        for accumulator in self._accumulators:
            accumulator.start_step()
        self._of.model(x, training=False)
        return tf.stack([accumulator.total() for accumulator in self._accumulators])

    def _build(self, x: Any) -> None:
        """For batches of any size: a call on this one would declare its size in a Sequential model.

        Keras may call the layers of a model to build it, in which case nothing counts.
        """
        for accumulator in self._accumulators:
            accumulator.paused = True
        model = self._of.model
        if isinstance(model, keras.Sequential):
            model.build((None, *x.shape[1:]))
        elif self._runs_eagerly:
            model(x, training=False)
        else:
            specs = tf.nest.map_structure(
                lambda tensor: tf.TensorSpec([None, *tensor.shape[1:]], tensor.dtype), x
            )
            _traced(lambda x: model(x, training=False), specs)
        for accumulator in self._accumulators:
            accumulator.paused = False

    def _learn_how_training_calls(self, x: Any) -> None:
        """Call the model as in training, without effect: a graph is only traced, not run."""
        try:
            flags = self._listened(x, training=True)
        except Exception as error:  # the model's code may be for another kind of data there
            warnings.warn(
                "The model cannot be called with training=True, so that every batch norm is measured "
                f"that inference reaches. It says: {one_line(error)}",
                stacklevel=2,
            )
            return
        mixed = [number for number, calls in enumerate(flags) if len(set(calls)) > 1]
        at_inference = self._listened(x, training=False) if mixed else flags
        for accumulator, calls, others in zip(self._accumulators, flags, at_inference, strict=True):
            # Calls are told apart by their order, if there are as many at inference.
            accumulator.in_training = calls if len(calls) == len(others) or not calls else [any(calls)]

    def _listened(self, x: Any, training: bool) -> list[list[bool]]:
        """For each accumulator and call, whether it uses the batch's statistics."""
        try:
            with listening(self._accumulators):
                if self._runs_eagerly:
                    self._of.model(x, training=training)
                else:
                    _traced(lambda: self._of.model(x, training=training))
            return [accumulator.in_training or [] for accumulator in self._accumulators]
        finally:
            for accumulator in self._accumulators:
                accumulator.in_training = None


def _traced(function: Callable[..., Any], *specs: Any) -> None:
    """Without AutoGraph, as Keras traces models: it would read the source of this file."""
    tf.function(function, autograph=False).get_concrete_function(*specs)


def _holders(model: keras.Model, accumulators: list[MomentAccumulator]) -> Iterator[keras.layers.Layer]:
    """The layers, and the model, that have a measured batch norm inside."""
    measured = {id(accumulator.layer) for accumulator in accumulators}
    for layer in [model, *layer_paths(model).values()]:
        inside = [*layer_paths(layer).values(), *getattr(layer, "batch_norms_inside", {}).values()]
        if any(id(batch_norm) in measured for batch_norm in inside):
            yield layer


def _runs_batch_norms_itself(model: keras.Model, accumulators: list[MomentAccumulator]) -> bool:
    """Whether code that is not Keras' decides with which `training` a batch norm is called."""
    if any(has_call_of_its_own(accumulator.layer) for accumulator in accumulators):
        return True
    calls = (type(layer).call for layer in _holders(model, accumulators))
    return any(not getattr(call, "__module__", "").startswith("keras.") for call in calls)


def _repeats_over_free_time(model: keras.Model, accumulators: Mapping[str, MomentAccumulator]) -> bool:
    """Whether TimeDistributed may meet a time axis of unknown size in a graph.

    There it calls its layer once for all steps, vectorized, which is no step's batch.
    """
    try:
        shapes = [tensor.shape[1:] for tensor in model.inputs]
    except (AttributeError, ValueError):  # a model whose inputs are not declared
        shapes = [(None,)]
    holders = _holders(model, list(accumulators.values()))
    by_steps = [layer for layer in holders if isinstance(layer, keras.layers.TimeDistributed)]
    shapes += [input_shape(layer) for layer in by_steps]
    return bool(by_steps) and any(size is None for shape in shapes for size in shape)


def input_shape(layer: keras.layers.Layer) -> tuple[int | None, ...]:
    """Without the batch axis; as if unknown where a layer has none, or several."""
    try:
        return tuple(layer.input.shape[1:])
    except (AttributeError, ValueError):
        return (None,)
