"""The calls of a functional model, each after those that it takes tensors of."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator

from ..errors import LegacyModelError
from ..reading.architecture import CallConfig, LayerConfig, ModelConfig

Step = tuple[LayerConfig, int, CallConfig]  # a layer, which of its calls, and that call


def in_order(config: ModelConfig) -> Iterator[Step]:
    """All calls of a functional model, each after those that it takes tensors of."""
    todo: dict[tuple[str, int], int] = {}
    waiting: dict[tuple[str, int], list[Step]] = defaultdict(list)
    ready: list[Step] = []
    for layer in config.layers:
        calls = layer.calls
        if layer.class_name == "InputLayer":
            calls = (CallConfig((), {}),)
        for number, call in enumerate(calls):
            key = (layer.name or "", number)
            needs = {(output.layer, output.call) for output in call.inputs}
            needs |= {(key[0], number - 1)} if number else set()
            todo[key] = len(needs)
            for needed in needs:
                waiting[needed].append((layer, number, call))
            if not needs:
                ready.append((layer, number, call))
    while ready:
        layer, number, call = ready.pop()
        key = (layer.name or "", number)
        del todo[key]
        yield layer, number, call
        for follower in reversed(waiting.pop(key, [])):
            name = (follower[0].name or "", follower[1])
            todo[name] -= 1
            if not todo[name]:
                ready.append(follower)
    if todo:
        some = ", ".join(sorted(name for name, _ in todo)[:5])
        raise LegacyModelError(
            f"the layers {some} take tensors of each other, or of layers that do not exist",
            config.name or "model",
        )
