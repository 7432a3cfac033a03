"""The variables of TF1-style code inside a Keras layer: `get_variable` on top of Keras variables."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import keras
import tensorflow as tf

from .variable_op import with_op
from .weight_losses import WeightLoss, reads_of

tf1 = tf.compat.v1
# The arguments of a getter in TensorFlow's order: custom getters of the code pass some by position.
GETTER_ARGUMENTS: tuple[str, ...] = (
    *("shape", "dtype", "initializer", "regularizer", "reuse", "trainable", "collections"),
    *("caching_device", "partitioner", "validate_shape", "use_resource", "constraint"),
)


class VariableStore:
    """Where `get_variable` finds or makes the layer's weights during one trace.

    `get`, a custom getter, leaves TF1's rules (sharing, errors, initializers, partitions, regularizers)
    to TensorFlow's own `get_variable`; what that would create, `create`, a variable creator, provides.
    """

    def __init__(
        self,
        layer: keras.layers.Layer,
        made: list[keras.Variable],
        variables: dict[str, tf.Variable],
    ) -> None:
        self.layer, self.made, self.variables = layer, made, variables
        self.weights = layer.variables_by_name  # with those of an attempt to build that failed
        self.given: dict[str, tf.Variable] = {}
        self.casts: dict[Any, tf.Variable] = {}  # by the tensors that code has of them
        self.asked: str | None = None
        self.widened = self.bypassed = False

    def get(self, getter: Callable[..., Any], name: str, *args: Any, **kwargs: Any) -> Any:
        name = name.rstrip("/")  # of slots, which are scopes
        kwargs |= dict(zip(GETTER_ARGUMENTS, args, strict=False))
        if kwargs.get("trainable") is None:  # left out by such a getter, as the type may be
            kwargs["trainable"] = kwargs.get("synchronization") != tf.VariableSynchronization.ON_READ
        dtype, trainable = tf.as_dtype(kwargs.get("dtype") or tf.float32), kwargs["trainable"]

        def among(names: dict[str, Any]) -> bool:
            return any(known == name or known.startswith(f"{name}/part_") for known in names)

        if kwargs.get("reuse") and among(self.weights) and not among(self.given):
            kwargs["reuse"] = tf1.AUTO_REUSE  # the layer has it, this trace's graph not yet
        compute, stored = self.layer.compute_dtype, self.layer.variable_dtype
        self.asked = name
        if not trainable and compute != stored and dtype == compute:
            kwargs["dtype"] = tf.as_dtype(stored)  # counters and statistics need their digits
        self.widened = compute != stored and trainable and dtype == compute
        if self.widened:
            variable = getter(name=name, **kwargs | {"dtype": tf.as_dtype(stored)})
            cast = tf.cast(variable, compute)
            self.casts[cast.ref()] = variable
            return cast
        return getter(name=name, **kwargs)

    def create(self, next_creator: Callable[..., tf.Variable], **kwargs: Any) -> tf.Variable:
        name, layer = kwargs["name"], self.layer
        if self.bypassed:
            return next_creator(**kwargs)
        if self.asked is None or (name != self.asked and not name.startswith(f"{self.asked}/part_")):
            raise ValueError(
                f"The code in {layer.name!r} makes a variable (name={name!r}) without get_variable, so "
                "each trace would have its own. Replace tf.Variable by tf.compat.v1.get_variable."
            )
        if name not in self.weights:
            if layer.built:
                raise ValueError(
                    f"{layer.name!r} has no variable {name!r}: the code did not ask for it when "
                    "the layer was built, with is_training=True. Let it ask for the same variables in "
                    f"every call. The layer has {', '.join(sorted(self.weights)) or 'none'}."
                )
            self.weights[name] = self._add(**kwargs)
        found, shape = tf.TensorShape(self.weights[name].shape), kwargs.get("shape")
        if shape is not None and not found.is_compatible_with(shape):
            raise ValueError(
                f"Trying to share variable {name}, but specified shape {tf.TensorShape(shape)} and "
                f"found shape {found}. {layer.name!r} was built for inputs of another shape."
            )
        return self.give(name, bool(kwargs["trainable"]), kwargs.get("collections"))

    def give(self, name: str, trainable: bool = False, collections: Iterable[str] | None = None) -> Any:
        """The variable of a weight that there is, in this trace and its collections."""
        variable = self.given[name] = self._variable(name, trainable)
        keys = list(collections or [tf1.GraphKeys.GLOBAL_VARIABLES])
        for key in keys + [tf1.GraphKeys.TRAINABLE_VARIABLES] * trainable:
            if not any(member is variable for member in tf1.get_collection(key)):
                tf1.add_to_collection(key, variable)
        return variable

    def _add(self, name: str, initial_value: Any, **kwargs: Any) -> keras.Variable:
        constraint, (*scopes, last) = kwargs.get("constraint"), name.split("/")
        if tf.is_tensor(initial_value):
            symbol, initial_value = initial_value, tf.get_static_value(initial_value)
            if initial_value is None:
                raise ValueError(
                    f"The initial value of variable {name!r} is {symbol}, which the code computes. "
                    "Pass an initializer, or a function without arguments that computes it."
                )
        with self._bypass() as stack:
            value = tf.convert_to_tensor(initial_value() if callable(initial_value) else initial_value)
            value = tf.cast(value, self.layer.variable_dtype) if self.widened else value
            for scope in scopes:
                stack.enter_context(keras.name_scope(scope))
            # Absolute, without the layer's name: code and collections know variables by their TF1 names.
            stack.enter_context(tf1.name_scope("/".join(scopes) + "/" if scopes else None))
            if not kwargs["trainable"]:
                stack.enter_context(tf.variable_creator_scope(_updated_by_each_replica))
            # Not by add_weight, which would leave these scopes out of the weight's path.
            weight = keras.Variable(
                lambda *_, **__: tf.identity(value),
                shape=value.shape,
                dtype=value.dtype.name,
                trainable=kwargs["trainable"],
                autocast=False,  # a cast value would be a tensor, which no update op can assign to
                aggregation="mean" if value.dtype.is_floating else "only_first_replica",
                name=last,
            )
        for key in (tf1.GraphKeys.GLOBAL_VARIABLES, tf1.GraphKeys.TRAINABLE_VARIABLES):
            # Where TensorFlow puts a distributed variable by itself.
            members = tf1.get_collection_ref(key)
            members[:] = [member for member in members if member is not weight.value]
        if constraint is not None:
            weight.constraint = _Constraint(constraint)
        self.made.append(weight)
        if isinstance(weight.value, tf.Variable):
            self.variables[name] = weight.value
        weight.trainable = weight.trainable and self.layer.trainable  # tracked as what it was made as
        return weight

    def _variable(self, name: str, trainable: bool) -> tf.Variable:
        weight = self.weights[name]
        value = weight.value
        if isinstance(value, tf.Variable):
            # Outside replicas (where a layer is built) a distributed variable has no handle.
            outside = tf.distribute.in_cross_replica_context()
            return with_op(_local(value)[0] if outside else value, name)
        if name in self.variables and value is weight.value:
            return with_op(self.variables[name], name)  # in a stateless_call, see `stateless`
        # A weight that Keras will initialize later: it infers shapes, and never runs this graph.
        with self._bypass(), tf1.name_scope(None):
            zeros = tf.zeros(weight.shape, weight.dtype)
            return with_op(tf.Variable(zeros, trainable=trainable, name=name), name)

    def name_of(self, variable: Any) -> str:
        """The TF1 name; a replica's own variable has another one."""
        names = (name for name, given in self.given.items() if given is variable)
        return next(names, variable.name.partition(":")[0])

    def initializer_from(self, variable: Any) -> Callable[..., tf.Tensor]:
        """Of a variable that starts as this one, which Keras may initialize later."""
        name = self.name_of(variable)
        source = self.weights[name] if self.given.get(name) is variable else variable
        return lambda shape, dtype: tf.cast(tf.convert_to_tensor(source), dtype)

    @contextlib.contextmanager
    def _bypass(self) -> Iterator[contextlib.ExitStack]:
        """Out of the graph, and past `create`."""
        self.bypassed = True
        try:
            with contextlib.ExitStack() as stack:
                stack.enter_context(tf.init_scope())
                yield stack
        finally:
            self.bypassed = False

    def take_weight_losses(self, losses: list[tf.Tensor], wrapped: Any, fed: int) -> list[tf.Tensor]:
        """Give those of a new layer's losses that depend on weights alone to the weights.

        Args:
            losses: of the graph of `wrapped`, the traced function, with `fed` tensors as inputs.

        Returns:
            The losses that depend on something else too.
        """
        names = {
            id(replica.handle): name
            for name, variable in self.given.items()
            for replica in _local(variable)
        }
        captured = zip(wrapped.inputs[fed:], wrapped.captured_inputs, strict=True)
        handles = {inner.name: names[id(outer)] for inner, outer in captured if id(outer) in names}
        others = []
        for loss in losses:
            reads = reads_of(loss, handles) or []
            by_read = [handles[read.op.inputs[0].name] for read in reads]
            owner = next((name for name in by_read if self.given[name].trainable), None)
            if owner is None:
                others.append(loss)
            elif not self.layer.built:
                weight = self.weights[owner]
                weights = [self.weights[name] for name in by_read]
                weight.regularizer = WeightLoss(loss, reads, weights, weight.regularizer)
        return others


def _updated_by_each_replica(create: Callable[..., tf.Variable], **kwargs: Any) -> tf.Variable:
    """Each replica updates its own copy: an update that waits for others cannot be in a tf.function.

    Asked of TensorFlow, for `keras.Variable` has no `synchronization=` before Keras 3.10.
    """
    return create(**kwargs | {"synchronization": tf.VariableSynchronization.ON_READ})


class _Constraint(keras.constraints.Constraint):
    """A constraint of TF1 code, which Keras 3.8 takes from its own class only."""

    def __init__(self, function: Callable[[tf.Tensor], tf.Tensor]) -> None:
        self.function = function

    def __call__(self, weight: Any) -> tf.Tensor:
        return self.function(tf.convert_to_tensor(weight))


def _local(variable: tf.Variable) -> tuple[tf.Variable, ...]:
    return tf.distribute.get_strategy().experimental_local_results(variable)
