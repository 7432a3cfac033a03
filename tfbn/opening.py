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
import numpy as np

from .batch_norms import AnyBatchNorm, batch_norms, layer_paths, sublayers
from .cloning import as_functional, goes_by_steps, has_readable_graph, input_like
from .messages import one_line

BATCH, SIZE = 2, 16  # of random inputs: samples, and where a size is unknown

REMEDY = "; call Keras layers and keras.ops in its call(), or build it as a Functional model"


class CannotOpenError(Exception):
    """The inside of a layer cannot be shown, for the reason given."""


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
        shown = opener.expand(model) if has_readable_graph(model) else opener.subclassed(model)
        yield shown, opener.closed


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
        and bool(batch_norms(layer, inside=False))
    )


class _Opener:
    """Opens layers, each once for each kind of call.

    Attributes:
        closed: why layers could not be opened, by `id`.
    """

    def __init__(self) -> None:
        self.closed: dict[int, str] = {}
        self._expanded: dict[int, tuple[keras.Model, keras.Model]] = {}  # before and after, by `id`
        self._insides: dict[tuple[int, str], keras.Model] = {}

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
        tensors = _tensors((args, kwargs))
        return inside(tensors if len(tensors) > 1 else tensors[0])

    def subclassed(self, model: keras.Model) -> keras.Model:
        """The inside of a model that declares no inputs: of free sizes, or those it was built with."""
        shape: Any = (model.get_build_config() or {}).get("input_shape")
        single = isinstance(shape, (list, tuple)) and all(
            size is None or isinstance(size, int) for size in shape
        )
        if not single or len(shape) < 2:
            raise CannotOpenError("it was not built on one tensor with channels")
        for sizes in ((None,) * (len(shape) - 2), tuple(shape[1:-1])):
            tensor = keras.Input(batch_shape=(None, *sizes, shape[-1]), dtype=model.input_dtype)
            try:
                return self._inside(model, (tensor,), {})
            except CannotOpenError as error:
                reason = error
        raise reason

    def _inside(self, layer: keras.layers.Layer, args: Any, kwargs: Mapping[str, Any]) -> keras.Model:
        """A Functional model that computes what one call of an opaque layer does, of the layer's layers.

        Its inputs are the tensors among the call's arguments, in order.

        Raises:
            CannotOpenError: it does not run on symbolic tensors, or computes something else.
        """
        described = keras.tree.map_structure(_description, (args, dict(kwargs)))
        key = id(layer), repr(described)
        if key not in self._insides:
            _check_openable(layer, args, kwargs)
            number = sum(known == id(layer) for known, _ in self._insides)
            name = layer.name + (f"_{number}" if number else "")
            inside = self.expand(_trace(layer, args, kwargs, name))
            _check_same(layer, inside, args, kwargs)
            self._insides[key] = inside
        return self._insides[key]


def _layers_of_graph(model: keras.Model) -> list[Any]:
    """The layers that a model with a readable graph calls, also in such models inside it."""
    found = []
    for layer in model.layers:
        found += _layers_of_graph(layer) if has_readable_graph(layer) else [layer]
    return found


def _tensors(structure: Any) -> list[Any]:
    return [leaf for leaf in keras.tree.flatten(structure) if isinstance(leaf, keras.KerasTensor)]


def _description(leaf: Any) -> Any:
    return (tuple(leaf.shape), leaf.dtype) if isinstance(leaf, keras.KerasTensor) else leaf


def _filled(structure: Any, values: list[Any]) -> Any:
    """The structure with its tensors replaced by `values`, in order."""
    waiting = iter(values)
    return keras.tree.map_structure(
        lambda leaf: next(waiting) if isinstance(leaf, keras.KerasTensor) else leaf, structure
    )


def _at_inference(layer: keras.layers.Layer, kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """The named arguments of a call, with `training=False` where the call takes it and is not told."""
    told = kwargs.get("training") is not None
    if told or "training" not in inspect.signature(layer.call).parameters:
        return dict(kwargs)
    return {**kwargs, "training": False}


def _check_openable(layer: keras.layers.Layer, args: Any, kwargs: Mapping[str, Any]) -> None:
    who = f"it is inside {layer.name!r} ({type(layer).__name__}), which "
    inside = {id(weight) for part in sublayers(layer) for weight in part.weights}
    if any(id(weight) not in inside for weight in layer.weights):
        raise CannotOpenError(f"{who}has weights of its own; put them in a layer of their own")
    # Keras' guide to masking names this attribute; there is no function for it.
    if any(getattr(tensor, "_keras_mask", None) is not None for tensor in _tensors((args, kwargs))):
        raise CannotOpenError(f"{who}is given a mask; call its layers in the model itself")


def _trace(
    layer: keras.layers.Layer,
    args: Any,
    kwargs: Mapping[str, Any],
    name: str,
) -> keras.Model:
    inputs = [
        keras.Input(batch_shape=tensor.shape, dtype=tensor.dtype) for tensor in _tensors((args, kwargs))
    ]
    cast = [_cast(layer, tensor) for tensor in inputs]
    args, kwargs = _filled((args, dict(kwargs)), cast)
    try:
        with keras.StatelessScope():  # what it assigns is not kept
            outputs = layer.call(*args, **_at_inference(layer, kwargs))
        return keras.Model(inputs if len(inputs) > 1 else inputs[0], outputs, name=name)
    except Exception as error:  # the call is anybody's
        raise CannotOpenError(
            f"it is inside {layer.name!r} ({type(layer).__name__}), which does not run on symbolic "
            f"tensors{REMEDY}. It says: {one_line(error)}"
        ) from error


def _cast(layer: keras.layers.Layer, tensor: Any) -> Any:
    """What `call` is given where the layer is given this tensor."""
    floating = keras.backend.is_float_dtype(tensor.dtype)
    if floating and layer.autocast and tensor.dtype != layer.input_dtype:
        return keras.ops.cast(tensor, layer.input_dtype)
    return tensor


def _check_same(
    layer: keras.layers.Layer, inside: keras.Model, args: Any, kwargs: Mapping[str, Any]
) -> None:
    """Refuse an inside that computes anything else than the layer does, or leaves an assignment out.

    A layer that random inputs do not fit is refused, too, for nothing shows that they are the same.
    """
    random = np.random.default_rng(0)
    drawn = [_draw(tensor, random) for tensor in _tensors((args, kwargs))]
    args, kwargs = _filled((args, dict(kwargs)), drawn)
    who = f"it is inside {layer.name!r} ({type(layer).__name__}), which "
    try:
        with keras.StatelessScope() as scope:
            expected = layer(*args, **_at_inference(layer, kwargs))
    except Exception as error:  # such sizes may not fit, or TensorFlow have no kernel here
        shapes = ", ".join(str(array.shape) for array in drawn)
        raise CannotOpenError(
            f"{who}does not run on random inputs of shape {shapes}, on which it would be compared with "
            f"what keras.Input shows; give the model inputs of fixed sizes. It says: {one_line(error)}"
        ) from error
    if scope.state_mapping:
        raise CannotOpenError(f"{who}changes variables at inference")
    found = inside(drawn if len(drawn) > 1 else drawn[0], training=False)
    keras.tree.assert_same_structure(found, expected)
    for ours, theirs in zip(keras.tree.flatten(found), keras.tree.flatten(expected), strict=True):
        if not np.array_equal(np.asarray(ours), np.asarray(theirs), equal_nan=True):
            raise CannotOpenError(f"{who}computes something else on symbolic tensors{REMEDY}")


def _draw(tensor: Any, random: np.random.Generator) -> np.ndarray:
    shape = [BATCH if not axis else size or SIZE for axis, size in enumerate(tensor.shape)]
    if keras.backend.is_float_dtype(tensor.dtype):
        return random.normal(size=shape).astype(tensor.dtype)
    return random.integers(0, 2, shape).astype(tensor.dtype)
