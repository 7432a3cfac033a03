"""Decide where each batch norm goes, before anything is built."""

from __future__ import annotations

from collections import defaultdict

import keras

from ..batch_norms import AnyBatchNorm, is_batch_norm
from ..cloning import has_readable_graph
from .affine import CannotFoldError
from .graph import Graph
from .moves import Backward, FoldingState, Forward, Move
from .rules import BATCH_NORM_CLASSES


class Plan:
    """What becomes of a model's batch norms.

    Attributes:
        state: among it what each layer takes up.
        into: for each batch norm that goes, the layers that take it up.
        reasons: for each one that stays, why.
    """

    def __init__(self, graph: Graph, excluded: dict[int, str]) -> None:
        """Plan for all batch norms of a graph, which is changed on the way.

        Args:
            graph: of the whole model.
            banned: layers that may take nothing up, by `id`, and why.
        """
        self.state = FoldingState(graph, excluded | _tied(graph))
        self.into: dict[AnyBatchNorm, list[keras.layers.Layer]] = {}
        self.reasons: dict[AnyBatchNorm, str] = {}
        left = list(dict.fromkeys(call.layer for call in graph.calls if is_batch_norm(call.layer)))
        for allow_merge in (False, True):
            while self._pass(left, allow_merge):
                left = [layer for layer in left if layer not in self.into]
        self.reasons = {layer: self.reasons[layer] for layer in left}

    def _pass(self, left: list[AnyBatchNorm], allow_merge: bool) -> bool:
        """Try each batch norm that is left, backwards and then forwards; whether any went."""
        before = len(self.into)
        for layer in left:
            if layer in self.into:
                continue
            reasons = []
            for kind in (Backward, Forward):
                try:
                    self._commit(kind(self.state, layer, allow_merge))
                    break
                except CannotFoldError as reason:
                    reasons.append(str(reason))
            else:
                same = reasons[0] == reasons[1]
                both = reasons[0] if same else f"backwards, {reasons[0]}; forwards, {reasons[1]}"
                self.reasons[layer] = both
        return len(self.into) > before

    def _commit(self, move: Move) -> None:
        for layer, affine in move.targets.values():
            pending = self.state.pending[id(layer)]
            pending = (
                pending.with_output_map(affine) if move.backwards else pending.with_input_map(affine)
            )
            self.state.pending[id(layer)] = pending
        for batch_norm in move.removed:
            self.into[batch_norm] = [layer for layer, _ in move.targets.values()]
            self.state.graph.drop(batch_norm)

    def absorbing_layers(self, batch_norm: AnyBatchNorm) -> list[keras.layers.Layer]:
        """Where a batch norm went in the end, also when it was merged into others that went."""
        found: dict[int, keras.layers.Layer] = {}
        for layer in self.into[batch_norm]:
            if isinstance(layer, BATCH_NORM_CLASSES) and layer in self.into:
                found |= {id(one): one for one in self.absorbing_layers(layer)}
            else:
                found[id(layer)] = layer
        return list(found.values())


def _tied(graph: Graph) -> dict[int, str]:
    """Layers with a weight that another layer has too, by `id`, and the reason to leave them alone."""
    layers = {
        id(call.layer): call.layer
        for call in graph.calls
        # An open model has no weights but those of its layers, whose calls are here too.
        if hasattr(call.layer, "weights") and not has_readable_graph(call.layer)
    }
    owners: dict[int, list[keras.layers.Layer]] = defaultdict(list)
    for layer in layers.values():
        for weight in layer.weights:
            owners[id(weight)].append(layer)
    return {
        id(layer): f"{layer.name!r} has a weight in common with {other.name!r}; give each its own"
        for having in owners.values()
        for layer in having
        for other in having
        if layer is not other
    }
