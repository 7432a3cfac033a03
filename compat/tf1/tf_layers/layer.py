"""What the layers of `tf.layers` share: a class and a function of the same arguments for each."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import keras
import tensorflow as tf

from ..keras_tensors import check_supported, keras_activation, keras_initializer, keras_name
from ..scopes import check_owner

tf1 = tf.compat.v1
REQUIRED = inspect.Parameter.empty
# Those of all layers with weights, behind their own; `reuse` is the functions' alone.
WEIGHTS: dict[str, Any] = {
    "activation": None,
    "use_bias": True,
    "kernel_initializer": None,
    "bias_initializer": tf1.zeros_initializer(),
    "kernel_regularizer": None,
    "bias_regularizer": None,
    "activity_regularizer": None,
    "kernel_constraint": None,
    "bias_constraint": None,
    "trainable": True,
    "name": None,
}


class Layer:
    """A layer of `tf.layers`: variables in a scope that its first call makes, and later calls reuse.

    In a TF1 graph and in a `compat.VariableScopeLayer` it has TensorFlow 1's names and numbers. On a
    Keras tensor it is a Keras layer of a functional model.

    Attributes:
        parameters: the arguments, in TensorFlow 1's order, with their defaults.
        base_name: the scope's name without a `name`, made unique.
        keras_class: what it is on a Keras tensor.
        call_arguments: those of a call, behind the inputs.
        arguments: those given, and the other defaults.
    """

    parameters: ClassVar[Mapping[str, Any]] = {"name": None}
    base_name: ClassVar[str] = "layer"
    keras_class: ClassVar[type | None] = None
    call_arguments: ClassVar[tuple[str, ...]] = ()

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self._reuse = kwargs.pop("_reuse", None)
        bound = _signature(self.parameters).bind(*args, **kwargs)
        bound.apply_defaults()
        self.arguments: dict[str, Any] = bound.arguments
        self._scope: Any = None
        self._graph: Any = None
        self._keras: Any = None
        self.variables: list[Any] = []

    def __call__(self, inputs: Any, *positional: Any, **call: Any) -> Any:
        call |= dict(zip(self.call_arguments, positional, strict=False))
        if isinstance(inputs, keras.KerasTensor):
            return self.keras_layer(inputs, **call)
        check_owner(self.base_name)
        inputs = tf.convert_to_tensor(inputs)
        with self._in_scope(inputs):
            outputs = self.compute(inputs, **call)
            activation = self.arguments.get("activation")
            outputs = outputs if activation is None else activation(outputs)
            regularizer = self.arguments.get("activity_regularizer")
            if regularizer is not None:
                loss = regularizer(outputs) / tf.cast(tf.shape(outputs)[0], outputs.dtype)  # of a sample
                tf1.add_to_collection(tf1.GraphKeys.REGULARIZATION_LOSSES, loss)
            return outputs

    apply = __call__

    @property
    def trainable_variables(self) -> list[Any]:
        return [variable for variable in self.variables if variable.trainable]

    weights = property(lambda self: self.variables)
    trainable_weights = trainable_variables

    def compute(self, x: tf.Tensor) -> tf.Tensor:
        """The outputs before the activation, in the layer's variable scope."""
        raise NotImplementedError

    def keras_layer(self, inputs: keras.KerasTensor, **call: Any) -> keras.KerasTensor:
        """The layer's Keras equivalent called on a Keras tensor; the same one each time."""
        check_supported(self.base_name, {"reuse": self._reuse})
        if self._keras is None:
            given = {key: value for key, value in self.arguments.items() if value is not None}
            given = {key: _for_keras(key, value) for key, value in given.items()}
            given["name"] = keras_name(self.arguments["name"], self.base_name)
            assert self.keras_class is not None
            self._keras = self.keras_class(**given)
        return self._keras(inputs, **call)

    def variable(self, name: str, shape: list[int], x: tf.Tensor) -> Any:
        """`get_variable` with the initialiser, regulariser and constraint for this name."""
        kind = "bias" if name == "bias" else name.split("_", maxsplit=1)[0]
        kind = kind if f"{kind}_initializer" in self.arguments else "kernel"
        named = {
            key: self.arguments[f"{kind}_{key}"] for key in ("initializer", "regularizer", "constraint")
        }
        made = tf1.get_variable(
            name, shape, x.dtype.base_dtype, trainable=self.arguments["trainable"], **named
        )
        if not any(made is known for known in self.variables):
            self.variables.append(made)
        setattr(self, name, made)
        return made

    def with_bias(self, y: tf.Tensor, units: int) -> tf.Tensor:
        if not self.arguments["use_bias"]:
            return y
        bias = self.variable("bias", [units], y)
        if self.arguments.get("data_format") == "channels_first":
            return y + tf.reshape(bias, [1, -1, *[1] * (y.shape.rank - 2)])
        return tf.nn.bias_add(y, bias)

    def _in_scope(self, inputs: tf.Tensor) -> Any:
        graph = tf1.get_default_graph()
        if self._scope is None or graph is not self._graph:
            name, reuse = self.arguments["name"], self._reuse
            name = self.base_name if name is None and reuse else name
            # Within TensorFlow 1 an unnamed layer that is to reuse had its base name.
            entered = tf1.variable_scope(name, self.base_name, [inputs], reuse=reuse)
            self._graph, self.variables = graph, []
            return _Remembered(self, entered)
        return tf1.variable_scope(self._scope, reuse=tf1.AUTO_REUSE)


class _Remembered:
    """Enters a scope for the first time, and leaves it to the layer."""

    def __init__(self, layer: Layer, entered: Any) -> None:
        self._layer, self._entered = layer, entered

    def __enter__(self) -> Any:
        self._layer._scope = self._entered.__enter__()
        return self._layer._scope

    def __exit__(self, *error: Any) -> Any:
        return self._entered.__exit__(*error)


def _signature(named: Mapping[str, Any]) -> inspect.Signature:
    kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
    return inspect.Signature([inspect.Parameter(n, kind, default=value) for n, value in named.items()])


def function_of(layer: type[Layer], name: str, **call: Any) -> Callable[..., Any]:
    """The function of a layer: `name(inputs, …, name=None, reuse=None)`.

    Args:
        call: arguments of the call, with defaults, which stand before `name`.
    """
    parameters = {key: value for key, value in layer.parameters.items() if key != "name"}
    signature = _signature({"inputs": REQUIRED, **parameters, **call, "name": None, "reuse": None})

    def function(*args: Any, **kwargs: Any) -> Any:
        bound = signature.bind(*args, **kwargs)
        bound.apply_defaults()
        given = dict(bound.arguments)
        inputs, reuse = given.pop("inputs"), given.pop("reuse")
        called = {key: given.pop(key) for key in call}
        return layer(**given, _reuse=reuse)(inputs, **called)

    function.__name__ = function.__qualname__ = name
    function.__module__, function.__doc__ = (
        layer.__module__,
        f"`tf.layers.{name}`: see `{layer.__name__}`.",
    )
    function.__signature__ = signature  # type: ignore[attr-defined]
    return function


def _for_keras(key: str, value: Any) -> Any:
    if key.endswith("_initializer"):
        return keras_initializer(value)
    return keras_activation(value) if key == "activation" else value
