"""One call of a layer recorded on symbolic tensors, and compared with the layer on random inputs."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Callable, Mapping
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from .batch_norms import sublayers
from .declared_graph import given_name
from .messages import one_line
from .recordable import made_callable, specs_for_every_argument

# Of random inputs: how many samples, and how large where a size is unknown. A call that computes
# something else for certain sizes shows it on one of them.
DRAWN = ((2, 32), (3, 40))

# How often a call is recorded until none of its operations has the name of a layer.
NAMINGS = 8

REMEDY = "; call Keras layers and keras.ops in its call(), or build it as a Functional model"


class CannotOpenError(Exception):
    """The inside of a layer cannot be shown, for the reason given."""


def tensors_of(structure: Any) -> list[Any]:
    return [leaf for leaf in keras.tree.flatten(structure) if isinstance(leaf, keras.KerasTensor)]


def description(leaf: Any) -> Any:
    """What tells arguments of calls apart by its `repr`; that of an array leaves numbers out."""
    if isinstance(leaf, keras.KerasTensor):
        return tuple(leaf.shape), leaf.dtype
    if isinstance(leaf, np.ndarray | tf.Tensor):
        return tf.io.serialize_tensor(leaf).numpy()
    return id(leaf) if isinstance(leaf, keras.Variable) else leaf


def of_free_size(tensor: Any) -> keras.KerasTensor:
    shape = tensor.shape
    free = (*[None] * (len(shape) - 1), shape[-1]) if len(shape) > 2 else shape
    return keras.KerasTensor(free, tensor.dtype)


def filled(structure: Any, values: list[Any]) -> Any:
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


def check_openable(layer: keras.layers.Layer, args: Any, kwargs: Mapping[str, Any]) -> None:
    """Refuse a call of which a record would leave something out.

    Raises:
        CannotOpenError: weights that it would not have, or a call as in training.
    """
    who = inside_of(layer)
    inside = {id(weight) for part in sublayers(layer) for weight in part.weights}
    if any(id(weight) not in inside for weight in layer.weights):
        raise CannotOpenError(f"{who}has weights of its own; put them in a layer of their own")
    if any(isinstance(value, tf.Variable) for value in vars(layer).values()):
        raise CannotOpenError(f"{who}holds a tf.Variable; make it by add_weight in a layer of its own")
    if kwargs.get("training"):
        raise CannotOpenError(f"{who}is called with training=True; call it without")


def record(layer: keras.layers.Layer, args: Any, kwargs: Mapping[str, Any]) -> keras.Model:
    """A Functional model of what a call does at inference; its inputs are the call's tensors in order.

    Raises:
        CannotOpenError: the call does not run on symbolic tensors.
    """
    inputs = _inputs_like(tensors_of((args, kwargs)), taken=_names_inside(layer))
    cast = [_cast(layer, tensor) for tensor in inputs]
    args, kwargs = filled((args, dict(kwargs)), cast)

    def recorded() -> keras.Model:
        with keras.StatelessScope(), specs_for_every_argument(layer):  # what it assigns is not kept
            outputs = layer.call(*args, **_at_inference(layer, kwargs))
        model = keras.Model(inputs if len(inputs) > 1 else inputs[0], outputs, name=layer.name)
        return made_callable(model)

    try:
        return _with_other_names(recorded)
    except Exception as error:  # the call is anybody's
        raise CannotOpenError(
            f"{inside_of(layer)}does not run on symbolic tensors{REMEDY}. It says: {one_line(error)}"
        ) from error


def _with_other_names(recorded: Callable[[], keras.Model]) -> keras.Model:
    """What a function returns; tried again where Keras named an operation as a layer is named.

    It numbers operations of one kind all through the process, so that each try has other names.
    """
    for _ in range(NAMINGS - 1):
        try:
            return recorded()
        except ValueError as error:
            if "names should be unique" not in str(error):
                raise
    return recorded()


def _names_inside(layer: keras.layers.Layer) -> set[str | None]:
    inside = sublayers(layer)
    return {part.name for part in inside if not isinstance(part, keras.layers.InputLayer)}


def _inputs_like(tensors: list[Any], taken: set[str | None]) -> list[keras.KerasTensor]:
    inputs = []
    for tensor in tensors:
        name = given_name(tensor)
        name = None if name in taken else name  # a graph holds a name once
        inputs.append(keras.Input(batch_shape=tensor.shape, dtype=tensor.dtype, name=name))
        taken.add(name)
    return inputs


def _cast(layer: keras.layers.Layer, tensor: Any) -> Any:
    """What `call` is given where the layer is given this tensor."""
    floating = keras.backend.is_float_dtype(tensor.dtype)
    if floating and layer.autocast and tensor.dtype != layer.input_dtype:
        return keras.ops.cast(tensor, layer.input_dtype)
    return tensor


def check_same(
    layer: keras.layers.Layer, inside: keras.Model, args: Any, kwargs: Mapping[str, Any]
) -> None:
    """Refuse an inside that computes anything else than the layer does, or leaves an assignment out.

    A layer that random inputs do not fit is refused, too, for nothing shows that they are the same.
    """
    for batch, size in DRAWN:
        drawn = _Drawn(batch, size)
        values = [drawn.array(tensor) for tensor in tensors_of((args, kwargs))]
        try:
            # A Functional model hands a mask on, and warns that it does not.
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                difference = _difference(layer, inside, values, *filled((args, dict(kwargs)), values))
        except CannotOpenError:
            raise
        except Exception as error:  # such sizes may not fit, or TensorFlow have no kernel here
            shapes = ", ".join(str(tuple(value.shape)) for value in values)
            raise CannotOpenError(
                f"{inside_of(layer)}does not run on random inputs of shape {shapes}, on which it would "
                "be compared with its record; give the model inputs of fixed sizes. It says: "
                f"{one_line(error)}"
            ) from error
        if difference:
            raise CannotOpenError(f"{inside_of(layer)}{difference}{REMEDY}")


def _difference(
    layer: keras.layers.Layer, inside: keras.Model, drawn: list[tf.Tensor], args: Any, kwargs: Any
) -> str | None:
    """What a layer does that its inside does not."""
    with keras.StatelessScope() as scope:  # which keeps assignments and losses from the layer
        expected = _AtInference(lambda: layer(*args, **_at_inference(layer, kwargs)))(training=False)
        found = inside(drawn if len(drawn) > 1 else drawn[0], training=False)
    if scope.state_mapping:
        raise CannotOpenError(f"{inside_of(layer)}changes variables at inference")
    keras.tree.assert_same_structure(found, expected)
    pairs = list(zip(keras.tree.flatten(found), keras.tree.flatten(expected), strict=True))
    if not all(_equal(ours, theirs) for ours, theirs in pairs):
        masked = any(mask_of(value) is not None for value in drawn)
        return "computes something else on symbolic tensors" + (", which have no mask" if masked else "")
    if not all(_equal(mask_of(ours), mask_of(theirs)) for ours, theirs in pairs):
        return "hands on a mask that its last operation does not"
    return None


class _AtInference(keras.layers.Layer):
    """What a function returns where Keras tells every layer that it calls that this is no training.

    A layer whose `call` takes no `training` cannot tell it those inside. Keras' Resizing takes itself
    for training unless told otherwise, and then the layers after it are told so, too.
    """

    def __init__(self, function: Callable[[], Any]) -> None:
        super().__init__()
        self.function = function

    def call(self, training: bool | None = None) -> Any:
        return self.function()


def _equal(a: Any, b: Any) -> bool:
    if a is None or b is None:
        return a is b
    return np.array_equal(np.asarray(a), np.asarray(b), equal_nan=keras.backend.is_float_dtype(a.dtype))


def mask_of(tensor: Any) -> Any:
    """The mask that a tensor carries, in the attribute that Keras' guide to masking names."""
    return getattr(tensor, "_keras_mask", None)


def inside_of(layer: keras.layers.Layer) -> str:
    """How the reason begins why a batch norm inside a layer stays."""
    return f"it is inside {layer.name!r} ({type(layer).__name__}), which "


class _Drawn:
    """Random values of symbolic tensors, with random masks where these carry any."""

    def __init__(self, batch: int, size: int) -> None:
        self.batch, self.size = batch, size
        self.random = np.random.default_rng(size)
        self.arrays: dict[int, tf.Tensor] = {}  # by `id`: a mask may be an argument, too

    def array(self, tensor: keras.KerasTensor) -> tf.Tensor:
        if id(tensor) not in self.arrays:
            self.arrays[id(tensor)] = array = self._draw(tensor)
            if (mask := mask_of(tensor)) is not None:
                array._keras_mask = self.array(mask)
        return self.arrays[id(tensor)]

    def _draw(self, tensor: keras.KerasTensor) -> tf.Tensor:
        shape = [own or (self.size if axis else self.batch) for axis, own in enumerate(tensor.shape)]
        if keras.backend.is_float_dtype(tensor.dtype):
            return tf.cast(self.random.normal(size=shape), tensor.dtype)
        numbers = self.random.integers(0, 2, shape)
        return tf.as_string(numbers) if tensor.dtype == "string" else tf.cast(numbers, tensor.dtype)
