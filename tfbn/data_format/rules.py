"""How a layer, or Keras operation, follows its tensors when these are transposed.

A rule says in which layout a call takes its tensors, what changes in the layer's configuration, and
in which layout the results are. `tables` says which rule is whose.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import keras
import numpy as np

from .layouts import Layout, Shape, channels_last, moved, natural, reads_alike, transposed

L = keras.layers


class CannotTurnError(Exception):
    """Why a layer cannot be made channels last."""


@dataclass(frozen=True)
class Given:
    """A tensor that a call takes: its shape in the original model, and the layout it is held in."""

    shape: Shape
    layout: Layout

    @property
    def rank(self) -> int:
        return len(self.shape)


@dataclass(frozen=True)
class Turned:
    """What becomes of a call.

    Attributes:
        inputs: the layout that it takes each of its tensors in.
        output: the layout of a result, by its rank.
        config: arguments of the layer's configuration that change.
        weights: the order of the axes of its weights; `None` if they stay as they are.
        activation: the layer's own, where that must run apart, on the tensor as it was.
        layer: the new layer, where it is not made from the configuration; `None` elsewhere.
        inside: the layer within a wrapper and what becomes of it.
    """

    inputs: tuple[Layout, ...]
    output: Callable[[int], Layout] = natural
    config: dict[str, Any] = field(default_factory=dict)
    weights: tuple[int, ...] | None = None
    activation: Any = None
    layer: keras.layers.Layer | None = None
    inside: tuple[keras.layers.Layer, Turned] | None = None


Rule = Callable[[Any, list[Given]], Turned]


def as_it_was(layer: Any, given: list[Given]) -> Turned:
    """Every tensor in its original layout."""
    return Turned(tuple(natural(one.rank) for one in given))


def spatial(layer: Any, given: list[Given]) -> Turned:
    """A layer with a `data_format`: its first tensor has channels, and states have them likewise."""
    if layer.data_format != "channels_first":
        return as_it_was(layer, given)
    is_layer = isinstance(layer, L.Layer)
    rank = max(one.rank for one in given) if is_layer else given[0].rank  # states have less
    channel = 2 if "ConvLSTM" in type(layer).__name__ else 1  # behind the steps

    def turned(other: int) -> Layout:
        """A tensor of another rank has lost the steps, or (pooled, flattened) has two axes."""
        return channels_last(other, channel - max(0, rank - other)) if other > 2 else natural(other)

    inputs = [
        turned(one.rank) if is_layer or not number else natural(one.rank)
        for number, one in enumerate(given)
    ]
    config: dict[str, Any] = {"data_format": "channels_last"}
    split = None
    for name in ("activation", "recurrent_activation"):
        function = getattr(layer, name, None)
        if function is None or ignores_axes(function):
            continue
        if channel == 2 or isinstance(function, L.Layer):
            raise CannotTurnError(f"its {name} may depend on the order of axes")
        split = function
        config |= {name: "linear", "activity_regularizer": None}
    return Turned(tuple(inputs), turned, config, activation=split)


def flatten(layer: Any, given: list[Given]) -> Turned:
    """Flatten reads channels last whatever it is given; as it was given them if not told otherwise."""
    if layer.data_format == "channels_first":
        return spatial(layer, given)
    return in_order(layer, given)


def in_order(layer: Any, given: list[Given]) -> Turned:
    """A layer that reads the elements of a sample one after the other."""
    (one,) = given
    alike = reads_alike(one.shape, one.layout)
    return Turned((one.layout if alike else natural(one.rank),))


def elementwise(layer: Any, given: list[Given]) -> Turned:
    """The same for each element, whatever its place; several tensors are broadcast together."""
    layout = _common(given)
    config = {}
    if (noise := getattr(layer, "noise_shape", None)) is not None:
        whole = (1,) * (len(layout) - len(noise)) + tuple(noise)
        config["noise_shape"] = transposed(whole, layout)
    return Turned((layout,) * len(given), _kept(layout), config)


def with_scalars(*names: str) -> Rule:
    """Elementwise, if the operation's own numbers of these names are single ones."""

    def rule(operation: Any, given: list[Given]) -> Turned:
        single = all(not np.ndim(getattr(operation, name)) for name in names)
        return (elementwise if single else as_it_was)(operation, given)

    return rule


def activation(layer: Any, given: list[Given]) -> Turned:
    return elementwise(layer, given) if ignores_axes(layer.activation) else as_it_was(layer, given)


def along_axis(layer: Any, given: list[Given]) -> Turned:
    """An `axis` says which axes are treated apart; those of the weights are in the tensor's order."""
    layout, axes = _common(given), layer.axis
    if axes is None or layout == natural(len(layout)):
        return Turned((layout,) * len(given), _kept(layout))
    if isinstance(axes, (int, np.integer)):
        return Turned((layout,) * len(given), _kept(layout), {"axis": moved(int(axes), layout)})
    old = [axis % len(layout) for axis in axes]
    if old != sorted(old) or _constrains_an_axis(layer):
        return as_it_was(layer, given)
    new = sorted(layout.index(axis) for axis in old)
    order = tuple(old.index(layout[place]) for place in new)
    return Turned((layout,) * len(given), _kept(layout), {"axis": new}, weights=order)


def one_axis(layer: Any, given: list[Given]) -> Turned:
    """As `along_axis`, for a layer whose weights of several axes cannot be told; it lists one, too."""
    axes = [layer.axis] if isinstance(layer.axis, int) else list(layer.axis or ())
    layout = given[0].layout
    if len(axes) != 1 or layout == natural(len(layout)):
        return as_it_was(layer, given)
    return Turned((layout,), _kept(layout), {"axis": moved(axes[0], layout)})


def reduction(operation: Any, given: list[Given]) -> Turned:
    """Sums, means and extrema over `axis`; those that are left keep their order."""
    layout, axes = _common(given), operation.axis
    if axes is None:
        return Turned((layout,), natural)
    listed = [axes] if isinstance(axes, (int, np.integer)) else list(axes)
    gone = {axis % len(layout) for axis in listed}
    config = {"axis": sorted(layout.index(axis) for axis in gone)}
    if operation.keepdims:
        return Turned((layout,), _kept(layout), config)
    left = [axis for axis in layout if axis not in gone]
    if left[:1] != [0]:
        return as_it_was(operation, given)
    ranks = sorted(left)
    return Turned((layout,), _kept(tuple(ranks.index(axis) for axis in left)), config)


def parametric(layer: Any, given: list[Given]) -> Turned:
    """An activation with a weight for each place of a sample but along `shared_axes`."""
    layout = given[0].layout
    shared = layer.shared_axes
    if _constrains_an_axis(layer):
        return as_it_was(layer, given)
    config = {"shared_axes": shared and sorted(layout.index(axis) for axis in shared)}
    order = tuple(axis - 1 for axis in layout[1:])
    return Turned((layout,), _kept(layout), config, weights=order)


def permute(layer: Any, given: list[Given]) -> Turned:
    """A transposition is not done but noted; the layer stays as one that does nothing."""
    if layer.activity_regularizer is not None:
        return as_it_was(layer, given)
    layout = given[0].layout
    dims = (0, *layer.dims)
    new = tuple(dims.index(axis) for axis in layout)
    return Turned(
        (layout,), _kept(new), layer=L.Identity(name=layer.name, dtype=layer.dtype_policy.name)
    )


def _common(given: list[Given]) -> Layout:
    """One layout for several tensors: as the first one that has been transposed."""
    ranks = {one.rank for one in given}
    if len(ranks) > 1:
        raise NotAlikeError
    rank = ranks.pop()
    return next((one.layout for one in given if one.layout != natural(rank)), natural(rank))


def _kept(layout: Layout) -> Callable[[int], Layout]:
    return lambda rank: layout


class NotAlikeError(Exception):
    """Tensors of several ranks, which are broadcast by their last axes."""


def _constrains_an_axis(layer: Any) -> bool:
    """Whether a constraint has an axis of a weight, which would be another one."""
    constraints = [one for one in vars(layer).values() if isinstance(one, keras.constraints.Constraint)]
    return any(getattr(one, "axis", None) is not None for one in constraints)


def ignores_axes(function: Callable[[Any], Any]) -> bool:
    """Whether an activation gives the same on a transposed tensor, seen on one of random numbers."""
    if isinstance(function, L.Layer):
        return type(function) in (L.ReLU, L.LeakyReLU, L.ELU)
    x = np.random.default_rng(0).normal(0, 3, (2, 3, 4, 5)).astype("float32")
    axes = (3, 1, 0, 2)
    try:
        plain, turned = np.asarray(function(x)), np.asarray(function(x.transpose(axes)))
    except Exception:  # of a user's function, on a shape that it was not made for: not known to
        return False
    return plain.shape == x.shape and bool(np.allclose(plain.transpose(axes), turned, 1e-5, 1e-6))
