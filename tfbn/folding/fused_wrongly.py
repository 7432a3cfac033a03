"""What TensorFlow would compute wrongly where it is folded.

With oneDNN, TensorFlow fuses a two-dimensional convolution, its bias, a sum with another tensor and a
leaky ReLU into one operation, which takes a slope of 0.2 whatever the slope is (seen in 2.21). A batch
norm between the convolution and the sum keeps them apart; where it would go, it stays, on any machine,
for models are folded on one and served on others.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from .core.graph import Call, Graph, Op, Tensor
from .core.plan import Plan

RIGHT_SLOPE = 0.2


def fused_wrongly(
    graph: Graph,
    plan: Plan,
    has_bias: Callable[[Op], bool | None],
    slope: Callable[[Call], float | None],
) -> dict[Op, str]:
    """The convolutions that may not take up what was planned, and why.

    Args:
        has_bias: whether an operation has one; `None` if it is no convolution of images.
        slope: of a leaky ReLU; `None` for any other call.
    """
    found = {}
    for op, pending in plan.pending.items():
        if op in plan.into or (own := has_bias(op)) is None:
            continue
        maps = [affine for affine in (pending.input_map, pending.output_map) if affine is not None]
        if not own and not any(affine.offset.any() for affine in maps):
            continue
        if any(_is_fused_wrongly(call, plan, slope) for call in graph.of(op)):
            found[op] = (
                f"{op} would then be followed by a sum and a leaky ReLU, which TensorFlow with oneDNN "
                "fuses with it and computes with a slope of 0.2; another activation can be folded"
            )
    return found


def _is_fused_wrongly(call: Call, plan: Plan, slope: Callable[[Call], float | None]) -> bool:
    sums = [user for user in _users(call.outputs[0], plan) if len(user.inputs) == 2]
    slopes = [slope(user) for total in sums for user in _users(total.outputs[0], plan)]
    return any(found is not None and abs(found - RIGHT_SLOPE) > 1e-6 for found in slopes)


def _users(tensor: Tensor, plan: Plan) -> Iterator[Call]:
    """The calls that take a tensor, or that it goes to where a batch norm between them is gone."""
    for user in tensor.users:
        if user is not None and user.op in plan.into:
            yield from _users(user.outputs[0], plan)
        elif user is not None:
            yield user
