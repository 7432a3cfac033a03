"""What a model with a `call` of its own is called with: the inputs it declares, or was built on."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import keras

from .batch_norms import layer_paths
from .declared_graph import (
    as_functional,
    called_again,
    declares_inputs,
    given_name,
    has_readable_graph,
    inputs_like,
)
from .recording import CannotOpenError

# How to say what no model tells of itself.
REMEDY = "; call it on keras.Input as you use it, and fold keras.Model(inputs, model(inputs))"


def inputs_of(model: keras.Model, free: bool) -> Any:
    """New symbolic inputs in the structure that the model is called with.

    Those that it does not declare are of its `input_dtype`, and of the shapes that it was built on.

    Args:
        free: whether sizes between the first and the last axis are left open.

    Raises:
        CannotOpenError: it may be called with more than that, or was not built on tensors.
    """
    if others := _other_arguments(model):
        raise CannotOpenError(f"its call() takes {', '.join(others)}, too{REMEDY}")
    if declares_inputs(model):
        return inputs_like(model)

    def make(shape: Any, name: str | None) -> keras.KerasTensor:
        sizes = [None if free else size for size in shape[1:-1]]
        batch_shape = (None, *sizes, *shape[1:][-1:])
        return keras.Input(batch_shape=batch_shape, dtype=model.input_dtype, name=name)

    shapes = (model.get_build_config() or {}).get("input_shape")
    if not shapes:
        raise CannotOpenError(f"it does not say what it was built on{REMEDY}")
    return _of_shapes(shapes, make)


def _of_shapes(shapes: Any, make: Callable[[Any, str | None], Any], name: str | None = None) -> Any:
    """The structure of shapes with what `make` returns for each, and its key in a dictionary."""
    if isinstance(shapes, dict):
        return {key: _of_shapes(shape, make, key) for key, shape in shapes.items()}
    if all(size is None or isinstance(size, int) for size in shapes):
        return make(shapes, name)
    return [_of_shapes(shape, make) for shape in shapes]


def _other_arguments(model: keras.Model) -> list[str]:
    """The arguments of a model's call besides the first that may be tensors."""
    parameters = list(inspect.signature(model.call).parameters.values())[1:]
    return [
        parameter.name
        for parameter in parameters
        if parameter.name not in ("training", "mask")
        and parameter.kind in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY)
        and parameter.default in (None, parameter.empty)
    ]


def has_embedding(model: keras.Model) -> bool:
    return any(isinstance(layer, keras.layers.Embedding) for layer in layer_paths(model).values())


def with_indices(inputs: Any, inside: keras.Model, free: bool) -> Any:
    """The inputs, of which those that an Embedding takes in a model's inside are integers of free sizes.

    Float16 has no room for more than 2048 indices, and the last size is a length there, no channels.
    """
    looked_up = _looked_up(inside) if has_embedding(inside) else set()

    def index(tensor: keras.KerasTensor) -> keras.KerasTensor:
        shape = (None,) * len(tensor.shape) if free else tensor.shape
        return keras.Input(batch_shape=shape, dtype="int32", name=given_name(tensor))

    flat = keras.tree.flatten(inputs)
    flat = [index(tensor) if number in looked_up else tensor for number, tensor in enumerate(flat)]
    return keras.tree.pack_sequence_as(inputs, flat)


def _looked_up(model: keras.Model) -> set[int]:
    """The inputs of a model with a readable graph, by number, that an Embedding takes."""
    inputs = inputs_like(model)
    numbers = {id(tensor): number for number, tensor in enumerate(keras.tree.flatten(inputs))}
    found: set[int] = set()

    def call(layer: Any, *args: Any, **kwargs: Any) -> Any:
        given = keras.tree.flatten((args, kwargs))
        if isinstance(layer, keras.layers.Embedding):
            indices = {0}
        else:
            opened = has_readable_graph(layer) and has_embedding(layer)
            indices = _looked_up(layer) if opened else set()
        found.update(numbers[id(given[index])] for index in indices if id(given[index]) in numbers)
        return layer(*args, **kwargs)

    called_again(as_functional(model), inputs, call)
    return found
