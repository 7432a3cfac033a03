"""Merging layers with the masks of Keras 1 and 2: a step counts where every input counts it.

Keras 3 lets a step count where any input does, and forgets all masks where one input has none.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce
from typing import Any

import keras

from ....data_format import tables

ops, L = keras.ops, keras.layers


class _AndMask:
    def compute_mask(self, inputs: Sequence[Any], mask: Any = None) -> Any:
        """The logical and of the masks that are given; `None` if none is."""
        found = [step_mask for step_mask in mask or () if step_mask is not None]
        return reduce(ops.logical_and, found) if found else None


class _ConcatMask(_AndMask):
    def compute_mask(self, inputs: Sequence[Any], mask: Any = None) -> Any:
        """Along the last axis as `_AndMask`; along another the masks are concatenated, too."""
        rank = len(inputs[0].shape)
        if self.axis % rank == rank - 1 or not any(step_mask is not None for step_mask in mask or ()):  # type: ignore[attr-defined]
            return super().compute_mask(inputs, mask)
        masks = [
            ops.all(ops.ones_like(x, dtype="bool"), axis=-1) if step_mask is None else step_mask
            for x, step_mask in zip(inputs, mask, strict=True)
        ]
        # ops.concatenate would be an operation "concatenate" in the graph, a name that layers have.
        return reduce(lambda first, other: ops.append(first, other, axis=self.axis), masks)  # type: ignore[attr-defined]


def _masked(rule: type, kind: type) -> type:
    made = type(kind.__name__, (rule, kind), {"__doc__": f"{kind.__name__}, masked by all inputs."})
    return keras.saving.register_keras_serializable(package="tfbn")(made)


MERGES = {
    kind: _masked(_ConcatMask if kind is L.Concatenate else _AndMask, kind)
    for kind in (L.Add, L.Subtract, L.Multiply, L.Average, L.Maximum, L.Minimum, L.Concatenate)
}

tables.RULES |= {merging: tables.RULES[kind] for kind, merging in MERGES.items()}
