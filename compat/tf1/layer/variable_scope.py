"""TF1-style code as a Keras 3 layer: `VariableScopeLayer`.

The code is traced by `tf.compat.v1.wrap_function`, into a graph whose collections and variable scopes
start empty as in a new `tf.Graph`; `program` says what of it runs.
"""

from __future__ import annotations

import inspect
import itertools
import types
from collections.abc import Callable, Sequence
from typing import Any

import keras
import tensorflow as tf

from .dimensions import sizes_as_dimensions
from .inner_batch_norms import InnerBatchNorm, InnerBatchNorms
from .moving_averages import averages_as_weights
from .program import Program, fetched, updates_of_code
from .stateless import with_values
from .variable_store import VariableStore

tf1 = tf.compat.v1


@keras.saving.register_keras_serializable(package="tfbn")
class VariableScopeLayer(keras.layers.Layer):
    """A Keras layer around TF1-style code.

    The code may use `tf.compat.v1.variable_scope` and `get_variable` (reuse, default scopes,
    initializers, regularizers, constraints, partitioners, custom getters), collections, `arg_scope` and
    what is built upon them, e.g. tf_slim's layers. It always builds a graph, also when called eagerly.

    * Variables are made when the layer is built, where the code runs with `is_training=True`; every
      later call finds them, and numbering of default scopes starts again. They are the layer's weights.
      The TF1 name, `conv1/weights`, is their key in `variables_by_name` and the end of their `path`.
    * Averages of `tf.train.ExponentialMovingAverage` are weights, too, also where code reads them alone.
    * Ops in `update_collections` run once in each training call. No other op runs that the outputs do
      not need.
    * Losses in `REGULARIZATION_LOSSES` are the layer's `losses`. Those of weights alone count once
      however often the layer is called, and not while it is frozen, as in Keras; others in each call.
    * With `trainable = False` the layer is frozen like a batch normalisation of Keras: `is_training` is
      False, and nothing is updated.

    Args:
        function: called as `function(inputs, **arguments)`, returns tensors in any structure of tuples,
            lists and dicts. It is saved by its registered name: decorate it with
            `keras.saving.register_keras_serializable()`, or load with `custom_objects`.
        scope: name of a variable scope around the code; none unless told.
        arguments: keyword arguments of `function`. If `is_training` is among them, it stays as it is.
        update_collections: names of the collections whose ops are run in training.
        v1_shapes: whether the code reads sizes of shapes as TensorFlow 1 had them, `x.shape[1].value`.
        name: the layer's name, which is no part of the TF1 names.
        **kwargs: of `keras.layers.Layer`: dtype, trainable. The code is given floating-point inputs in
            the compute dtype; a trainable variable asked for in it is stored in the variable dtype.

    Call arguments:
        inputs: a tensor, or tensors in a structure; sizes may be unknown where the code allows it.
        training: reaches the function as a Python bool, as `is_training`, or as `training`, if its
            signature has one of them.

    Warns:
        UserWarning: updates of a batch norm go to a collection that is not run; or once, when the layer
            is used with trained batch norms whose moving statistics were never updated.

    Raises:
        RuntimeError: eager execution is switched off, without which Keras 3 has no layers.
        TypeError: `function` is not callable, `arguments` is no dict.
        ValueError: a variable that was not made in `build`, has another shape, or is made without
            `get_variable`; what `get_variable` itself raises.

    >>> def dense(x):
    ...     with tf.compat.v1.variable_scope("fc"):
    ...         ones = tf.ones_initializer()
    ...         return x @ tf.compat.v1.get_variable("weights", [3, 2], initializer=ones)
    >>> layer = VariableScopeLayer(dense)
    >>> print(layer(tf.ones([1, 3])).numpy(), list(layer.variables_by_name))
    [[3. 3.]] ['fc/weights']
    """

    def __init__(
        self,
        function: Callable[..., Any],
        *,
        scope: str | None = None,
        arguments: dict[str, Any] | None = None,
        update_collections: Sequence[str] = (tf1.GraphKeys.UPDATE_OPS,),
        v1_shapes: bool = False,
        name: str | None = None,
        **kwargs: Any,
    ) -> None:
        with tf.init_scope():
            if not tf.executing_eagerly():
                raise RuntimeError(
                    "Keras 3 layers need eager execution, which is switched off here "
                    "(tf.compat.v1.disable_v2_behavior, tf1.enable, tf.Graph().as_default()). Use the "
                    "layer where it is not; here the code runs in a graph as it is."
                )
        super().__init__(name=name, **kwargs)
        if not callable(function):
            raise TypeError(f"function must be callable as function(inputs), received {function!r}.")
        if not isinstance(arguments, (dict, type(None))):
            raise TypeError(f"arguments must be a dict of keyword arguments, received {arguments!r}.")
        self.function = function
        self.scope = scope
        self.v1_shapes = bool(v1_shapes)
        if isinstance(update_collections, str):
            raise TypeError(
                "update_collections must be a sequence of names, received the string "
                f"{update_collections!r}. Pass [{update_collections!r}]."
            )
        self.update_collections = tuple(update_collections)
        # Out of sight of Keras and SavedModel, which would track what is inside.
        self._made: list[keras.Variable] = []
        self._hidden = types.SimpleNamespace(
            arguments=dict(arguments or {}),
            dtypes=[],
            programs={},
            variables={},
            averages={},
            batch_norms=InnerBatchNorms(self),
        )

    @property
    def variables_by_name(self) -> dict[str, keras.Variable]:
        """The weights by their TF1 names, those that a TF1 checkpoint of the same code has."""
        return {variable.path.removeprefix(f"{self.path}/"): variable for variable in self._made}

    @property
    def batch_norms_inside(self) -> dict[str, InnerBatchNorm]:
        """The batch norms of the code by their variable scopes, for `tfbn.recalibrate`."""
        return self._hidden.batch_norms.by_name

    def __call__(self, inputs: Any, *args: Any, **kwargs: Any) -> Any:
        if not self.built:  # `build` is told shapes only, and TF1 code may want integers
            self._hidden.dtypes = [self._given_dtype(value) for value in keras.tree.flatten(inputs)]
        return super().__call__(inputs, *args, **kwargs)

    def _given_dtype(self, value: Any) -> str:
        dtype = tf.as_dtype(keras.backend.standardize_dtype(getattr(value, "dtype", self.compute_dtype)))
        return self.compute_dtype if dtype.is_floating and self.autocast else dtype.name

    def build(self, input_shape: Any) -> None:
        dtypes = iter(self._hidden.dtypes or itertools.repeat(self.compute_dtype))
        specs = keras.tree.map_shape_structure(
            lambda shape: tf.TensorSpec(shape, next(dtypes)), input_shape
        )
        with tf.init_scope():
            self._trace(specs, is_training=True)

    def call(self, inputs: Any, training: bool | None = None) -> Any:
        is_training = bool(training) and self.trainable
        tensors = [tf.convert_to_tensor(tensor) for tensor in tf.nest.flatten(inputs)]
        specs = [tf.TensorSpec(tensor.shape, tensor.dtype) for tensor in tensors]
        key = (is_training, repr(tf.nest.pack_sequence_as(inputs, specs)))
        # Inside a tf.function each call is traced anew: it may be another replica's, or XLA's.
        real = not self._made or isinstance(self._made[0].value, tf.Variable)  # see VariableStore
        real &= not self._hidden.batch_norms.measured
        programs = self._hidden.programs if real and tf.executing_eagerly() else {}
        if real and not is_training:
            self._hidden.batch_norms.warn_once_if_never_updated()
        if key not in programs:
            programs[key] = self._trace(tf.nest.pack_sequence_as(inputs, specs), is_training)
        program = programs[key]
        if self._is_stateless():
            results = self._with_values(program, tensors)
        else:
            results = program.function(*tensors)
        outputs, losses = program.packed(results)
        for loss in losses:
            self.add_loss(tf.cast(loss, self.variable_dtype))
        tf.nest.map_structure(
            lambda output, traced: output.set_shape(traced.shape), outputs, program.outputs
        )
        return outputs

    def _is_stateless(self) -> bool:
        """Whether the weights have other values than their variables, in a `stateless_call`."""
        values = [(weight.value, weight.value) for weight in self._made[:1] if self._hidden.variables]
        # A weight that Keras will initialize later has a new value each time.
        return any(one is other and not isinstance(one, tf.Variable) for one, other in values)

    def _with_values(self, program: Program, tensors: list[tf.Tensor]) -> list[tf.Tensor]:
        """The results for the values that the weights have in a `stateless_call`, which it updates."""
        weights = self.variables_by_name
        variables = [self._hidden.variables[name] for name in weights]
        values = [weight.value for weight in weights.values()]
        results, after = with_values(program.function, tensors, variables, values)
        for weight, value in zip(weights.values(), after, strict=True):
            if not weight.trainable:
                weight.assign(value)
        return results

    def _trace(self, specs: Any, is_training: bool) -> Program:
        """Run the code on placeholders of these `tf.TensorSpec`s, and keep what is to be computed."""
        store, kept = VariableStore(self, self._made, self._hidden.variables), types.SimpleNamespace()
        arguments = self._hidden.arguments
        accepted = [key for key in ("is_training", "training") if key in _parameters(self.function)]
        if accepted and accepted[0] not in arguments:
            arguments = arguments | {accepted[0]: is_training}

        inside = self._hidden.batch_norms

        def body(*tensors: tf.Tensor) -> list[tf.Tensor]:
            inside.begin()
            given = {"custom_getter": store.get, "dtype": tf.as_dtype(self.compute_dtype)}
            scope = tf1.variable_scope(self.scope or tf1.get_variable_scope(), **given)
            shapes = sizes_as_dimensions(self.v1_shapes, self.name)
            averages = averages_as_weights(store, is_training, self._hidden.averages)
            with tf.variable_creator_scope(store.create), scope, shapes, averages:
                outputs = self.function(tf.nest.pack_sequence_as(specs, tensors), **arguments)
            kept.outputs = tf.nest.map_structure(tf.identity, outputs)
            losses = tf1.get_collection(tf1.GraphKeys.REGULARIZATION_LOSSES)
            kept.losses = [tf.convert_to_tensor(loss) for loss in losses]  # get_variable's are lazy
            kept.updates = updates_of_code(self.update_collections) if is_training else inside.finish()
            tf1.get_default_graph().control_outputs.extend(kept.updates)
            return [*tf.nest.flatten(kept.outputs), *kept.losses]

        wrapped = tf1.wrap_function(body, tf.nest.flatten(specs))
        fed = wrapped.inputs[: len(tf.nest.flatten(specs))]
        losses = store.take_weight_losses(kept.losses, wrapped, len(fed))
        wanted = [*tf.nest.flatten(kept.outputs), *losses]
        return Program(fetched(wrapped, fed, wanted, kept.updates), kept.outputs, store)

    def get_build_config(self) -> dict[str, Any] | None:
        config = super().get_build_config()
        return config and config | {"dtypes": list(self._hidden.dtypes)}

    def build_from_config(self, config: dict[str, Any]) -> None:
        self._hidden.dtypes = config.get("dtypes", [])
        super().build_from_config(config)

    def get_config(self) -> dict[str, Any]:
        return super().get_config() | {
            "function": keras.saving.serialize_keras_object(self.function),
            "scope": self.scope,
            "v1_shapes": self.v1_shapes,
            "update_collections": list(self.update_collections),
            "arguments": keras.saving.serialize_keras_object(self._hidden.arguments),
        }

    def live_config(self) -> dict[str, Any]:
        """The configuration with the function and its arguments themselves, to copy the layer by."""
        own = {"function": self.function, "arguments": dict(self._hidden.arguments)}
        own |= {"scope": self.scope, "v1_shapes": self.v1_shapes}
        own["update_collections"] = self.update_collections
        return super().get_config() | own | {"live": True}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> VariableScopeLayer:
        live = config.pop("live", False)
        load = (lambda value: value) if live else keras.saving.deserialize_keras_object
        return cls(**config | {key: load(config[key]) for key in ("function", "arguments")})


def _parameters(function: Callable[..., Any]) -> Any:
    try:
        return inspect.signature(function).parameters
    except (TypeError, ValueError):  # some built-in functions do not tell
        return ()
