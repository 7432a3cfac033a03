"""Decide where each batch norm goes, before anything is built.

A batch norm is moved to where something absorbs it: backwards through what feeds it, or forwards
through what it feeds. Each move changes the values of the tensors on its way, and is allowed only
where every call that sees one of them takes part in the move.
"""

from __future__ import annotations

import heapq
from abc import ABC
from collections import defaultdict

import keras
import numpy as np

from ..axes import channel_axes
from ..batch_norms import Batchnorm, inference_affine, is_batch_norm
from .absorbing import Absorber, Change
from .affine import Affine, StaysError
from .crossing import Crossing, Maps
from .graph import Call, Graph, Tensor
from .normalizing import changed, check_batch_norm
from .rules import MERGED_INTO, absorber_for, crossing_for


class Plan:
    """What becomes of a model's batch norms.

    Attributes:
        changes: what each layer takes up, by `id`.
        into: for each batch norm that goes, the layers that take it up.
        reasons: for each one that stays, why.
    """

    def __init__(self, graph: Graph, banned: dict[int, str]) -> None:
        """Plan for all batch norms of a graph, which is changed on the way.

        Args:
            graph: of the whole model.
            banned: layers that may take nothing up, by `id`, and why.
        """
        self.graph = graph
        self.banned = banned | _tied(graph)
        self.changes: dict[int, Change] = defaultdict(Change)
        self.into: dict[Batchnorm, list[keras.layers.Layer]] = {}
        self.reasons: dict[Batchnorm, str] = {}
        self._affines: dict[Batchnorm, Affine] = {}
        left = list(dict.fromkeys(call.layer for call in graph.calls if is_batch_norm(call.layer)))
        for merging in (False, True):
            while self._pass(left, merging):
                left = [layer for layer in left if layer not in self.into]
        self.reasons = {layer: self.reasons[layer] for layer in left}

    def _pass(self, left: list[Batchnorm], merging: bool) -> bool:
        """Try each batch norm that is left, backwards and then forwards; whether any went."""
        before = len(self.into)
        for layer in left:
            if layer in self.into:
                continue
            reasons = []
            for kind in (Backward, Forward):
                try:
                    self._commit(kind(self, layer, merging))
                    break
                except StaysError as reason:
                    reasons.append(str(reason))
            else:
                same = reasons[0] == reasons[1]
                both = reasons[0] if same else f"backwards, {reasons[0]}; forwards, {reasons[1]}"
                self.reasons[layer] = both
        return len(self.into) > before

    def _commit(self, move: Move) -> None:
        for layer, affine in move.taken.values():
            change = self.changes[id(layer)]
            change = change.with_after(affine) if move.backwards else change.with_before(affine)
            self.changes[id(layer)] = change
        for batch_norm in move.gone:
            self.into[batch_norm] = [layer for layer, _ in move.taken.values()]
            self.graph.drop(batch_norm)

    def normalized(self, call: Call) -> Affine:
        """The map that one call of a batch norm is at inference, with all it has taken up itself."""
        layer = call.layer
        check_batch_norm(call)
        if layer not in self._affines:
            self._affines[layer] = Affine(*(one.reshape(-1) for one in inference_affine(layer)))
        own = changed(self._affines[layer], self.changes.get(id(layer), Change()))
        shape = call.inputs[0].shape
        axes = channel_axes(layer.axis, len(shape))
        sizes = iter(layer.moving_mean.shape)  # in the order of the tensor's axes
        along = [next(sizes) if axis in axes else 1 for axis in range(len(shape))][1:]
        channels = np.prod(along)
        affine = own.map(lambda one: np.broadcast_to(one, channels).reshape(along))
        if not (np.isfinite(affine.scale).all() and np.isfinite(affine.offset).all()):
            raise StaysError(f"the scale or offset of {layer.name!r} is not finite; mend its weights")
        return affine

    def absorbing_layers(self, batch_norm: Batchnorm) -> list[keras.layers.Layer]:
        """Where a batch norm went in the end, also when it was merged into others that went."""
        found: dict[int, keras.layers.Layer] = {}
        for layer in self.into[batch_norm]:
            if isinstance(layer, MERGED_INTO) and layer in self.into:
                found |= {id(one): one for one in self.absorbing_layers(layer)}
            else:
                found[id(layer)] = layer
        return list(found.values())


class Move(ABC):
    """One batch norm moved one way: what is mapped, and what takes the map up.

    Attributes:
        maps: the affine map of each tensor that changes.
        taken: the layers that take it up, by `id`, and the map in the layer's form.
        gone: the batch norms that go.
    """

    backwards: bool

    def __init__(self, plan: Plan, batch_norm: Batchnorm, merging: bool) -> None:
        self.plan, self.graph, self.merging = plan, plan.graph, merging
        self.dtype = batch_norm.compute_dtype
        self.maps: dict[Tensor, Affine] = {}
        self.taken: dict[int, tuple[keras.layers.Layer, Affine]] = {}
        self.gone: list[Batchnorm] = [batch_norm]

    def absorber(self, call: Call) -> Absorber | None:
        """What takes a map up at a call; StaysError if no map may reach it."""
        layer = call.layer
        if call.masked or call.named:
            what = "a mask" if call.masked else "arguments by name"
            raise StaysError(f"{layer.name!r} is called with {what}")
        if call.dtype != self.dtype:
            raise StaysError(f"it computes in {self.dtype} and {layer.name!r} in {call.dtype}")
        if layer in self.gone:
            raise StaysError(f"{layer.name!r} is shared, and one of its calls feeds another")
        if isinstance(layer, MERGED_INTO) and not self.merging:
            return None
        absorber = absorber_for(layer)
        if absorber is not None and id(layer) in self.plan.banned:
            raise StaysError(self.plan.banned[id(layer)])
        return absorber

    def crossing(self, call: Call) -> Crossing:
        crossing = crossing_for(call.layer)
        if crossing is None:
            raise StaysError(
                f"{call.layer.name!r} ({type(call.layer).__name__}) can neither take it up nor let it "
                "pass"
            )
        return crossing

    def take(self, layer: keras.layers.Layer, affine: Affine) -> None:
        """Note that a layer takes up a map, the same one in all its calls."""
        _, other = self.taken.setdefault(id(layer), (layer, affine))
        if not affine.equals(other):
            raise StaysError(f"{shared(layer)}, and would have to take up another map for each call")


class Backward(Move):
    """Each tensor on the way becomes its map of what it was, so that the batch norm is done already."""

    backwards = True

    def __init__(self, plan: Plan, batch_norm: Batchnorm, merging: bool) -> None:
        super().__init__(plan, batch_norm, merging)
        self.crossed: dict[Call, Maps] = {}
        self._ask_before(batch_norm)
        while self._ask_others():
            pass
        self._check_left_alone()

    def _ask_before(self, batch_norm: Batchnorm) -> None:
        for call in self.graph.of(batch_norm):
            self._ask(call.inputs[0], self.plan.normalized(call))

    def _ask(self, tensor: Tensor, affine: Affine) -> None:
        """Ask what makes a tensor to make its map instead."""
        if tensor in self.maps:
            if not affine.equals(self.maps[tensor]):
                raise StaysError("it would have to map one tensor in two ways")
            return
        sizes = np.broadcast_shapes(affine.scale.shape, affine.offset.shape)
        if any(size not in (1, own) for size, own in zip(sizes, tensor.shape[1:], strict=True)):
            raise StaysError("it varies along an axis that one of the tensors before it does not have")
        self.maps[tensor] = affine
        call = tensor.source
        if call is None:
            raise StaysError("it normalises an input of the model, with no layer before it")
        if (absorber := self.absorber(call)) is not None:
            self.take(call.layer, absorber.output(call, affine))
        else:
            self._cross(call, self.crossing(call).backward(call, affine))

    def _cross(self, call: Call, possibilities: list[Maps]) -> None:
        """Ask all inputs of a call, by the first possibility that they can all meet."""
        before = [one.copy() for one in (self.maps, self.taken, self.crossed)]
        for number, maps in enumerate(possibilities):
            try:
                self.crossed[call] = maps
                for tensor, one in zip(call.inputs, maps, strict=True):
                    if one is not None:
                        self._ask(tensor, one)
                return
            except StaysError:
                if number == len(possibilities) - 1:
                    raise
                self.maps, self.taken, self.crossed = (one.copy() for one in before)  # type: ignore[assignment]

    def _ask_others(self) -> bool:
        """Ask what else must take part: batch norms of one tensor, calls of one layer. Whether any."""
        for tensor, affine in list(self.maps.items()):
            for user in tensor.users:
                if user is not None and (user in self.crossed or user.layer in self.gone):
                    continue
                if user is None or not self._alike(user, affine):
                    raise StaysError(used_elsewhere(tensor, user))
                self.gone.append(user.layer)
                self._ask_before(user.layer)
                return True
        for layer, _ in self.taken.values():
            calls = self.graph.of(layer)
            (affine, *_) = (self.maps[one.outputs[0]] for one in calls if one.outputs[0] in self.maps)
            for call in calls:
                output = call.outputs[0]
                if output not in self.maps:
                    if len(output.shape) != affine.rank + 1:
                        raise StaysError(shared(layer))
                    self._ask(output, affine)
                    return True
        return False

    def _alike(self, call: Call, affine: Affine) -> bool:
        """Whether a call is of another batch norm that computes the same."""
        return (
            is_batch_norm(call.layer)
            and call.dtype == self.dtype
            and self.plan.normalized(call).equals(affine)
        )

    def _check_left_alone(self) -> None:
        for call, maps in self.crossed.items():
            for tensor, one in zip(call.inputs, maps, strict=True):
                if one is None and tensor in self.maps:
                    raise StaysError(f"one tensor goes into {call.layer.name!r} twice")


class Forward(Move):
    """Each tensor on the way becomes what it was a map of, and what takes it does the map itself."""

    backwards = False

    def __init__(self, plan: Plan, batch_norm: Batchnorm, merging: bool) -> None:
        super().__init__(plan, batch_norm, merging)
        self.waiting: list[int] = []
        self.reached: dict[int, Call] = {}
        for call in self.graph.of(batch_norm):
            self._map(call.outputs[0], plan.normalized(call))
        while self.waiting:
            call = self.reached[heapq.heappop(self.waiting)]
            maps = [self.maps.get(tensor) for tensor in call.inputs]
            if (absorber := self.absorber(call)) is not None:
                self.take(call.layer, absorber.input(call, self.maps[call.inputs[0]]))
            else:
                self._map(call.outputs[0], self.crossing(call).forward(call, maps))
        for layer, _ in self.taken.values():
            if any(call.number not in self.reached for call in self.graph.of(layer)):
                raise StaysError(shared(layer))

    def _map(self, tensor: Tensor, affine: Affine) -> None:
        self.maps[tensor] = affine
        for user in tensor.users:
            if user is None:
                raise StaysError("its result is an output of the model")
            if user.number not in self.reached:
                self.reached[user.number] = user
                heapq.heappush(self.waiting, user.number)


def shared(layer: keras.layers.Layer) -> str:
    return f"{layer.name!r} is shared: the model calls it more than once"


def used_elsewhere(tensor: Tensor, user: Call | None) -> str:
    where = "as an output of the model" if user is None else f"by {user.layer.name!r}"
    name = tensor.source.layer.name if tensor.source else "the input"
    return f"the output of {name!r} is used by more than this batch norm: {where} too"


def _tied(graph: Graph) -> dict[int, str]:
    """Layers with a weight that another layer has too, by `id`, and the reason to leave them alone."""
    layers = {id(call.layer): call.layer for call in graph.calls if hasattr(call.layer, "weights")}
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
