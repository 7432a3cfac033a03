"""Look inside custom layers and subclassed models: what their `call` does becomes part of the graph.

Keras records every call of a layer or operation on a symbolic tensor. So `call` of a custom layer, run
on `keras.Input`, makes a Functional model over the same layers: the layer's inside. `opened` puts such a
model, under the layer's name, in the place of every layer that has a batch norm inside, checked on
random inputs to compute the same to the last bit.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import keras

from .batch_norms import AnyBatchNorm, batch_norms, layer_paths, sublayers
from .cloning import as_functional, goes_by_steps, has_readable_graph, input_like
from .recording import (
    CannotOpenError,
    check_openable,
    check_same,
    description,
    filled,
    inside_of,
    of_free_size,
    record,
    tensors_of,
)


class _CalledOtherwiseError(Exception):
    """A layer whose inside is shown is called in another way, too."""


@contextmanager
def opened(model: keras.Model) -> Iterator[tuple[keras.Model, dict[int, str]]]:
    """The model with the inside of its opaque layers in place of those that have a batch norm in them.

    Within the context, layers that share a name inside an opaque one are renamed.

    Args:
        model: built. It is not changed; the result consists of its own layers.

    Yields:
        A model with a readable graph, `model` itself if nothing in it was opened; and why layers that
        have a batch norm inside stay as they are, by `id`.

    Raises:
        CannotOpenError: the model itself is subclassed, and cannot be opened.
    """
    opener = _Opener()
    with _named_as_their_paths(model):
        yield opener.show(model), opener.closed


@contextmanager
def _named_as_their_paths(model: keras.Model) -> Iterator[None]:
    """Layers with one name in one layer, which a graph cannot hold, have the ends of their paths."""
    before = []
    for path, layer in layer_paths(model).items():
        name = path.rpartition("/")[2]
        if layer.name != name and "/" not in layer.name:
            before.append((layer, layer.name))
            layer.name = name
    try:
        yield
    finally:
        for layer, name in before:
            layer.name = name


def is_opaque(layer: Any) -> bool:
    """Whether the inside of a layer does not show, and has a batch norm in it."""
    return (
        isinstance(layer, keras.layers.Layer)
        and not isinstance(layer, AnyBatchNorm)
        and not has_readable_graph(layer)
        and not goes_by_steps(layer)
        and bool(sublayers(layer))
        and bool(batch_norms(layer, inside=False))
    )


class _Opener:
    """Opens layers, each once for each kind of call.

    Attributes:
        closed: why layers could not be opened, by `id`.
        of_free_sizes: layers, by `id`, that are called on several sizes, and opened once for all.
    """

    def __init__(self) -> None:
        self.closed: dict[int, str] = {}
        self.of_free_sizes: set[int] = set()
        self._expanded: dict[int, tuple[keras.Model, keras.Model]] = {}  # before and after, by `id`
        self._insides: dict[tuple[int, str], keras.Model] = {}

    def show(self, model: keras.Model) -> keras.Model:
        while True:
            try:
                return self.expand(model) if has_readable_graph(model) else self.subclassed(model)
            except _CalledOtherwiseError:  # it is opened in another way from the start
                self._expanded.clear()
                self._insides.clear()

    def expand(self, model: keras.Model) -> keras.Model:
        """A model with a readable graph, with the inside of opaque layers in their place."""
        if id(model) not in self._expanded:
            self._expanded[id(model)] = model, self._expand(model)
        return self._expanded[id(model)][1]

    def _expand(self, model: keras.Model) -> keras.Model:
        if not any(map(is_opaque, _layers_of_graph(model))):
            return model
        functional = as_functional(model)
        return keras.models.clone_model(
            functional,
            input_tensors=keras.tree.map_structure(
                lambda tensor: input_like(functional, tensor), functional.input
            ),
            clone_function=lambda layer: layer,
            call_function=self._call,
        )

    def _call(self, layer: Any, *args: Any, **kwargs: Any) -> Any:
        """Call a layer, or what shows its inside, on symbolic tensors."""
        if has_readable_graph(layer):
            return self.expand(layer)(*args, **kwargs)
        if not is_opaque(layer) or id(layer) in self.closed:
            return layer(*args, **kwargs)
        try:
            inside = self._inside(layer, args, kwargs)
        except CannotOpenError as reason:
            self.closed[id(layer)] = str(reason)
            return layer(*args, **kwargs)
        tensors = tensors_of((args, kwargs))
        return inside(tensors if len(tensors) > 1 else tensors[0])

    def subclassed(self, model: keras.Model) -> keras.Model:
        """The inside of a model that declares no inputs: of free sizes, or those it was built with."""
        if others := _other_arguments(model):
            raise CannotOpenError(f"its call() takes {', '.join(others)}, too")
        shape: Any = (model.get_build_config() or {}).get("input_shape")
        single = isinstance(shape, (list, tuple)) and all(
            size is None or isinstance(size, int) for size in shape
        )
        if not single or len(shape) < 2:
            raise CannotOpenError("it was not built on one tensor with channels")
        built = tuple(shape[1:-1])
        for sizes in ((None,) * len(built), built):
            tensor = keras.Input(batch_shape=(None, *sizes, shape[-1]), dtype=model.input_dtype)
            try:
                inside = self._inside(model, (tensor,), {})
                if None not in built:  # what the model was built with is what it is used with
                    check_same(model, inside, (keras.KerasTensor((None, *shape[1:]), tensor.dtype),), {})
                return inside
            except CannotOpenError as error:
                reason = error
                self._insides.clear()
                self.closed.clear()  # what does not open for free sizes may for these
        raise reason

    def _inside(self, layer: keras.layers.Layer, args: Any, kwargs: Mapping[str, Any]) -> keras.Model:
        """A Functional model that computes what one call of an opaque layer does, of the layer's layers.

        Its inputs are the tensors among the call's arguments, in order.

        Raises:
            CannotOpenError: it does not run on symbolic tensors, or computes something else.
        """
        if id(layer) in self.of_free_sizes:
            free = [of_free_size(tensor) for tensor in tensors_of((args, kwargs))]
            args, kwargs = filled((args, dict(kwargs)), free)
        described = keras.tree.map_structure(description, (args, dict(kwargs)))
        key = id(layer), repr(described)
        if key not in self._insides:
            if any(known == id(layer) for known, _ in self._insides):
                self._call_otherwise(layer)
            check_openable(layer, args, kwargs)
            inside = self.expand(record(layer, args, kwargs))
            check_same(layer, inside, args, kwargs)
            self._insides[key] = inside
        return self._insides[key]

    def _call_otherwise(self, layer: keras.layers.Layer) -> None:
        """Have a layer opened for all sizes or, if it is so already, not at all."""
        if id(layer) in self.of_free_sizes:
            self.closed[id(layer)] = (
                f"{inside_of(layer)}is called in several ways; give each its own layer"
            )
        self.of_free_sizes.add(id(layer))
        raise _CalledOtherwiseError


def _other_arguments(model: keras.Model) -> list[str]:
    """The arguments of a subclassed model's call besides the first that may be tensors."""
    parameters = list(inspect.signature(model.call).parameters.values())[1:]
    return [
        parameter.name
        for parameter in parameters
        if parameter.name not in ("training", "mask")
        and parameter.kind in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY)
        and parameter.default in (None, parameter.empty)
    ]


def _layers_of_graph(model: keras.Model) -> list[Any]:
    """The layers that a model with a readable graph calls, also in such models inside it."""
    found = []
    for layer in model.layers:
        found += _layers_of_graph(layer) if has_readable_graph(layer) else [layer]
    return found
