"""The batch norms inside a `VariableScopeLayer`, as `tfbn.recalibrate` finds and measures them."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from ....axes import Axis
from ....moving_statistics import warn_if_never_updated

BATCH_NORMS = "tfbn/batch_norms"  # the collection of a traced graph that holds its InnerBatchNorms


class InnerBatchNorm:
    """A batch norm of TF1-style code in a layer, with what the core asks of a batch norm layer.

    Attributes:
        name: its variable scope.
        axis, epsilon: of its call.
    """

    def __init__(self, layer: keras.layers.Layer, name: str, axis: Axis, epsilon: float) -> None:
        self._layer, self.name = layer, name
        self.axis, self.epsilon = axis, epsilon

    def __getattr__(self, name: str) -> Any:
        if name in ("trainable", "compute_dtype"):
            return getattr(self._layer, name)
        if name in ("moving_mean", "moving_variance", "beta", "gamma", "moving_stddev"):
            path = f"{self.name}/{name}" if self.name else name
            weight = self._layer.variables_by_name.get(path)
            if self._layer.built:  # the layer makes no more weights: this one can be kept
                vars(self)[name] = weight
            return weight
        raise AttributeError(name)


class InnerBatchNorms:
    """The batch norms of one layer, registered while the layer is built.

    One that has a `call` of its own (set by `tfbn.recalibrate`) is measured by it.

    Args:
        layer: the `VariableScopeLayer`.
    """

    def __init__(self, layer: keras.layers.Layer) -> None:
        self.layer = layer
        self.by_name: dict[str, InnerBatchNorm] = {}
        self._updates: list[tf.Operation] = []  # of the stand-ins, in the graph that is traced
        self._has_branches = False  # whether some are inside of conditionals or loops
        self._graph: tf.Graph | None = None
        self._settled = False

    def begin(self) -> None:
        """The graph that is now the default one is traced."""
        self._updates.clear()
        self._has_branches = False
        self._graph = tf.compat.v1.get_default_graph()
        tf.compat.v1.add_to_collection(BATCH_NORMS, self)

    def finish(self) -> list[tf.Operation]:
        """What is to run for the stand-ins of traced code, also where nobody uses its outputs.

        Of a conditional TensorFlow runs what its results need, and only if something needs these. An
        assertion does, which always holds.
        """
        assert self._graph is not None
        made = self._graph.get_operations() if self._has_branches else []
        results = [y for each in made if each.type in ("If", "While") for y in each.outputs]
        for y in results:
            if y.dtype.is_floating:
                total = tf.reduce_sum(y)
                holds = tf.logical_or(tf.equal(total, total), tf.math.is_nan(total))
                self._updates.append(tf.raw_ops.Assert(condition=holds, data=[total]))
        return list(self._updates)

    def warn_if_not_run(self, collections: Sequence[str]) -> None:
        """Warn where updates go to collections that the layer does not run."""
        run = self.layer.update_collections
        if not set(collections) & set(run):
            warnings.warn(
                f"Updates of a batch norm in {self.layer.name!r} go to {', '.join(collections)}, which "
                "is never run: its moving statistics stay as they are. Pass VariableScopeLayer(…, "
                f"update_collections={[*run, *collections]}).",
                stacklevel=2,
            )

    @property
    def in_branch(self) -> bool:
        """Whether the code is inside a conditional or a loop, which are graphs of their own."""
        return tf.compat.v1.get_default_graph() is not self._graph

    @property
    def measured(self) -> bool:
        return any("call" in vars(inner) for inner in self.by_name.values())

    def call(self, x: tf.Tensor, axis: Axis, epsilon: float, training: Any) -> tf.Tensor | None:
        """What the stand-in makes of `x`; `None` where there is none, or it leaves that to the code."""
        name = tf.compat.v1.get_variable_scope().name
        inner = self.by_name.setdefault(name, InnerBatchNorm(self.layer, name, axis, epsilon))
        if "call" not in vars(inner):
            return None
        graph = tf.compat.v1.get_default_graph()
        before = len(graph.get_operations())
        y = vars(inner)["call"](x, training=training)
        if y is None:
            return None
        made = graph.get_operations()[before:]
        updates = [operation for operation in made if operation.type.startswith("Assign")]
        if self.in_branch:
            self._has_branches = True
            with tf.control_dependencies(updates):
                return tf.cast(tf.identity(y), x.dtype)
        self._updates += updates
        return tf.cast(y, x.dtype)

    def warn_once_if_never_updated(self) -> None:
        """Warn, once, where the layer is used with statistics that training left out."""
        if self._settled or tf.distribute.has_strategy():
            return
        with tf.init_scope():
            warned = warn_if_never_updated(self.by_name, stacklevel=2)
            moved = all(np.any(inner.moving_mean) for inner in self.by_name.values())
        self._settled = warned or moved


def of_this_graph() -> InnerBatchNorms | None:
    """The collector of the graph that is being traced; `None` outside a `VariableScopeLayer`."""
    return next(iter(tf.compat.v1.get_collection(BATCH_NORMS)), None)
