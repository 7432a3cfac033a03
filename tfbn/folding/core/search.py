"""One batch norm moved one way, or the reason why it cannot be.

Backwards through what feeds it, or forwards through what it feeds, to calls that take it up. A move
changes the values of the tensors on its way, and is allowed only where every call that sees one of
them takes part in it.
"""

from __future__ import annotations

import heapq
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from .affine import MOST_CANCELLED, Affine, CannotFoldError
from .graph import Call, Graph, Op, Tensor
from .normalization import Normalization
from .propagation import Maps, PropagationRule
from .targets import FoldTarget, PendingFold


@dataclass
class FoldingState:
    """What is decided so far.

    Attributes:
        graph: without the batch norms that were removed.
        excluded: operations that may take nothing up, and why.
        pending: what operations are to take up.
    """

    graph: Graph
    excluded: Mapping[Op, str] = field(default_factory=dict)
    pending: dict[Op, PendingFold] = field(default_factory=dict)

    def pending_for(self, op: Op) -> PendingFold:
        return self.pending.get(op, PendingFold())

    def normalization(self, op: Op) -> Normalization:
        assert op.normalization is not None, op
        return op.normalization

    def sample_map(self, call: Call) -> Affine:
        """The map that one call of a batch norm is at inference, or CannotFoldError."""
        if call.obstacle is not None:
            raise CannotFoldError(f"it {call.obstacle}")
        return self.normalization(call.op).sample_map(call, self.pending_for(call.op))


@dataclass(frozen=True)
class Move:
    """How a batch norm is removed.

    Attributes:
        backwards: whether its map goes into outputs of the targets; otherwise into their inputs.
        targets: what takes the map up, and the map in each one's own form.
        removed: the batch norm, and others that compute the same and go with it.
    """

    backwards: bool
    targets: Mapping[Op, Affine]
    removed: tuple[Op, ...]


def move_backward(state: FoldingState, batch_norm: Op, allow_merge: bool) -> Move:
    """Replace every tensor on the path by its mapped value: the batch norm has nothing left to do.

    Args:
        state: what is decided so far; not changed.
        batch_norm: an operation of the graph that is one.
        allow_merge: whether other batch norms may take it up.

    Raises:
        CannotFoldError: it cannot be moved so.
    """
    return _Backward(state, batch_norm, allow_merge).search()


def move_forward(state: FoldingState, batch_norm: Op, allow_merge: bool) -> Move:
    """Leave tensors on the path un-normalised: the calls that consume them apply the map."""
    return _Forward(state, batch_norm, allow_merge).search()


class _Search:
    """What both ways have in common.

    Attributes:
        maps: the affine map of each tensor that changes.
        targets: what takes the map up, in the target's form.
        removed: the batch norms that go.
    """

    def __init__(self, state: FoldingState, batch_norm: Op, allow_merge: bool) -> None:
        self.state, self.graph, self.allow_merge = state, state.graph, allow_merge
        self.batch_norm = batch_norm
        self.dtype = self.graph.of(batch_norm)[0].dtype
        self.maps: dict[Tensor, Affine] = {}
        self.targets: dict[Op, Affine] = {}
        self.removed: list[Op] = [batch_norm]

    def target_at(self, call: Call) -> FoldTarget | None:
        """What takes a map up at a call; CannotFoldError if no map may reach it."""
        op = call.op
        if call.obstacle is not None:
            raise CannotFoldError(f"{op} {call.obstacle}")
        if call.dtype != self.dtype:
            raise CannotFoldError(f"it computes in {self.dtype} and {op} in {call.dtype}")
        if op in self.removed:
            raise CannotFoldError(f"{op} is shared, and one of its calls feeds another")
        if op.target is None or (op.target.merges and not self.allow_merge):
            return None
        if op in self.state.excluded:
            raise CannotFoldError(self.state.excluded[op])
        return op.target

    def rule_at(self, call: Call) -> PropagationRule:
        if call.op.rule is None:
            raise CannotFoldError(f"{call.op} ({call.op.kind}) can neither take it up nor let it pass")
        return call.op.rule

    def take_up(self, op: Op, affine: Affine) -> None:
        """Note that an operation takes up a map, the same one in all its calls."""
        if not affine.equals(self.targets.setdefault(op, affine)):
            raise CannotFoldError(_shared(op))


class _Backward(_Search):
    def __init__(self, state: FoldingState, batch_norm: Op, allow_merge: bool) -> None:
        super().__init__(state, batch_norm, allow_merge)
        self.crossed: dict[Call, Maps] = {}
        self.through: dict[Tensor, Op] = {}  # mapped because another call of the same operation is

    def search(self) -> Move:
        self._require_before(self.batch_norm)
        while self._require_siblings():
            pass
        self._check_left_alone()
        return Move(True, self.targets, tuple(self.removed))

    def _require_before(self, batch_norm: Op) -> None:
        for call in self.graph.of(batch_norm):
            self._require(call.inputs[0], self.state.sample_map(call))

    def _require(self, tensor: Tensor, affine: Affine) -> None:
        """Ask what makes a tensor to make its map instead."""
        if tensor in self.maps:
            if not affine.equals(self.maps[tensor]):
                raise CannotFoldError("it would have to map one tensor in two ways")
            return
        sizes = np.broadcast_shapes(affine.scale.shape, affine.offset.shape)
        if any(size not in (1, own) for size, own in zip(sizes, tensor.shape[1:], strict=True)):
            raise CannotFoldError(
                "it varies along an axis that one of the tensors before it does not have"
            )
        self.maps[tensor] = affine
        call = tensor.producer
        if call is None:
            raise CannotFoldError("it normalises an input of the model, with no layer before it")
        if (target := self.target_at(call)) is not None:
            self.take_up(call.op, target.output(call, affine))
        else:
            self._cross(call, self.rule_at(call).backward(call, affine))

    def _cross(self, call: Call, possibilities: list[Maps]) -> None:
        """Ask all inputs of a call, by the first possibility that they can all meet."""
        before = self.maps.copy(), self.targets.copy(), self.crossed.copy()
        for number, maps in enumerate(possibilities):
            try:
                self.crossed[call] = maps
                for tensor, affine in zip(call.inputs, maps, strict=True):
                    if affine is not None:
                        self._require(tensor, affine)
                return
            except CannotFoldError:
                if number == len(possibilities) - 1:
                    raise
                self.maps, self.targets, self.crossed = (
                    before[0].copy(),
                    before[1].copy(),
                    before[2].copy(),
                )

    def _require_siblings(self) -> bool:
        """Ask what else must take part: batch norms of one tensor, calls of one layer. Whether any."""
        for tensor, affine in list(self.maps.items()):
            for user in tensor.users:
                if user is not None and (user in self.crossed or user.op in self.removed):
                    continue
                if user is not None and user.op.rule and user.op.rule.takes_nothing(user, affine):
                    continue
                if user is None or not self._computes_the_same(user, affine):
                    op = self.through.get(tensor)
                    raise CannotFoldError(_shared(op) if op else _used_elsewhere(tensor, user))
                self.removed.append(user.op)
                self._require_before(user.op)
                return True
        for op in self.targets:
            outputs = [call.outputs[0] for call in self.graph.of(op)]
            affine = next(self.maps[output] for output in outputs if output in self.maps)
            for output in outputs:
                if output not in self.maps:
                    if len(output.shape) != affine.rank + 1:
                        raise CannotFoldError(_shared(op))
                    self.through[output] = op
                    self._require(output, affine)
                    return True
        return False

    def _computes_the_same(self, call: Call, affine: Affine) -> bool:
        """Whether a call is of another batch norm that computes the same."""
        if call.op.normalization is None or call.dtype != self.dtype:
            return False
        try:
            return self.state.sample_map(call).equals(affine)
        except CannotFoldError:  # a reason of the other one
            return False

    def _check_left_alone(self) -> None:
        for call, maps in self.crossed.items():
            for tensor, affine in zip(call.inputs, maps, strict=True):
                if affine is None and tensor in self.maps:
                    raise CannotFoldError(f"one tensor goes into {call.op} twice")


class _Forward(_Search):
    def __init__(self, state: FoldingState, batch_norm: Op, allow_merge: bool) -> None:
        super().__init__(state, batch_norm, allow_merge)
        self.waiting: list[int] = []  # numbers of calls, a heap
        self.reached: dict[int, Call] = {}

    def search(self) -> Move:
        for call in self.graph.of(self.batch_norm):
            if (given := call.inputs[0].dtype) != self.dtype:
                raise CannotFoldError(f"it computes in {self.dtype} and is given {given}")
            self._leave(call.outputs[0], self.state.sample_map(call))
        while self.waiting:
            call = self.reached[heapq.heappop(self.waiting)]
            maps = [self.maps.get(tensor) for tensor in call.inputs]
            if self._changes_nothing(call):
                continue
            if (target := self.target_at(call)) is not None:
                self.take_up(call.op, target.inputs(call, maps))
            else:
                self._leave(call.outputs[0], self.rule_at(call).forward(call, maps))
        for op in self.targets:
            if any(call.number not in self.reached for call in self.graph.of(op)):
                raise CannotFoldError(_shared(op))
        self._check_digits()
        return Move(False, self.targets, tuple(self.removed))

    def _changes_nothing(self, call: Call) -> bool:
        """Whether what a call makes stays as it is."""
        rule, affine = call.op.rule, self.maps.get(call.inputs[0])
        return rule is not None and affine is not None and rule.takes_nothing(call, affine)

    def _check_digits(self) -> None:
        """Refuse to leave inputs far from 0 to operations that would lose their digits."""
        own = self.state.normalization(self.batch_norm)
        cancelled = own.cancellation(self.state.pending_for(self.batch_norm))
        losing = [
            op for op in self.targets if op.normalization is None or not op.normalization.centers_first
        ]
        if losing and self.dtype != "float64" and cancelled > MOST_CANCELLED:
            raise CannotFoldError(
                f"its inputs are far from 0 beside their deviation, and {losing[0]} would add "
                f"and take off numbers {cancelled:.2g} times as large as its outputs, of which "
                f"{self.dtype} keeps the first digits only; the batch norm takes their mean off first"
            )

    def _leave(self, tensor: Tensor, affine: Affine) -> None:
        """Leave a tensor un-normalised: everything that takes it has to apply the map."""
        self.maps[tensor] = affine
        for user in tensor.users:
            if user is None:
                raise CannotFoldError("its result is an output of the model")
            if user.number not in self.reached:
                self.reached[user.number] = user
                heapq.heappush(self.waiting, user.number)


def _shared(op: Op) -> str:
    return (
        f"{op} is shared: the model calls it more than once, and not all of its calls want "
        "the same change; give each use a layer of its own"
    )


def _used_elsewhere(tensor: Tensor, user: Call | None) -> str:
    where = "as an output of the model" if user is None else f"by {user.op}"
    name = str(tensor.producer.op) if tensor.producer else "'the input'"
    return f"the output of {name} is used by more than this batch norm: {where} too"
