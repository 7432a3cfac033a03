"""What a Keras model declares: its inputs, and a graph, which is all that it computes, or is not."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import cache
from typing import Any

import keras

# How Keras names an input without a name, before and after saving. The number depends on what else the
# process has made, so no client should rely on it.
AUTOMATIC_NAME = re.compile(r"(keras_tensor|input_layer)(_\d+)?")


def has_readable_graph(model: object) -> bool:
    """Whether `model` is a Sequential or Functional model that computes exactly the graph it declares.

    A model with a `call` of its own may compute anything, even one made from inputs and outputs.
    """
    if not isinstance(model, keras.Model) or not model.built:
        return False
    base = keras.Sequential if isinstance(model, keras.Sequential) else functional_class()
    return declares_inputs(model) and type(model).call is base.call


def declares_inputs(model: keras.Model) -> bool:
    """Whether a model is Sequential or Functional, or of a subclass made from inputs and outputs."""
    if not isinstance(model, keras.Sequential):
        return isinstance(model, functional_class())
    try:
        return bool(model.inputs)
    except (AttributeError, ValueError):  # no inputs are declared; Keras' versions raise either
        return False


def goes_by_steps(layer: object) -> bool:
    """Whether a layer is TimeDistributed, or a subclass that declares that it computes the same."""
    own = type(layer) is keras.layers.TimeDistributed
    return own or getattr(layer, "applies_its_layer_to_each_step", False)


@cache
def functional_class() -> type[keras.Model]:
    """The class behind `keras.Model(inputs, outputs)`, which has no public name."""
    x = keras.Input((1,), name="tfbn_probe")
    # With a layer, because Keras 3.10 to 3.14 refuse a model whose output is its input.
    return type(keras.Model(x, keras.layers.Identity()(x), name="tfbn_probe"))


def operation_class(x: keras.KerasTensor, result: Any) -> type:
    """The class of the Keras operation that made a result of `x`, which has no public name."""
    return type(keras.Model(x, result, name="tfbn_probe").operations[-1])


def declared_inputs(model: keras.Model) -> Any:
    """The symbolic inputs of a model with a readable graph, in the structure that it is called with."""
    return model.inputs[0] if isinstance(model, keras.Sequential) else model.input


def as_functional(model: keras.Model) -> keras.Model:
    """The same graph over the same layers as a Functional model, without losses and optimizer."""
    outputs = model.outputs if isinstance(model, keras.Sequential) else model.output
    return keras.Model(declared_inputs(model), outputs, name=model.name)


def called_again(model: keras.Model, inputs: Any, call: Callable[..., Any]) -> keras.Model:
    """A Functional model's graph on other inputs, over its own layers: `call(layer, …)` calls each."""
    return keras.models.clone_model(
        model, input_tensors=inputs, clone_function=lambda layer: layer, call_function=call
    )


def inputs_like(model: keras.Model) -> Any:
    """New symbolic inputs like those of a model, in their structure."""
    return keras.tree.map_structure(lambda tensor: input_like(model, tensor), declared_inputs(model))


def given_name(tensor: keras.KerasTensor) -> str | None:
    """The name that an input was given; `None` if Keras made it one."""
    return None if AUTOMATIC_NAME.fullmatch(tensor.name) else tensor.name


def optional_inputs(model: keras.Model) -> set[int]:
    """The inputs of a model that may be left out, by `id`."""
    inputs = (layer for layer in model.layers if isinstance(layer, keras.layers.InputLayer))
    return {id(layer.output) for layer in inputs if layer.optional}


def input_like(
    model: keras.Model, tensor: keras.KerasTensor, shape: tuple[int | None, ...] | None = None
) -> keras.KerasTensor:
    """A new symbolic input like one of the model's (name, type, sparse, optional), perhaps reshaped."""
    shape = tensor.shape if shape is None else shape
    for layer in model.layers:
        if isinstance(layer, keras.layers.InputLayer) and layer.output is tensor:
            # Before Keras 3.13 the configuration does not say that an input is optional.
            changed = {"batch_shape": shape, "optional": layer.optional}
            return type(layer).from_config(layer.get_config() | changed).output
    return keras.Input(batch_shape=shape, dtype=tensor.dtype, sparse=tensor.sparse, name=tensor.name)
