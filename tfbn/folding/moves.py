"""One batch norm moved one way, or the reason why it cannot be.

Backwards through what feeds it, or forwards through what it feeds, to layers that take it up. A move
changes the values of the tensors on its way, and is allowed only where every call that sees one of
them takes part in it.
"""

from __future__ import annotations

import heapq
from abc import ABC
from collections import defaultdict

import keras
import numpy as np

from ..axes import channel_axes
from ..batch_norms import AnyBatchNorm, inference_affine, is_batch_norm
from ..layer import BatchNorm
from .affine import MOST_CANCELLED, Affine, CannotFoldError
from .graph import Call, Graph, Tensor
from .normalizing import apply_pending, check_batch_norm, most_cancelled
from .propagation import Maps, PropagationRule
from .rules import BATCH_NORM_CLASSES, fold_target_for, propagation_rule_for
from .targets import FoldTarget, PendingFold


class FoldingState:
    """What is decided so far.

    Attributes:
        graph: without the batch norms that have gone.
        banned: layers that may take nothing up, by `id`, and why.
        changes: what each layer has taken up, by `id`.
    """

    def __init__(self, graph: Graph, excluded: dict[int, str]) -> None:
        self.graph, self.excluded = graph, excluded
        self.pending: dict[int, PendingFold] = defaultdict(PendingFold)
        self._own: dict[AnyBatchNorm, Affine] = {}

    def normalized(self, call: Call) -> Affine:
        """The map that one call of a batch norm is at inference, with all it has taken up itself."""
        layer = call.layer
        check_batch_norm(call)
        if layer not in self._own:
            self._own[layer] = Affine(*(one.reshape(-1) for one in inference_affine(layer)))
        own = apply_pending(self._own[layer], self.pending.get(id(layer), PendingFold()))
        shape = call.inputs[0].shape
        axes = channel_axes(layer.axis, len(shape))
        sizes = iter(layer.moving_mean.shape)  # in the order of the tensor's axes
        along = [next(sizes) if axis in axes else 1 for axis in range(len(shape))][1:]
        channels = np.prod(along)
        affine = own.map(lambda one: np.broadcast_to(one, channels).reshape(along))
        if not (np.isfinite(affine.scale).all() and np.isfinite(affine.offset).all()):
            raise CannotFoldError(
                f"the scale or offset of {layer.name!r} is not finite; mend its weights"
            )
        return affine


class Move(ABC):
    """One batch norm moved one way: what is mapped, and what takes the map up.

    Attributes:
        maps: the affine map of each tensor that changes.
        taken: the layers that take it up, by `id`, and the map in the layer's form.
        gone: the batch norms that go.
    """

    backwards: bool

    def __init__(self, state: FoldingState, batch_norm: AnyBatchNorm, allow_merge: bool) -> None:
        self.state, self.graph, self.allow_merge = state, state.graph, allow_merge
        self.dtype = batch_norm.compute_dtype
        self.maps: dict[Tensor, Affine] = {}
        self.targets: dict[int, tuple[keras.layers.Layer, Affine]] = {}
        self.removed: list[AnyBatchNorm] = [batch_norm]

    def absorber(self, call: Call) -> FoldTarget | None:
        """What takes a map up at a call; CannotFoldError if no map may reach it."""
        layer = call.layer
        if call.masked:
            raise CannotFoldError(f"{layer.name!r} is called with a mask")
        if call.dtype != self.dtype:
            raise CannotFoldError(f"it computes in {self.dtype} and {layer.name!r} in {call.dtype}")
        if layer in self.removed:
            raise CannotFoldError(f"{layer.name!r} is shared, and one of its calls feeds another")
        if isinstance(layer, BATCH_NORM_CLASSES) and not self.allow_merge:
            return None
        absorber = fold_target_for(layer)
        if absorber is not None and id(layer) in self.state.excluded:
            raise CannotFoldError(self.state.excluded[id(layer)])
        return absorber

    def crossing(self, call: Call) -> PropagationRule:
        crossing = propagation_rule_for(call.layer)
        if crossing is None:
            raise CannotFoldError(
                f"{call.layer.name!r} ({type(call.layer).__name__}) can neither take it up nor let it "
                "pass"
            )
        return crossing

    def take(self, layer: keras.layers.Layer, affine: Affine) -> None:
        """Note that a layer takes up a map, the same one in all its calls."""
        _, other = self.targets.setdefault(id(layer), (layer, affine))
        if not affine.equals(other):
            raise CannotFoldError(shared(layer))


class Backward(Move):
    """Tensors on the path are replaced by their mapped values; the batch norm has nothing left to do."""

    backwards = True

    def __init__(self, state: FoldingState, batch_norm: AnyBatchNorm, allow_merge: bool) -> None:
        super().__init__(state, batch_norm, allow_merge)
        self.crossed: dict[Call, Maps] = {}
        self.through: dict[Tensor, keras.layers.Layer] = {}  # asked only because the layer is shared
        self._require_before(batch_norm)
        while self._require_siblings():
            pass
        self._check_left_alone()

    def _require_before(self, batch_norm: AnyBatchNorm) -> None:
        for call in self.graph.of(batch_norm):
            self._require(call.inputs[0], self.state.normalized(call))

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
        call = tensor.source
        if call is None:
            raise CannotFoldError("it normalises an input of the model, with no layer before it")
        if (absorber := self.absorber(call)) is not None:
            self.take(call.layer, absorber.output(call, affine))
        else:
            self._cross(call, self.crossing(call).backward(call, affine))

    def _cross(self, call: Call, possibilities: list[Maps]) -> None:
        """Ask all inputs of a call, by the first possibility that they can all meet."""
        before = [one.copy() for one in (self.maps, self.targets, self.crossed)]
        for number, maps in enumerate(possibilities):
            try:
                self.crossed[call] = maps
                for tensor, one in zip(call.inputs, maps, strict=True):
                    if one is not None:
                        self._require(tensor, one)
                return
            except CannotFoldError:
                if number == len(possibilities) - 1:
                    raise
                self.maps, self.targets, self.crossed = (one.copy() for one in before)  # type: ignore[assignment]

    def _require_siblings(self) -> bool:
        """Ask what else must take part: batch norms of one tensor, calls of one layer. Whether any."""
        for tensor, affine in list(self.maps.items()):
            for user in tensor.users:
                if user is not None and (user in self.crossed or user.layer in self.removed):
                    continue
                if user is None or not self._alike(user, affine):
                    layer = self.through.get(tensor)
                    raise CannotFoldError(shared(layer) if layer else used_elsewhere(tensor, user))
                self.removed.append(user.layer)
                self._require_before(user.layer)
                return True
        for layer, _ in self.targets.values():
            calls = self.graph.of(layer)
            (affine, *_) = (self.maps[one.outputs[0]] for one in calls if one.outputs[0] in self.maps)
            for call in calls:
                output = call.outputs[0]
                if output not in self.maps:
                    if len(output.shape) != affine.rank + 1:
                        raise CannotFoldError(shared(layer))
                    self.through[output] = layer
                    self._require(output, affine)
                    return True
        return False

    def _alike(self, call: Call, affine: Affine) -> bool:
        """Whether a call is of another batch norm that computes the same."""
        if not is_batch_norm(call.layer) or call.dtype != self.dtype:
            return False
        try:
            return self.state.normalized(call).equals(affine)
        except CannotFoldError:  # a reason of the other one
            return False

    def _check_left_alone(self) -> None:
        for call, maps in self.crossed.items():
            for tensor, one in zip(call.inputs, maps, strict=True):
                if one is None and tensor in self.maps:
                    raise CannotFoldError(f"one tensor goes into {call.layer.name!r} twice")


class Forward(Move):
    """Tensors on the path stay un-normalised; the layers that consume them apply the map."""

    backwards = False

    def __init__(self, state: FoldingState, batch_norm: AnyBatchNorm, allow_merge: bool) -> None:
        super().__init__(state, batch_norm, allow_merge)
        self.waiting: list[int] = []
        self.reached: dict[int, Call] = {}
        for call in self.graph.of(batch_norm):
            if (given := call.inputs[0].dtype) != self.dtype:
                raise CannotFoldError(f"it computes in {self.dtype} and is given {given}")
            self._map(call.outputs[0], state.normalized(call))
        while self.waiting:
            call = self.reached[heapq.heappop(self.waiting)]
            maps = [self.maps.get(tensor) for tensor in call.inputs]
            if (absorber := self.absorber(call)) is not None:
                self.take(call.layer, absorber.input(call, self.maps[call.inputs[0]]))
            else:
                self._map(call.outputs[0], self.crossing(call).forward(call, maps))
        for layer, _ in self.targets.values():
            if any(call.number not in self.reached for call in self.graph.of(layer)):
                raise CannotFoldError(shared(layer))
        self._check_digits(batch_norm)

    def _check_digits(self, batch_norm: AnyBatchNorm) -> None:
        """Refuse to leave inputs far from 0 to layers that would lose their digits."""
        pending = self.state.pending.get(id(batch_norm), PendingFold())
        losing = [one for one, _ in self.targets.values() if not isinstance(one, BatchNorm)]
        cancelled = most_cancelled(batch_norm, pending)
        if losing and self.dtype != "float64" and cancelled > MOST_CANCELLED:
            raise CannotFoldError(
                f"its inputs are far from 0 beside their deviation, and {losing[0].name!r} would add "
                f"and take off numbers {cancelled:.2g} times as large as its outputs, of which "
                f"{self.dtype} keeps the first digits only; the batch norm takes their mean off first"
            )

    def _map(self, tensor: Tensor, affine: Affine) -> None:
        self.maps[tensor] = affine
        for user in tensor.users:
            if user is None:
                raise CannotFoldError("its result is an output of the model")
            if user.number not in self.reached:
                self.reached[user.number] = user
                heapq.heappush(self.waiting, user.number)


def shared(layer: keras.layers.Layer) -> str:
    return (
        f"{layer.name!r} is shared: the model calls it more than once, and not all of its calls want "
        "the same change; give each use a layer of its own"
    )


def used_elsewhere(tensor: Tensor, user: Call | None) -> str:
    where = "as an output of the model" if user is None else f"by {user.layer.name!r}"
    name = tensor.source.layer.name if tensor.source else "the input"
    return f"the output of {name!r} is used by more than this batch norm: {where} too"
