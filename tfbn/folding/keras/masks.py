"""Masks, which go from layer to layer beside the values, and must do so without a batch norm as well.

Keras writes the mask that it hands a layer into the model's configuration in most calls, and there it
stays. In the others the layer finds the mask on its input when the model runs, which without the batch
norm is the batch norm's input. No layer in the tables but Masking computes its mask of values.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from typing import Any

import keras

from ...batch_norms import layer_paths, sublayers
from ..core.graph import Call, Tensor
from ..core.propagation import PassThrough
from .given import is_mask, parameters
from .operations import class_of
from .tables import Step

L, ops = keras.layers, keras.ops

GIVEN_ANOTHER = (
    "is called with a mask that its input does not have when the model runs, and hands it on to the "
    "layers after it; give them the mask themselves, and normalise without one"
)
TAKES_IT_OFF = (
    "does not support masking, so that the layers after it find no mask, as they would without it"
)
CLEARED = (
    "is given a tensor with a mask, which MultiHeadAttention takes off its inputs, and something else "
    "finds it there"
)
BY_VALUES = (
    "finds by its input's values what is to be masked, as Masking does, so that they have to stay"
)
MULTIPLIED = "puts 1 in the place of what is masked, which no scale reaches"
# What looks for masks on its inputs, whatever it is given: attention even where that is its query's.
_FIND_MASKS = (L.MultiHeadAttention, L.Multiply, L.Maximum, L.Minimum)
_ANY_OF = (L.Add, L.Subtract, L.Average, L.Maximum, L.Minimum, L.Multiply)


class Masks:
    """The masks that calls of a graph are given.

    Attributes:
        given: by call and parameter.
        sequences: of each call that puts steps together, the sequence that they were taken from.
        unknown: tensors that may have any mask.
    """

    def __init__(self) -> None:
        self.given: dict[Call, Mapping[str, Any]] = {}
        self.sequences: dict[Call, Tensor] = {}
        self.unknown: set[Tensor] = set()

    def obstacle(self, call: Call) -> str | None:
        """Why a call may not go or be crossed, or None. Asked when the graph is complete."""
        if isinstance(call.op.origin, L.Multiply):
            return MULTIPLIED if any(map(self._may_have_one, call.inputs)) else None
        if call.op.normalization is None:
            return None
        before, after = call.inputs[0], call.outputs[0]
        if not call.op.origin.supports_masking and self._may_have_one(before):
            return TAKES_IT_OFF
        mask = self.given[call].get("mask")
        own = mask is None or self.is_own(mask, before, call)
        if not own and self._is_found(after.users):
            return GIVEN_ANOTHER
        return CLEARED if self._would_be_cleared(before) else None

    def is_own(self, mask: Any, tensor: Tensor, reader: Call | None = None) -> bool:
        """Whether a mask is the one that Keras gives a tensor without being told, as a call finds it."""
        while (call := tensor.producer) is not None and not _may_be_cleared(tensor, reader):
            layer = call.op.origin
            if isinstance(layer, L.Embedding):
                return bool(layer.mask_zero) and _tells_from(mask, call.inputs[0], 0)
            if isinstance(layer, L.Masking):
                return _tells_from(_whole(mask), call.inputs[0], layer.mask_value)
            if isinstance(layer, _ANY_OF):
                return self._is_any_of(mask, call.inputs, call)
            if self.given[call].get("mask", mask) is not mask or not _hands_on(layer):
                return False
            tensor, reader = self.sequences.get(call, call.inputs[0]), call
        return False

    def _is_any_of(self, mask: Any, tensors: Sequence[Tensor], reader: Call) -> bool:
        *others, last = tensors
        if not others:
            return self.is_own(mask, last, reader)
        made = _made(mask, "or")
        if made is None or len(made.inputs) < 2:
            return False
        first, second = made.inputs[:2]
        return self._is_any_of(first, others, reader) and self.is_own(second, last, reader)

    def _may_have_one(self, tensor: Tensor) -> bool:
        waiting, seen = [tensor], set()
        while waiting:
            tensor = waiting.pop()
            if tensor in self.unknown:
                return True
            call = tensor.producer
            if call is None or call in seen:
                continue
            seen.add(call)
            layer = call.op.origin
            if not _may_hand_on(layer) and not _may_make_one(layer):
                continue
            if self.given[call] or isinstance(layer, keras.Model) or _may_make_one(layer):
                return True
            waiting += [self.sequences[call]] if call in self.sequences else call.inputs
        return False

    def _is_found(self, users: Sequence[Call | None]) -> bool:
        """Whether one of these calls, or one behind them, looks for a mask on its input."""
        waiting, seen = [user for user in users if user is not None], set()
        while waiting:
            call = waiting.pop()
            if call in seen:
                continue
            seen.add(call)
            if call.op.normalization is None and self._looks_for_one(call):
                return True
            if _may_hand_on(call.op.origin):
                waiting += [user for output in call.outputs for user in output.users if user is not None]
        return False

    def _looks_for_one(self, call: Call) -> bool:
        layer, names, masks = call.op.origin, call.attributes["names"], self.given[call]
        if isinstance(layer, _FIND_MASKS):
            return True
        taken = [name for name in parameters(layer) if is_mask(name)]
        if not taken:  # those inside may
            return isinstance(layer, L.Layer) and bool(sublayers(layer))
        return isinstance(layer, L.Layer) and any(
            masks.get(name) is None and (name == "mask" or name[:-5] in names) for name in taken
        )

    def _would_be_cleared(self, tensor: Tensor) -> bool:
        """Whether attention would take the mask off a tensor that others are to find it on."""
        while (call := tensor.producer) is not None and _may_go(call):
            tensor = call.inputs[0]
        users = list(dict.fromkeys(_users(tensor)))
        attending = [user for user in users if _attends(user.op.origin)]
        others = users if len(attending) > 1 else [user for user in users if user not in attending]
        return bool(attending) and self._is_found(others) and self._may_have_one(tensor)


def masks_by_values(layer: Any) -> bool:
    """Whether a mask is made of what a layer or operation is given."""
    return isinstance(layer, L.Masking) or type(layer) is _operations()["differs"]


def _attends(layer: Any) -> bool:
    """Whether a layer is attention, which takes masks off its inputs, or has some inside."""
    return isinstance(layer, L.Layer) and any(
        isinstance(part, L.MultiHeadAttention) for part in (layer, *layer_paths(layer).values())
    )


def _may_be_cleared(tensor: Tensor, reader: Call | None) -> bool:
    """Whether attention may take the mask off a tensor before a call finds it there.

    Layers that do nothing at inference, such as Dropout, return the tensor itself.
    """
    users = [user for user in tensor.users if user is not None and user is not reader]
    return any(
        _attends(user.op.origin)
        or (isinstance(user.op.rule, PassThrough) and _may_be_cleared(user.outputs[0], None))
        for user in users
    )


def _users(tensor: Tensor) -> Iterator[Call]:
    """What takes a tensor where all batch norms are gone, and all that hands on what it was given."""
    for user in filter(None, tensor.users):
        if _may_go(user):
            for output in user.outputs:
                yield from _users(output)
        else:
            yield user


def _may_go(call: Call) -> bool:
    return call.op.normalization is not None or isinstance(call.op.rule, PassThrough)


def _hands_on(layer: Any) -> bool:
    """Whether a layer's output has the mask of its first input."""
    if isinstance(layer, (L.RNN, L.Bidirectional)):
        return layer.return_sequences
    if not isinstance(layer, L.Layer):
        return isinstance(layer, Step)
    return layer.supports_masking and type(layer).compute_mask is L.Layer.compute_mask


def _may_hand_on(layer: Any) -> bool:
    """Whether a layer's output may have a mask."""
    if isinstance(layer, (L.RNN, L.Bidirectional)):
        return layer.return_sequences
    return isinstance(layer, (Step, keras.Model)) or getattr(layer, "supports_masking", False)


def _may_make_one(layer: Any) -> bool:
    """Whether a layer, or one inside it, may give its output a mask that its input does not have."""
    if not isinstance(layer, L.Layer):
        return False
    return any(
        isinstance(part, L.Masking)
        or getattr(part, "mask_zero", False)
        or not (type(part).compute_mask.__module__.startswith("keras."))
        for part in (layer, *layer_paths(layer).values())
    )


def _tells_from(mask: Any, tensor: Tensor, value: Any) -> bool:
    """Whether a mask tells what of a tensor differs from a value."""
    made = _made(mask, "differs")
    return made is not None and made.arguments[0] is tensor and made.arguments[1] == value


def _whole(mask: Any) -> Any:
    """The array of which a mask tells where there is anything along the last axis."""
    made = _made(mask, "any")
    if made is None or made.op.origin.keepdims or made.op.origin.axis not in (-1, [-1], (-1,)):
        return None
    return made.arguments[0]


def _made(mask: Any, how: str) -> Call | None:
    """The call that makes a mask, if it is of this operation."""
    call = mask.producer if isinstance(mask, Tensor) else None
    return call if call is not None and type(call.op.origin) is _operations()[how] else None


@cache
def _operations() -> dict[str, type]:
    return {
        "differs": class_of(lambda x: ops.not_equal(x, 0)),
        "any": class_of(lambda x: ops.any(x, -1)),
        "or": class_of(lambda x: ops.logical_or(x, x)),
    }
