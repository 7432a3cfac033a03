"""Functions that a graph calls and that were not inlined, as those that XLA is to compile."""

from __future__ import annotations

from typing import Any

from .nodes import Nodes

CONVOLUTIONS = {"Conv2D", "Conv3D"}


def called_convolution(node: Any, nodes: Nodes) -> tuple[Any, int, int] | None:
    """The one convolution that a called function is; `None` if it is anything else.

    Returns:
        The convolution's node, and which inputs of the call are its tensor and its kernel.
    """
    function = nodes.functions.get(node.attr["f"].func.name)
    if function is None or len(function.ret) != 1:
        return None
    inside = {part.name: part for part in function.node_def}
    others = [part for part in function.node_def if part.op not in ("Identity", "NoOp")]
    if len(others) != 1 or others[0].op not in CONVOLUTIONS:
        return None
    (convolution,) = others

    def origin(text: str) -> str:
        """The argument or node that a tensor comes of."""
        name = text.partition(":")[0]
        while name in inside and inside[name].op == "Identity":
            name = inside[name].input[0].partition(":")[0]
        return name

    arguments = [argument.name for argument in function.signature.input_arg]
    (result,) = function.ret.values()
    sources = [origin(text) for text in convolution.input if not text.startswith("^")]
    if origin(result) != convolution.name or not set(sources) <= set(arguments):
        return None
    tensor, kernel = map(arguments.index, sources)
    return convolution, tensor, kernel
