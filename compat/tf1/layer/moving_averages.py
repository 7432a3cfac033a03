"""`tf.train.ExponentialMovingAverage` in TF1-style code inside a Keras layer.

TensorFlow's own refuses tensors where it could execute eagerly, and waits for other replicas. While a
layer is traced, its methods find what they keep among the layer's weights, under TensorFlow 1's names.
"""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import tensorflow as tf

from .variable_store import VariableStore

tf1 = tf.compat.v1
AVERAGES = "tfbn/moving_averages"  # the collection of a traced graph that holds its MovingAverages
CLASS = tf.train.ExponentialMovingAverage
METHODS = ("apply", "average", "average_name", "variables_to_restore")
FLOATS = (tf.bfloat16, tf.float16, tf.float32, tf.float64)


class MovingAverages:
    """The averages of one trace.

    Its methods are those of `tf.train.ExponentialMovingAverage`, given one, whose arguments are known by
    private names alone.

    Args:
        store: where the code's variables are found or made.
        is_training: whether the code is traced for training, and applies what it keeps.
        known: of all traces, the averages' names by what they would be outside of scopes.
    """

    def __init__(self, store: VariableStore, is_training: bool, known: dict[str, list[str]]) -> None:
        self._store, self._is_training, self._known = store, is_training, known
        self._kept: dict[tuple[Any, Any], tf.Variable] = {}

    def apply(self, ema: Any, var_list: Iterable[Any] | None = None) -> tf.Operation:
        """An operation that takes all averages one step further, made where they are new."""
        values = tf1.trainable_variables() if var_list is None else list(var_list)
        debiased = set()
        for value in values:
            if not (isinstance(value, tf.Variable) or tf.is_symbolic_tensor(value)):
                raise TypeError(
                    f"{ema.name}.apply in {self._store.layer.name!r} averages variables and tensors of "
                    f"its code, received {value!r}. Use tf.convert_to_tensor in the code."
                )
            if value.dtype.base_dtype not in FLOATS:
                raise TypeError(f"The variables must be half, float, or double: {value.name}")
            if (ema, value.ref()) not in self._kept:
                self._make(ema, value)
                if ema._zero_debias and self._variable(value) is None:  # a variable's starts as it does
                    debiased.add(value.ref())
        with tf1.name_scope(ema.name) as scope:
            decay = tf.convert_to_tensor(ema._decay, tf.float32, name="decay")
            if ema._num_updates is not None:
                number = tf.cast(ema._num_updates, tf.float32, name="num_updates")
                decay = tf.minimum(decay, (1.0 + number) / (10.0 + number))
            steps = [
                self._step(self._kept[ema, value.ref()], value, decay, value.ref() in debiased)
                for value in values
            ]
            return tf.group(*steps, name=scope)

    def average(self, ema: Any, var: Any) -> Any:
        """The average, in the type of `var`; `None` where none is kept.

        At inference the code may leave out `apply`, and finds what it kept in training.
        """
        found = self._kept.get((ema, var.ref()))
        if found is None and not self._is_training:
            names = self._known.get(self._name(ema, var), [])
            name = next((each for each in names if each not in self._store.given), None)
            if name is not None:
                found = self._keep(ema, var, self._store.give(name))
        if found is None or found.dtype == var.dtype.base_dtype:
            return found
        return tf.cast(found, var.dtype.base_dtype)  # kept with more digits, in mixed precision

    def average_name(self, ema: Any, var: Any) -> str:
        """The name of the average, or the one that it would have outside of scopes."""
        found = self._kept.get((ema, var.ref()))
        if found is None:
            return tf1.get_default_graph().unique_name(self._name(ema, var), mark_as_used=False)
        return self._store.name_of(found)

    def variables_to_restore(self, ema: Any, moving_avg_variables: Any = None) -> dict[str, Any]:
        """The variables by their averages' names, or their own; TensorFlow's needs them hashable."""
        averaged = moving_avg_variables
        if averaged is None:
            averaged = [*tf1.trainable_variables(), *tf1.moving_average_variables()]
        names = {variable.name for variable in averaged}
        others = (variable for variable in tf1.global_variables() if variable.name not in names)
        by_name = {self._store.name_of(variable): variable for variable in others}
        return by_name | {self.average_name(ema, variable): variable for variable in averaged}

    def _variable(self, value: Any) -> tf.Variable | None:
        """The variable that code means by it: in mixed precision it has weights as cast tensors."""
        value = self._store.casts.get(value.ref(), value)
        return value if isinstance(value, tf.Variable) else None

    def _name(self, ema: Any, value: Any) -> str:
        variable = self._variable(value)
        return f"{value.op.name if variable is None else self._store.name_of(variable)}/{ema.name}"

    def _make(self, ema: Any, value: Any) -> None:
        """Find or make the average as TensorFlow's slots: in the current scope, below the whole name."""
        variable, initializer = self._variable(value), tf1.zeros_initializer()
        if variable is not None:
            initializer = self._store.initializer_from(variable)
        with tf1.variable_scope(None, self._name(ema, value)) as scope:
            scope.set_partitioner(None)
            shape, dtype = value.shape, value.dtype.base_dtype
            average = tf1.get_variable("", shape, dtype, initializer=initializer, trainable=False)
        names = self._known.setdefault(self._name(ema, value), [])
        names.extend({self._store.name_of(average)} - set(names))
        self._keep(ema, value, average)

    def _keep(self, ema: Any, value: Any, average: tf.Variable) -> tf.Variable:
        variable = self._variable(value)
        if variable is not None:  # TensorFlow puts no tensors there, and what is averaged, not averages
            tf1.add_to_collection(tf1.GraphKeys.MOVING_AVERAGE_VARIABLES, variable)
        self._kept[ema, value.ref()] = average
        return average

    def _step(self, average: Any, value: Any, decay: tf.Tensor, debiased: bool) -> Any:
        """An operation that takes one average a step further, without its bias towards 0 if wanted.

        `biased / (1 − decay^steps)` (Adam's correction, arXiv 1412.6980).
        """
        dtype = average.dtype
        with tf1.name_scope("AssignMovingAvg"):
            rate = tf.cast(tf.convert_to_tensor(1.0 - decay, name="decay"), dtype)
            value = tf.cast(value, dtype)
            if not debiased:
                return tf1.assign_sub(average, (average - value) * rate)
            arguments = {"dtype": dtype, "initializer": tf1.zeros_initializer(), "trainable": False}
            with tf1.variable_scope(self._store.name_of(average)):
                biased = tf1.get_variable("biased", average.shape, **arguments)
                local_step = tf1.get_variable("local_step", [], **arguments)
            new, steps = biased - (biased - value) * rate, local_step + tf.ones([], dtype)
            with tf.control_dependencies([tf1.assign(biased, new), tf1.assign(local_step, steps)]):
                return tf1.assign(average, new / (1 - tf.pow(1 - rate, steps)))


@contextmanager
def averages_as_weights(
    store: VariableStore, is_training: bool, known: dict[str, list[str]]
) -> Iterator[None]:
    """In the block, in the graph that is now the default one, see `MovingAverages`."""
    tf1.add_to_collection(AVERAGES, MovingAverages(store, is_training, known))
    with _PATCH:
        yield


class _Patch:
    """TensorFlow's class with our methods while any thread traces a layer; other graphs keep its own."""

    def __init__(self) -> None:
        self._lock, self._traces = threading.Lock(), 0
        self._originals: dict[str, Callable[..., Any]] = {}

    def __enter__(self) -> None:
        with self._lock:
            self._traces += 1
            if self._traces == 1:
                self._originals = {name: getattr(CLASS, name) for name in METHODS}
                for name, original in self._originals.items():
                    setattr(CLASS, name, _in_layers(original, getattr(MovingAverages, name)))

    def __exit__(self, *_: Any) -> None:
        with self._lock:
            self._traces -= 1
            if self._traces == 0:
                for name, original in self._originals.items():
                    setattr(CLASS, name, original)


def _in_layers(original: Callable[..., Any], own: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(original)
    def method(self: Any, *args: Any, **kwargs: Any) -> Any:
        traced = next(iter(tf1.get_collection(AVERAGES)), None)
        return original(self, *args, **kwargs) if traced is None else own(traced, self, *args, **kwargs)

    return method


_PATCH = _Patch()
