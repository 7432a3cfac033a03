"""Decide where each batch norm goes, and build the model without those that went."""

from __future__ import annotations

from collections import Counter

import keras

from ..axes import channel_axes
from ..batch_norms import Batchnorm, batch_norms, inference_affine, is_batch_norm, layer_paths
from ..cloning import Instead, check_built, is_open, rebuild
from .graph import Call, Graph, graphs
from .report import Folded, FoldReport
from .rules import Absorbed, absorb, refusal, rule_for


class _StaysError(Exception):
    """A batch norm cannot be folded, for the reason given."""


def fold(model: keras.Model) -> tuple[keras.Model, FoldReport]:
    """Remove the batch norms that sit right behind a linear layer (Algorithm 2, line 11).

    At inference a batch norm is `scale · x + offset` per channel. Behind a Dense, convolution,
    transposed, depthwise or separable convolution that is linear and feeds nothing else, that is a
    change of the layer's kernel and bias, computed in float64 and rounded once. Ours and Keras' own
    batch norms fold alike, in nested models too; all else is copied with its weights.

    The result is for inference: it equals the given model at `training=False`, not in training.

    Args:
        model: a built Sequential or Functional model. It is not changed.

    Returns:
        A new, uncompiled model that shares nothing with the given one, and the `FoldReport`.

    Raises:
        TypeError: not a Sequential or Functional model, so that its graph cannot be read.
        ValueError: not built yet, or a layer without a configuration to copy it by.
    """
    _check_open(model)
    plan = _Plan(model)
    gone = {id(layer) for layer in plan.targets}
    absorbed = {id(one.layer): one for one in plan.absorbed}

    def choose(layer: keras.layers.Layer) -> keras.layers.Layer | Instead:
        if id(layer) in gone:
            return Instead.NOTHING
        return absorbed[id(layer)].unbuilt() if id(layer) in absorbed else Instead.COPY

    folded, clones = rebuild(model, choose)
    for key, one in absorbed.items():
        one.assign(clones[key])
    return folded, plan.report()


class _Plan:
    """For each batch norm of a model the layer that absorbs it, or the reason why none does."""

    def __init__(self, model: keras.Model) -> None:
        self.paths = {id(layer): path for path, layer in layer_paths(model).items()}
        unlike = {
            path: layer
            for path, layer in layer_paths(model).items()
            if getattr(layer, "unlike_batch_norm", None) is not None
        }
        self.layers = batch_norms(model) | unlike
        self.targets: dict[Batchnorm, keras.layers.Layer] = {}
        self.absorbed: list[Absorbed] = []
        self.reasons = {layer: layer.unlike_batch_norm for layer in unlike.values()}
        everything = graphs(model)
        self.calls = Counter(id(call.layer) for graph in everything for call in graph.calls)
        for graph in everything:
            for call in graph.calls:
                if is_batch_norm(call.layer) and call.layer not in self.reasons:
                    self._decide(graph, call)

    def _decide(self, graph: Graph, call: Call) -> None:
        try:
            target = self._target(graph, call)
            self.absorbed.append(absorb(target, *inference_affine(call.layer)))
            self.targets[call.layer] = target
        except (_StaysError, OverflowError) as reason:
            self.reasons[call.layer] = str(reason)

    def _target(self, graph: Graph, call: Call) -> keras.layers.Layer:
        """The layer right before a batch norm, if it may take it up."""
        if self.calls[id(call.layer)] > 1:
            raise _StaysError("it is shared: the model calls it more than once")
        if call.training or graph.training:
            raise _StaysError("it is called with training=True and uses each batch's own statistics")
        if call.masked:
            raise _StaysError("it is called with a mask, and hands it on to the layers after it")
        source = call.inputs[0]
        if source is None:
            raise _StaysError("it normalises an input of the model, with no layer before it")
        layer, rule = source.layer, rule_for(source.layer)
        if rule is None:
            raise _StaysError(
                f"the layer before it, {layer.name!r} ({type(layer).__name__}), is not a linear layer "
                "with weights that could take it up"
            )
        if (why := refusal(layer)) is not None:
            raise _StaysError(why)
        if self.calls[id(layer)] > 1:
            raise _StaysError(f"{layer.name!r} is shared: the model calls it more than once")
        if graph.uses[id(source)] > 1:
            raise _StaysError(f"the output of {layer.name!r} is used by more than this batch norm")
        rank = call.layer.input_spec.ndim  # of this call: layer.output would be its first call ever
        expected = channel_axes(rule.channel_axis(layer), rank)
        if channel_axes(call.layer.axis, rank) != expected:
            raise _StaysError(
                f"its axis {call.layer.axis} is not the channel axis {expected[0]} of {layer.name!r}"
            )
        if expected == (1,) and rank > 2 and layer.output.shape[-1] in (None, layer.output.shape[1]):
            # Keras 3.15 guesses a bias's axis by its length, and takes the last one here.
            raise _StaysError(
                f"the last axis of {layer.name!r}'s output may be as long as its channels, and Keras "
                "would add a bias along that one; channels last, or another size, can be folded"
            )
        if layer.compute_dtype != call.layer.compute_dtype:
            raise _StaysError(
                f"it computes in {call.layer.compute_dtype} and {layer.name!r} in {layer.compute_dtype}"
            )
        return layer

    def report(self) -> FoldReport:
        return FoldReport(tuple(self._entry(path, layer) for path, layer in self.layers.items()))

    def _entry(self, path: str, layer: Batchnorm) -> Folded:
        kind = type(layer).__name__
        if layer in self.targets:
            return Folded(path, kind, into=self.paths[id(self.targets[layer])])
        hidden = "it is inside a layer whose graph Keras does not show"
        return Folded(path, kind, reason=self.reasons.get(layer, hidden))


def _check_open(model: keras.Model) -> None:
    check_built(model, "fold", "fold")
    if not is_open(model):
        raise TypeError(
            f"The graph of the model {model.name!r} ({type(model).__name__}) cannot be read: it has a "
            "call() of its own, or declares no inputs. Build it as a Functional model, or a Sequential "
            "one that starts with keras.Input, or export it with fold=False and samples=."
        )
