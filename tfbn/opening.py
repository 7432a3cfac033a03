"""Look inside custom layers and subclassed models: what their `call` does becomes part of the graph.

Keras records every call of a layer or operation on a symbolic tensor. So `call` of a custom layer, run
on `keras.Input`, makes a Functional model over the same layers: the layer's inside. `opened` puts such a
model, under the layer's name, in the place of every layer that has a batch norm inside, checked on
random inputs to compute the same to the last bit.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import keras

from .batch_norms import AnyBatchNorm, batch_norms, layer_paths, sublayers
from .cloning import by_steps
from .declared_graph import (
    as_functional,
    called_again,
    declares_inputs,
    goes_by_steps,
    has_readable_graph,
    inputs_like,
    optional_inputs,
)
from .recording import (
    CannotOpenError,
    check_openable,
    check_same,
    description,
    filled,
    inside_of,
    mask_of,
    of_free_size,
    record,
    tensors_of,
)
from .undeclared import has_embedding, inputs_of, with_indices


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
        self._in_several_ways: dict[int, str] = {}  # what stays whole however the model is opened
        self._expanded: dict[int, tuple[keras.Model, keras.Model]] = {}  # before and after, by `id`
        self._insides: dict[tuple[int, str], keras.Model] = {}
        self._around: dict[int, keras.layers.Layer] = {}  # TimeDistributed around insides, by `id`
        self._optional: dict[int, keras.KerasTensor] = {}  # inputs that may be left out, by `id`

    def show(self, model: keras.Model) -> keras.Model:
        while True:
            try:
                return self.expand(model) if has_readable_graph(model) else self.subclassed(model)
            except _CalledOtherwiseError:  # it is opened in another way from the start
                self._start_over()

    def _start_over(self) -> None:
        """Forget what was opened and what was not, but for how layers are called."""
        self.closed = dict(self._in_several_ways)
        self._expanded, self._insides, self._around = {}, {}, {}

    def expand(self, model: keras.Model) -> keras.Model:
        """A model with a readable graph, with the inside of opaque layers in their place."""
        if id(model) not in self._expanded:
            self._expanded[id(model)] = model, self._expand(model)
        return self._expanded[id(model)][1]

    def _expand(self, model: keras.Model) -> keras.Model:
        if not any(map(is_opaque, _layers_of_graph(model))):
            return model
        functional = as_functional(model)
        inputs = inputs_like(functional)
        self._note_optional(functional, inputs)
        return called_again(functional, inputs, self._call)

    def _note_optional(self, model: keras.Model, inputs: Any) -> None:
        """Of new inputs like the model's, remember those that may be left out."""
        of_model = zip(model.inputs, keras.tree.flatten(inputs), strict=True)
        optional = optional_inputs(model)
        self._optional |= {id(new): new for own, new in of_model if id(own) in optional}

    def _call(self, layer: Any, *args: Any, **kwargs: Any) -> Any:
        """Call a layer, or what shows its inside, on symbolic tensors."""
        shown = self._shown(layer, args, kwargs)
        if not is_opaque(layer) or shown is layer:
            return shown(*args, **kwargs)
        tensors = tensors_of((args, kwargs))
        return shown(tensors if len(tensors) > 1 else tensors[0])

    def _shown(self, layer: Any, args: Any, kwargs: Any) -> Any:
        """What stands for a layer in one call: itself, or its inside, which takes the call's tensors."""
        if has_readable_graph(layer):
            return self.expand(layer)
        if goes_by_steps(layer):
            return self._by_steps(layer, tensors_of((args, kwargs)))
        if not is_opaque(layer) or id(layer) in self.closed:
            return layer
        try:
            return self._inside(layer, args, kwargs)
        except CannotOpenError as reason:
            self.closed[id(layer)] = str(reason)
            return layer

    def _by_steps(self, layer: keras.layers.TimeDistributed, tensors: list[Any]) -> keras.layers.Layer:
        """The layer around the inside of its own; as it is under a mask, which that may use."""
        if len(tensors) != 1 or mask_of(tensors[0]) is not None:
            if any(map(is_opaque, _layers_of_graph(layer))):
                why = "is given a mask; call its layers in the model itself"
                self.closed[id(layer)] = f"{inside_of(layer)}{why}"
            return layer
        shape = tensors[0].shape
        step = keras.KerasTensor((shape[0], *shape[2:]), tensors[0].dtype)
        shown = self._shown(layer.layer, (step,), {})
        if shown is layer.layer:
            return layer
        if id(layer) not in self._around:
            self._around[id(layer)] = by_steps(layer, shown)
        return self._around[id(layer)]

    def subclassed(self, model: keras.Model) -> keras.Model:
        """The inside of a model with a call of its own: of free sizes, or those it was built on."""
        for free in (False,) if declares_inputs(model) else (True, False):
            self._start_over()  # what does not open for free sizes may for these
            try:
                return self._subclassed(model, free)
            except CannotOpenError as error:
                reason = error
        raise reason

    def _subclassed(self, model: keras.Model, free: bool) -> keras.Model:
        inputs = inputs_of(model, free)
        if declares_inputs(model):
            self._note_optional(model, inputs)
        inside = self._inside(model, (inputs,), {})
        if has_embedding(model) and not declares_inputs(model):
            inputs = with_indices(inputs, inside, free)
            self._start_over()
            inside = self._inside(model, (inputs,), {})
        if free:  # what the model was built on is what it is used with
            built_on = with_indices(inputs_of(model, free=False), inside, free=False)
            check_same(model, inside, (built_on,), {})
        if isinstance(inputs, keras.KerasTensor):
            return inside
        structure = keras.tree.pack_sequence_as(inputs, inside.inputs)
        return keras.Model(structure, inside.output, name=model.name)

    def _inside(self, layer: keras.layers.Layer, args: Any, kwargs: Mapping[str, Any]) -> keras.Model:
        """A Functional model that computes what one call of an opaque layer does, of the layer's layers.

        Its inputs are the tensors among the call's arguments, in order.

        Raises:
            CannotOpenError: it does not run on symbolic tensors, or computes something else.
        """
        if any(id(tensor) in self._optional for tensor in tensors_of((args, kwargs))):
            raise CannotOpenError(f"{inside_of(layer)}is given an input that may be left out")
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
            inside.supports_masking = layer.supports_masking  # or Keras warns that it drops the mask
            self._insides[key] = inside
        return self._insides[key]

    def _call_otherwise(self, layer: keras.layers.Layer) -> None:
        """Have a layer opened for all sizes or, if it is so already, not at all."""
        if id(layer) in self.of_free_sizes:
            self._in_several_ways[id(layer)] = (
                f"{inside_of(layer)}is called in several ways; give each its own layer"
            )
        self.of_free_sizes.add(id(layer))
        raise _CalledOtherwiseError


def _layers_of_graph(model: Any) -> list[Any]:
    """The layers that a model with a readable graph calls, also in such models and steps inside it."""
    if goes_by_steps(model):
        return _layers_of_graph(model.layer)
    if not has_readable_graph(model):
        return [model]
    return [layer for inner in model.layers for layer in _layers_of_graph(inner)]
