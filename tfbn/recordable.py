"""What keeps calls from being recorded, though nothing is wrong with them, and is put right."""

from __future__ import annotations

import inspect
import math
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache, partial
from typing import Any

import keras

from .batch_norms import layer_paths
from .declared_graph import called_again, inputs_like, operation_class


@contextmanager
def specs_for_every_argument(layer: keras.layers.Layer) -> Iterator[None]:
    """Layers inside whose `compute_output_spec` refuses arguments of their `call` use Keras' own.

    On symbolic tensors Keras calls only the former, with all arguments.
    """
    changed = [part for part in layer_paths(layer).values() if refused_arguments(part)]
    try:
        for part in changed:
            vars(part)["compute_output_spec"] = partial(keras.layers.Layer.compute_output_spec, part)
        yield
    finally:
        for part in changed:
            del vars(part)["compute_output_spec"]


def refused_arguments(layer: Any) -> set[str]:
    """The arguments of a layer's `call` that its class's `compute_output_spec` does not take."""
    kind = type(layer)
    if not issubclass(kind, keras.layers.Layer) or kind.__module__.partition(".")[0] == "keras":
        return set()
    taken = inspect.signature(kind.compute_output_spec).parameters
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in taken.values()):
        return set()
    return inspect.signature(kind.call).parameters.keys() - taken.keys()


def made_callable(model: keras.Model) -> keras.Model:
    """The same record of calls, but that they can be made again, on tensors of any batch size.

    * `reshape(x, (shape(x)[0], …))` is recorded with the size `None`, and runs with -1.
    * Layers are not told `training=False` whose `compute_output_spec` does not take it: the result is
      for inference.
    """
    if not any(_is_not_callable(operation) for operation in model.operations):
        return model

    def call(operation: Any, *args: Any, **kwargs: Any) -> Any:
        if type(operation) is _reshape_class() and (shape := _of_any_batch(operation, args[0])):
            return keras.ops.reshape(args[0], shape)
        if not kwargs.get("training") and "training" in refused_arguments(operation):
            kwargs.pop("training", None)
        return operation(*args, **kwargs)

    return called_again(model, inputs_like(model), call)


def _is_not_callable(operation: Any) -> bool:
    if type(operation) is _reshape_class():
        return None in operation.newshape
    return "training" in refused_arguments(operation)


@cache
def _reshape_class() -> Any:
    x = keras.Input((2, 3))
    return operation_class(x, keras.ops.reshape(x, (-1, 6)))


def _of_any_batch(operation: Any, x: keras.KerasTensor) -> tuple[int, ...] | None:
    """The shape of a reshape that is `None` samples, with -1 for them; `None` for any other."""
    samples, *sizes = operation.newshape
    own = math.prod(size for size in sizes if size not in (-1, None))
    if samples is not None or None in sizes or sizes.count(-1) > 1:
        return None
    if -1 in sizes:
        if None in x.shape[1:]:
            return None
        sizes[sizes.index(-1)] = math.prod(x.shape[1:]) // max(own, 1)
    return -1, *sizes
