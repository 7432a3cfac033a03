"""Decide where each batch norm goes, before anything is built."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from .affine import CannotFoldError
from .graph import Graph, Op
from .search import FoldingState, Move, move_backward, move_forward
from .targets import PendingFold


@dataclass(frozen=True)
class Plan:
    """What becomes of a model's batch norms.

    Attributes:
        pending: what operations are to take up; among them may be batch norms that go themselves.
        into: for each batch norm that goes, the operations that take it up.
        reasons: for each one that stays, why.
    """

    pending: Mapping[Op, PendingFold]
    into: Mapping[Op, tuple[Op, ...]]
    reasons: Mapping[Op, str]

    def final_targets(self, batch_norm: Op) -> list[Op]:
        """Where a batch norm went in the end, also when it was merged into others that went."""
        found: dict[Op, None] = {}
        for op in self.into[batch_norm]:
            found |= dict.fromkeys(self.final_targets(op) if op in self.into else [op])
        return list(found)


def make_plan(graph: Graph, excluded: Mapping[Op, str]) -> Plan:
    """Plan for all batch norms of a graph.

    Args:
        graph: of the whole model; not changed.
        excluded: operations that may take nothing up, and why.
    """
    state = FoldingState(graph.copy(), excluded)
    into: dict[Op, tuple[Op, ...]] = {}
    reasons: dict[Op, str] = {}
    left = list(dict.fromkeys(call.op for call in graph.calls if call.op.normalization is not None))
    for allow_merge in (False, True):
        moved = True
        while moved:
            moved = False
            for batch_norm in left:
                if batch_norm in into:  # it went with another one
                    continue
                found = _find_move(state, batch_norm, allow_merge)
                if isinstance(found, str):
                    reasons[batch_norm] = found
                    continue
                _commit(state, found)
                into |= dict.fromkeys(found.removed, tuple(found.targets))
                moved = True
            left = [batch_norm for batch_norm in left if batch_norm not in into]
    return Plan(state.pending, into, {batch_norm: reasons[batch_norm] for batch_norm in left})


def _find_move(state: FoldingState, batch_norm: Op, allow_merge: bool) -> Move | str:
    """How a batch norm can be moved, backwards rather than forwards; or why it cannot."""
    reasons = []
    for move in (move_backward, move_forward):
        try:
            return move(state, batch_norm, allow_merge)
        except CannotFoldError as reason:
            reasons.append(str(reason))
    backwards, forwards = reasons
    same = backwards == forwards
    return backwards if same else f"backwards, {backwards}; forwards, {forwards}"


def _commit(state: FoldingState, move: Move) -> None:
    for op, affine in move.targets.items():
        pending = state.pending_for(op)
        state.pending[op] = (
            pending.with_output_map(affine) if move.backwards else pending.with_input_map(affine)
        )
    for batch_norm in move.removed:
        state.graph.remove(batch_norm)
