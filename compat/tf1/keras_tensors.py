"""`batch_norm` on a Keras tensor: a `tfbn.BatchNorm` layer in a functional model."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np

from ...layer import BatchNorm
from ...renorm import BatchRenorm

# Arguments that speak of a TF1 graph, or of what the layer does not do, and their neutral values.
NOT_IN_KERAS = {
    "reuse": (None, False),
    "variables_collections": (None,),
    "outputs_collections": (None,),
    "batch_weights": (None,),
    "zero_debias_moving_mean": (False,),
    "adjustment": (None,),
    "virtual_batch_size": (None,),
}


def check_supported(function: str, arguments: dict[str, Any]) -> None:
    """Raise for arguments that mean nothing, or something else, in a Keras model."""
    wrong = [
        name
        for name, neutral in NOT_IN_KERAS.items()
        if name in arguments and not any(arguments[name] is accepted for accepted in neutral)
    ]
    if wrong:
        raise ValueError(
            f"compat.{function} on a Keras tensor is a tfbn.BatchNorm layer, which has no "
            f"{', '.join(wrong)}. Leave them out, or keep the code as it is in a "
            "compat.VariableScopeLayer."
        )


def apply_layer(
    inputs: keras.KerasTensor,
    function: str,
    *,
    scope: Any,
    default_name: str,
    training: Any,
    trainable: bool,
    renorm: bool,
    renorm_clipping: dict[str, Any] | None,
    renorm_decay: float,
    activation: Any = None,
    **arguments: Any,
) -> keras.KerasTensor:
    """A new layer called on a Keras tensor.

    Args:
        inputs: Keras tensor.
        function: the one that the user called, for messages.
        scope: the layer's name: a string, a variable scope, or `None`.
        default_name: the name without a scope, numbered from the second layer on as TF1 did.
        training: False freezes the layer, so that it runs as at inference; True and None follow the
            model.
        trainable: whether beta and gamma are. The statistics move either way.
        renorm, renorm_clipping, renorm_decay: make it a `BatchRenorm`.
        activation: applied to the output; TensorFlow's functions become Keras' of the same name.
        **arguments: of `BatchNorm`; initialisers may be TF1's.
    """
    if not isinstance(training, (bool, np.bool_, int, type(None))):
        raise ValueError(
            f"compat.{function} on a Keras tensor cannot take a tensor as is_training: received "
            f"{training!r}. Leave it out: the model says whether it trains, model(x, training=…)."
        )
    arguments["name"] = keras_name(scope, default_name)
    for key, value in arguments.items():
        if key.endswith("_initializer"):
            arguments[key] = keras_initializer(value)
    if renorm:
        arguments |= {"renorm_decay": renorm_decay, **(renorm_clipping or {})}
    layer = BatchRenorm(**arguments) if renorm else BatchNorm(**arguments)
    outputs = layer(inputs)
    for weight in (layer.beta, layer.gamma):
        if weight is not None:
            weight.trainable = bool(trainable)
    # Not `layer(inputs, training=False)`, which a functional model overrides with its own `training`.
    layer.trainable = training is None or bool(training)
    if activation is None:
        return outputs
    return keras.layers.Activation(keras_activation(activation))(outputs)


def keras_name(scope: Any, default_name: str) -> str:
    """A layer's name: the scope's, or the default one, numbered from the second layer on as TF1 did."""
    name = getattr(scope, "name", scope)
    if not name:
        number = keras.backend.get_uid(default_name) - 1
        name = f"{default_name}_{number}" if number else default_name
    return name.replace("/", "_")


def keras_activation(activation: Any) -> Any:
    """TensorFlow's function as Keras' own of that name, which a saved model can hold."""
    of_keras = getattr(keras.activations, getattr(activation, "__name__", ""), None)
    from_tensorflow = getattr(activation, "__module__", "").startswith("tensorflow.")
    return of_keras if of_keras and from_tensorflow else activation


def keras_initializer(initializer: Any) -> Any:
    """TF1's initialiser as Keras' own of that name, which a saved model can hold."""
    made = initializer() if isinstance(initializer, type) else initializer
    of_keras = getattr(keras.initializers, type(made).__name__, None)
    if of_keras is None or not hasattr(made, "get_config") or isinstance(made, keras.Initializer):
        return made
    return of_keras(**{key: value for key, value in made.get_config().items() if key != "dtype"})
