"""What the rules ask about a node, by the names that Keras has for it: arguments and attributes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from .nodes import attribute
from .units import ARITHMETIC, constant_for, is_channels_first

# The values of a node's inputs, `None` for those that are tensors, and the rank of its output.
Values = Sequence["np.ndarray | None"]


class Input(int):
    """The number of a node's input that is a tensor, in the place of that tensor."""


class Described(NamedTuple):
    """What a node is called with.

    Attributes:
        arguments: an `Input` for each tensor, and constants.
        attributes: what rules ask about it.
    """

    arguments: Sequence[Any]
    attributes: dict[str, Any]


def described(node: Any, values: Values, rank: int) -> Described | None:
    """What a node is called with; `None` where it is called with what no rule expects."""
    describe = _DESCRIBED.get(node.op)
    if describe is None:
        return Described([*map(Input, range(len(values)))], _format_of(node))
    return describe(node, values, rank)


def _format_of(node: Any) -> dict[str, Any]:
    return {"data_format": "channels_first" if is_channels_first(node) else "channels_last"}


def _arithmetic(node: Any, values: Values, rank: int) -> Described | None:
    arguments: list[Any] = []
    for number, value in enumerate(values):
        if value is None:
            arguments.append(Input(number))
        elif value.ndim > rank or value.dtype.kind not in "fV":
            return None
        else:  # without the axis of the samples, if that has one place
            constant = constant_for(node, value, rank)
            arguments.append(constant[0] if rank and len(constant) == 1 else constant)
    return Described(arguments, {})


def _pool(node: Any, values: Values, rank: int) -> Described | None:
    sizes = list(attribute(node, "ksize").list.i)
    channel = 1 if is_channels_first(node) else rank - 1
    if len(sizes) != rank or sizes[0] != 1 or sizes[channel] != 1:
        return None
    return Described([Input(0)], _format_of(node))


def _reduction(node: Any, values: Values, rank: int) -> Described | None:
    axes = values[1]
    if axes is None:
        return None
    return Described(
        [Input(0)], {"axis": axes.ravel().tolist(), "keepdims": attribute(node, "keep_dims").b}
    )


def _concat(node: Any, values: Values, rank: int) -> Described | None:
    axis = values[-1]
    if axis is None or any(value is not None for value in values[:-1]):
        return None
    return Described([*map(Input, range(len(values) - 1))], {"axis": int(axis)})


def _pad(node: Any, values: Values, rank: int) -> Described | None:
    widths, *number = values[1:]
    if widths is None or any(value is None for value in number):
        return None
    mode = attribute(node, "mode").s.decode().lower() or "constant"
    added = [value.item() for value in number if value is not None]
    return Described([Input(0), *added], {"pad_width": widths, "mode": mode})


def _transpose(node: Any, values: Values, rank: int) -> Described | None:
    return None if values[1] is None else Described([Input(0)], {"axes": values[1].tolist()})


def _first_only(node: Any, values: Values, rank: int) -> Described | None:
    return Described([Input(0)], _format_of(node))


def _blocks(node: Any, values: Values, rank: int) -> Described | None:
    """Blocks of space, not of channels."""
    block = values[1]
    return None if block is None or len(block) > rank - 2 else Described([Input(0)], {})


def _split(node: Any, values: Values, rank: int) -> Described | None:
    axis = values[0]
    if axis is None:
        return None
    sections = int(attribute(node, "num_split").i)
    return Described([Input(1)], {"axis": int(axis), "indices_or_sections": sections})


def _strided_slice(node: Any, values: Values, rank: int) -> Described | None:
    """The places that `x[…]` names, as it was written."""
    begin, end, stride = values[1:4]
    if begin is None or end is None or stride is None or attribute(node, "new_axis_mask").i:
        return None

    def masked(name: str, number: int) -> bool:
        return bool(attribute(node, name).i >> number & 1)

    key: list[Any] = []
    for number, (first, last, step) in enumerate(zip(begin, end, stride, strict=True)):
        if masked("ellipsis_mask", number):
            key.append(...)
        elif masked("shrink_axis_mask", number):
            key.append(int(first))
        else:
            start = None if masked("begin_mask", number) else int(first)
            stop = None if masked("end_mask", number) else int(last)
            key.append(slice(start, stop, int(step)))
    return Described([Input(0), *(key if ... in key else [*key, ...])], {})


_Describe = Callable[[Any, Values, int], "Described | None"]
_DESCRIBED: dict[str, _Describe] = {
    **dict.fromkeys(ARITHMETIC, _arithmetic),
    **dict.fromkeys(("MaxPool", "AvgPool", "MaxPool3D", "AvgPool3D"), _pool),
    **dict.fromkeys(("Mean", "Sum", "Max", "Min"), _reduction),
    "ConcatV2": _concat,
    **dict.fromkeys(("Pad", "PadV2", "MirrorPad"), _pad),
    "Transpose": _transpose,
    **dict.fromkeys(("Reshape", "Squeeze", "ExpandDims"), _first_only),
    **dict.fromkeys(("ResizeBilinear", "ResizeNearestNeighbor"), _first_only),
    **dict.fromkeys(("SpaceToBatchND", "BatchToSpaceND"), _blocks),
    "Split": _split,
    "StridedSlice": _strided_slice,
}
