"""How a layer, or a Keras operation, changes when its tensors are transposed.

A rule takes the layer and the shapes and layouts of the input tensors. It returns in which layouts the
call takes them, what changes in the layer's configuration, and which layouts the outputs have. `tables`
says which class follows which rule.
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
    """A layer cannot be made channels last, for the reason given."""


@dataclass(frozen=True)
class Given:
    """An input tensor of a call: its shape in the original model, and the layout it is held in."""

    shape: Shape
    layout: Layout

    @property
    def rank(self) -> int:
        return len(self.shape)


@dataclass(frozen=True)
class Turned:
    """How a call is done in the new model.

    Attributes:
        inputs: the layout in which it takes each input tensor.
        output: the layout of an output tensor, by its rank.
        config: arguments that change in the layer's configuration.
        weights: how to transpose the layer's weights; `None` if they stay as they are.
        activation: the layer's activation, if it must run in a layer of its own, on the original layout.
        layer: the new layer, if it is not made from the configuration; `None` otherwise.
        inside: the layer inside a wrapper, and how that is called.
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
    """The call takes every tensor in its original layout."""
    return Turned(tuple(natural(tensor.rank) for tensor in given))


def spatial(layer: Any, given: list[Given]) -> Turned:
    """A layer with a `data_format`: it becomes channels last, as do its image tensor and its states."""
    if layer.data_format != "channels_first":
        return as_it_was(layer, given)
    is_layer = isinstance(layer, L.Layer)
    # States have one axis less.
    rank = max(tensor.rank for tensor in given) if is_layer else given[0].rank
    channel = 2 if "ConvLSTM" in type(layer).__name__ else 1  # after the axis of time

    def layout_of(other: int) -> Layout:
        """A tensor of another rank has no axis of time; one of two axes was pooled or flattened."""
        return channels_last(other, channel - max(0, rank - other)) if other > 2 else natural(other)

    inputs = [
        layout_of(tensor.rank) if is_layer or not number else natural(tensor.rank)
        for number, tensor in enumerate(given)
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
    return Turned(tuple(inputs), layout_of, config, activation=split)


def flatten(layer: Any, given: list[Given]) -> Turned:
    """A channels-first Flatten moves the channels to the end and then reads in order, as others do."""
    if layer.data_format == "channels_first":
        return spatial(layer, given)
    return in_order(layer, given)


def in_order(layer: Any, given: list[Given]) -> Turned:
    """A layer that reads the elements of a sample in their order in memory."""
    (tensor,) = given
    alike = reads_alike(tensor.shape, tensor.layout)
    return Turned((tensor.layout if alike else natural(tensor.rank),))


def elementwise(layer: Any, given: list[Given]) -> Turned:
    """The same function of each element; several tensors are broadcast together."""
    layout = _common(given)
    config = {}
    if (noise := getattr(layer, "noise_shape", None)) is not None:
        whole = (1,) * (len(layout) - len(noise)) + tuple(noise)
        config["noise_shape"] = transposed(whole, layout)
    return Turned((layout,) * len(given), _kept(layout), config)


def with_scalars(*names: str) -> Rule:
    """Elementwise, if the operation's arguments of these names are scalars."""

    def rule(operation: Any, given: list[Given]) -> Turned:
        scalars = all(not np.ndim(getattr(operation, name)) for name in names)
        return (elementwise if scalars else as_it_was)(operation, given)

    return rule


def activation(layer: Any, given: list[Given]) -> Turned:
    return elementwise(layer, given) if ignores_axes(layer.activation) else as_it_was(layer, given)


def along_axis(layer: Any, given: list[Given]) -> Turned:
    """A layer with an `axis`, or several; the axes of its weights are in the tensor's order."""
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
    """As `along_axis`, but for one axis only: the order of its weights is not known for several."""
    axes = [layer.axis] if isinstance(layer.axis, int) else list(layer.axis or ())
    layout = given[0].layout
    if len(axes) != 1 or layout == natural(len(layout)):
        return as_it_was(layer, given)
    return Turned((layout,), _kept(layout), {"axis": moved(axes[0], layout)})


def reduction(operation: Any, given: list[Given]) -> Turned:
    """Sums, means and extrema over `axis`; the remaining axes keep their order."""
    layout, axes = _common(given), operation.axis
    if axes is None:
        return Turned((layout,), natural)
    listed = [axes] if isinstance(axes, (int, np.integer)) else list(axes)
    reduced = {axis % len(layout) for axis in listed}
    config = {"axis": sorted(layout.index(axis) for axis in reduced)}
    if operation.keepdims:
        return Turned((layout,), _kept(layout), config)
    left = [axis for axis in layout if axis not in reduced]
    if left[:1] != [0]:
        return as_it_was(operation, given)
    ranks = sorted(left)
    return Turned((layout,), _kept(tuple(ranks.index(axis) for axis in left)), config)


def parametric(layer: Any, given: list[Given]) -> Turned:
    """An activation with a weight for each element of a sample, but shared along `shared_axes`."""
    layout = given[0].layout
    shared = layer.shared_axes
    if _constrains_an_axis(layer):
        return as_it_was(layer, given)
    config = {"shared_axes": shared and sorted(layout.index(axis) for axis in shared)}
    order = tuple(axis - 1 for axis in layout[1:])
    return Turned((layout,), _kept(layout), config, weights=order)


def permute(layer: Any, given: list[Given]) -> Turned:
    """Permute becomes an Identity: the layout of its output says what it did."""
    if layer.activity_regularizer is not None:
        return as_it_was(layer, given)
    layout = given[0].layout
    dims = (0, *layer.dims)
    new = tuple(dims.index(axis) for axis in layout)
    return Turned(
        (layout,), _kept(new), layer=L.Identity(name=layer.name, dtype=layer.dtype_policy.name)
    )


def _common(given: list[Given]) -> Layout:
    """One layout for several tensors of one rank: that of the first that is transposed."""
    ranks = {tensor.rank for tensor in given}
    if len(ranks) > 1:
        raise DifferentRanksError
    rank = ranks.pop()
    layouts = [tensor.layout for tensor in given]
    return next((layout for layout in layouts if layout != natural(rank)), natural(rank))


def _kept(layout: Layout) -> Callable[[int], Layout]:
    return lambda rank: layout


class DifferentRanksError(Exception):
    """The tensors are of several ranks: broadcasting aligns their last axes."""


def _constrains_an_axis(layer: Any) -> bool:
    """Whether a constraint names an axis of a weight, which would not be transposed with it."""
    values = vars(layer).values()
    constraints = [value for value in values if isinstance(value, keras.constraints.Constraint)]
    return any(getattr(constraint, "axis", None) is not None for constraint in constraints)


def ignores_axes(function: Callable[[Any], Any]) -> bool:
    """Whether an activation commutes with transposition, judged on a tensor of random numbers."""
    if isinstance(function, L.Layer):
        return type(function) in (L.ReLU, L.LeakyReLU, L.ELU)
    x = np.random.default_rng(0).normal(0, 3, (2, 3, 4, 5)).astype("float32")
    axes = (3, 1, 0, 2)
    try:
        plain, permuted = np.asarray(function(x)), np.asarray(function(x.transpose(axes)))
    except Exception:  # a user's function may not take this shape: then it is not known to
        return False
    return plain.shape == x.shape and bool(np.allclose(plain.transpose(axes), permuted, 1e-5, 1e-6))
