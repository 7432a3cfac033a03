"""What takes maps up in a graph: linear operations with constant kernels, and other batch norms."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ...axes import channel_axes
from ..core.affine import Affine, CannotFoldError
from ..core.graph import Call
from ..core.kernel_arithmetic import KernelLayout
from ..core.propagation import check_no_offset, check_not_negative
from ..core.targets import FoldTarget, per_channel_map
from .nodes import attribute
from .units import LinearUnit, is_channels_first

_DENSE = KernelLayout("kernel", (-1,), ("kernel", -2))
_TURNED = KernelLayout("kernel", (-2,), ("kernel", -1))  # a transposed kernel
# Output channel = input channel · multiplier + which multiple.
_DEPTHWISE = KernelLayout("kernel", (-2, -1), ("kernel", -2))

_LAYOUTS = {
    "Conv2D": _DENSE,
    "Conv3D": _DENSE,
    "DepthwiseConv2dNative": _DEPTHWISE,
    "Conv2DBackpropInput": _TURNED,
}


@dataclass(frozen=True)
class LinearTarget(FoldTarget):
    """A convolution or a product with a matrix.

    Attributes:
        unit: its nodes.
        layout: where the kernel counts the channels.
        transposed: whether a constant input gives an output that is not.
    """

    unit: LinearUnit
    layout: KernelLayout
    transposed: bool = False

    def output(self, call: Call, affine: Affine) -> Affine:
        if relu_inside(self.unit.operation):
            check_no_offset(call.op, affine)
            check_not_negative(call.op, affine)
        return self._channels(call, affine, call.outputs[0].shape)

    def input(self, call: Call, affine: Affine) -> Affine:
        if affine.offset.any() and (self.transposed or self._pads(call)):
            why = "sums fewer inputs at some places" if self.transposed else "pads its input with zeros"
            raise CannotFoldError(f"{call.op} {why}, so it can take up a scale but no offset")
        return self._channels(call, affine, call.inputs[0].shape)

    def _channels(self, call: Call, affine: Affine, shape: Sequence[int | None]) -> Affine:
        axis = 1 if is_channels_first(self.unit.operation) else len(shape) - 1
        return per_channel_map(call.op.name, affine, (axis,), shape)

    def _pads(self, call: Call) -> bool:
        padding, kernel = attribute(self.unit.operation, "padding").s, call.attributes["kernel"]
        if padding == b"EXPLICIT":
            return any(attribute(self.unit.operation, "explicit_paddings").list.i)
        return padding == b"SAME" and any(size > 1 for size in kernel.shape[:-2])


class ScaleTarget(FoldTarget):
    """Another batch norm, fused or a chain of products and sums."""

    merges = True

    def output(self, call: Call, affine: Affine) -> Affine:
        normalization = call.op.normalization
        assert normalization is not None
        shape = call.inputs[0].shape
        return per_channel_map(call.op.name, affine, channel_axes(normalization.axis, len(shape)), shape)

    input = output


def linear_target(unit: LinearUnit, kernel: Any, ranks: tuple[int, int]) -> LinearTarget | None:
    """What a linear operation takes up, if it is one that this knows.

    Args:
        kernel: its value.
        ranks: of what it takes and makes.
    """
    node = unit.operation
    if node.op == "_FusedConv2D":
        known = attribute(node, "fused_ops").list.s in ([b"BiasAdd"], [b"BiasAdd", b"Relu"])
        return LinearTarget(unit, _DENSE) if known else None
    if node.op in _LAYOUTS:
        return LinearTarget(unit, _LAYOUTS[node.op], transposed=node.op == "Conv2DBackpropInput")
    if kernel.ndim != 2 or ranks[0] != ranks[1] or ranks[0] < 2:
        return None
    return _einsum_target(unit) if node.op == "Einsum" else _product_target(unit)


def _product_target(unit: LinearUnit) -> LinearTarget | None:
    node = unit.operation
    given, turned = ("transpose_a", "transpose_b") if node.op == "MatMul" else ("adj_x", "adj_y")
    if attribute(node, given).b:
        return None
    return LinearTarget(unit, _TURNED if attribute(node, turned).b else _DENSE)


def _einsum_target(unit: LinearUnit) -> LinearTarget | None:
    """Of `…i,io->…o` and `…i,oi->…o`, whatever the letters."""
    given, _, made = attribute(unit.operation, "equation").s.decode().replace(" ", "").partition("->")
    x, _, kernel = given.partition(",")
    if x.endswith("...") or not (x and made) or x[:-1] != made[:-1]:
        return None
    letters = (x + made[-1]).replace("...", "")
    if len(set(letters)) < len(letters):  # a diagonal
        return None
    layouts = {x[-1] + made[-1]: _DENSE, made[-1] + x[-1]: _TURNED}
    return LinearTarget(unit, layouts[kernel]) if kernel in layouts else None


def relu_inside(node: Any) -> bool:
    return node.op == "_FusedConv2D" and b"Relu" in attribute(node, "fused_ops").list.s
