"""Stand-ins that sum up what goes through batch norms."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from .. import functional
from ..batch_norms import AnyBatchNorm, has_call_of_its_own, layer_paths
from ..moments import Moments, add_moments, unbiased_variance, weighted_moments, wide_moments

AT_INFERENCE = "the model's own code runs it with training=False, in training too"
NOT_CALLED = "training does not call it"


class MomentAccumulator:
    """Stands in for a batch norm's `call` and sums up what goes through it.

    The sums are variables, so that they work inside tf.function, loops and conditionals.

    Attributes:
        layer: the batch norm.
        in_training: for each call of the layer in one step of training, whether it uses the batch's
            statistics; `None` where every call does.
        listening: whether calls fill `in_training`, in place of the sums.
        paused: whether values count at all; they are normalised all the same.
        observes: whether the layer itself goes on computing, as at inference.
    """

    def __init__(self, layer: AnyBatchNorm, observes: bool = False) -> None:
        self.layer, self.observes = layer, observes
        self.in_training: list[bool] | None = None
        self.listening = False
        self.paused = False
        self._turn = 0
        self._moments: Moments | None = None
        # A model may build its layers in the pass; Keras' own has its statistics as None before.
        if getattr(layer, "moving_mean", None) is not None:
            self._moments = self._zeros()

    @property
    def unused_because(self) -> str | None:
        """Why training does not use the statistics of the batch; `None` if it does."""
        if self.in_training == []:
            return NOT_CALLED
        used = self.in_training is None or any(self.in_training)
        return None if used else AT_INFERENCE

    def start_step(self) -> None:
        self._turn = 0

    def call(
        self, inputs: tf.Tensor, training: Any = None, mask: tf.Tensor | None = None
    ) -> tf.Tensor | None:
        """The inputs normalised with their own moments; as at inference where training does so.

        Returns:
            The outputs; `None` where they are those of inference and the layer, inside TF1 code, has
            no `call` that would compute them.
        """
        if not self._uses_the_batch(inputs, training, mask):
            return self._inference(inputs, mask)
        layer = self.layer
        if mask is None or getattr(layer, "ignores_mask", False):
            batch = wide_moments(inputs, layer.axis)
        else:
            batch = weighted_moments(tf.cast(inputs, tf.float64), mask, layer.axis)
        if not (self.listening or self.paused):
            self._add(batch)
        if self.observes:
            return self._inference(inputs, mask)
        beta, gamma = (_shaped(each, batch.mean) for each in (layer.beta, layer.gamma))
        outputs = functional.normalize(
            inputs, batch.mean, batch.variance, beta, gamma, layer.epsilon, layer.axis
        )
        return tf.cast(outputs, layer.compute_dtype)

    def _inference(self, inputs: tf.Tensor, mask: tf.Tensor | None) -> tf.Tensor | None:
        own = getattr(type(self.layer), "call", None)
        return own and own(self.layer, inputs, **self._accepted(False, mask))

    def _uses_the_batch(self, inputs: tf.Tensor, training: Any, mask: tf.Tensor | None) -> bool:
        if self.listening:
            if has_call_of_its_own(self.layer):
                flag = self._writes_statistics(inputs, training, mask)
            else:
                # A tensor, which only the run would tell, counts as true.
                static = tf.get_static_value(training) if tf.is_tensor(training) else training
                flag = tf.is_tensor(training) if static is None else bool(static)
            self.in_training = [*(self.in_training or ()), flag]
            return flag
        if self.in_training is None:
            return True
        flags, turn = self.in_training, self._turn
        self._turn += 1
        return bool(flags) and flags[min(turn, len(flags) - 1)]

    def _writes_statistics(self, inputs: tf.Tensor, training: Any, mask: tf.Tensor | None) -> bool:
        """Whether the layer's own code, which may do with `training` what it likes, updates them."""
        with keras.StatelessScope() as scope:
            type(self.layer).call(self.layer, inputs, **self._accepted(training, mask))
        return scope.get_current_value(self.layer.moving_mean) is not None

    def _accepted(self, training: Any, mask: tf.Tensor | None) -> dict[str, Any]:
        """The arguments that the layer's own `call` takes."""
        taken = inspect.signature(type(self.layer).call).parameters
        named = {"training": training, "mask": mask}
        return {name: value for name, value in named.items() if name in taken}

    def _zeros(self) -> Moments:
        shape = self.layer.moving_mean.shape
        return Moments(*(tf.Variable(tf.zeros(shape, tf.float64)) for _ in range(3)))

    def _add(self, batch: Moments) -> None:
        with tf.init_scope():
            sums = self._moments = self._moments or self._zeros()
        mean, variance = (_shaped(part, sums.mean) for part in (batch.mean, batch.variance))
        batch = batch._replace(mean=mean, variance=variance)
        for variable, value in zip(sums, add_moments(sums, batch), strict=True):
            variable.assign(value)

    def total(self) -> tf.Tensor:
        """A scalar that is finite if all sums are."""
        if self._moments is None:
            return tf.zeros([], tf.float64)
        return tf.reduce_sum(self._moments.mean + self._moments.variance)

    @property
    def count(self) -> int:
        """Values behind the channel that has the fewest."""
        return 0 if self._moments is None else int(self._moments.count.numpy().min())

    @property
    def moments(self) -> Moments | None:
        """Of all that went through, as arrays; `None` of a layer that was never built."""
        return self._moments and Moments(*(part.numpy() for part in self._moments))

    def read(self) -> tuple[np.ndarray, np.ndarray, int]:
        """Mean, unbiased variance and count, once something was counted."""
        assert self._moments is not None
        variance = unbiased_variance(self._moments).numpy()
        return self._moments.mean.numpy(), variance, self.count


def _shaped(value: Any, other: Any) -> Any:
    """A value per channel in the shape of another one: TF1's variables may keep the rank of inputs."""
    if value is None or len(value.shape) == len(other.shape):
        return value
    return tf.reshape(value, tf.shape(other))


@contextmanager
def listening(accumulators: Iterable[MomentAccumulator]) -> Iterator[None]:
    """Calls meanwhile tell whether they use the batch's statistics, in `in_training`."""
    accumulators = list(accumulators)
    for accumulator in accumulators:
        accumulator.listening, accumulator.in_training = True, []
    try:
        yield
    finally:
        for accumulator in accumulators:
            accumulator.listening = False


@contextmanager
def standing_in(model: keras.Model, accumulators: Mapping[str, MomentAccumulator]) -> Iterator[None]:
    """Each accumulator in its layer's place, on the instance; at the end all is as it was."""
    calls = {accumulator.layer: accumulator.call for accumulator in accumulators.values()}
    replaced = calls | _cells_without_their_first_call(model, accumulators)
    # Some have such an attribute already: `convert(model, in_place=True)` sets it.
    before = {layer: vars(layer)["call"] for layer in replaced if "call" in vars(layer)}
    try:
        for layer, call in replaced.items():
            layer.__dict__["call"] = call
        yield
    finally:
        for layer in replaced:
            layer.__dict__.pop("call", None)
            if layer in before:
                layer.__dict__["call"] = before[layer]


def _cells_without_their_first_call(
    model: keras.Model, accumulators: Mapping[str, MomentAccumulator]
) -> dict[keras.layers.Layer, Any]:
    """A `call` for each RNN that is a loop, and for its cell if there are batch norms in it.

    Keras calls a cell once to learn the structure of its outputs, which it throws away, and then once
    for each step of time.
    """
    replaced: dict[keras.layers.Layer, Any] = {}
    cells: dict[keras.layers.Layer, _FirstCallDiscarded] = {}
    for rnn in layer_paths(model).values():
        if not isinstance(rnn, keras.layers.RNN) or rnn.unroll or not isinstance(rnn.cell, keras.Layer):
            continue
        inside = {id(layer) for layer in layer_paths(rnn.cell).values()}
        measured = [each for each in accumulators.values() if id(each.layer) in inside]
        if measured:
            cell = cells.setdefault(rnn.cell, _FirstCallDiscarded(rnn.cell, measured))
            replaced |= {rnn: partial(cell.sequence, rnn.call), rnn.cell: cell.step}
    return replaced


class _FirstCallDiscarded:
    """The calls that stand in for a cell's and its RNNs': nothing counts before the second step.

    Before the first one Keras may call the cells of a stack, to shape their dropout.
    """

    def __init__(self, cell: keras.layers.Layer, measured: list[MomentAccumulator]) -> None:
        self._step, self._measured = cell.call, measured
        self._outside: list[bool] = []  # whether they were paused when the sequence began
        self._discards = False

    def sequence(self, call: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        self._outside = [accumulator.paused for accumulator in self._measured]
        self._discards = True
        self._pause([True] * len(self._measured))
        try:
            return call(*args, **kwargs)
        finally:
            self._pause(self._outside)

    def step(self, *args: Any, **kwargs: Any) -> Any:
        outputs = self._step(*args, **kwargs)
        if self._discards:
            self._discards = False
            self._pause(self._outside)
        return outputs

    def _pause(self, paused: list[bool]) -> None:
        for accumulator, value in zip(self._measured, paused, strict=True):
            accumulator.paused = value
