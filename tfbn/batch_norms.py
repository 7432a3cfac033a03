"""Find the batch norms of a model, ours and Keras' own, and read both the same way."""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from typing import TypeAlias, TypeGuard, TypeVar

import keras
import numpy as np

from . import functional
from .layer import BatchNorm
from .renorm import BatchRenorm

AnyBatchNorm: TypeAlias = BatchNorm | keras.layers.BatchNormalization


_CALLS = (BatchNorm.call, BatchRenorm.call, keras.layers.BatchNormalization.call)
_DECLARED: weakref.WeakSet[type] = weakref.WeakSet()

Class = TypeVar("Class", bound=type)


def batch_norm_at_inference(cls: Class) -> Class:
    """Declare that a subclass with a `call` of its own is batch norm at inference.

    Called with `training=False`, an instance must return what the class of Keras or tfbn that it
    derives from returns: inputs normalised with the moving statistics. What it does in training is its
    own. `fold`, `export`, `recalibrate` and `population_statistics` then treat it as a batch norm;
    `convert` leaves it as it is. Holds for this class alone, not for what derives from it.

    Args:
        cls: subclass of `keras.layers.BatchNormalization` or of `BatchNorm`.

    Returns:
        The class, so that this is a decorator, too.

    Raises:
        TypeError: another class.

    >>> @batch_norm_at_inference
    ... class Frozen(keras.layers.BatchNormalization):
    ...     def call(self, inputs, training=None):
    ...         return super().call(inputs, training=training and self.trainable)
    >>> is_batch_norm(Frozen())
    True
    """
    if not (isinstance(cls, type) and issubclass(cls, AnyBatchNorm)):
        raise TypeError(
            "batch_norm_at_inference takes a subclass of keras.layers.BatchNormalization or "
            f"tfbn.BatchNorm, received {cls!r}. Derive the layer from one of them."
        )
    _DECLARED.add(cls)
    return cls


def has_call_of_its_own(layer: AnyBatchNorm) -> bool:
    """Whether a batch norm is of a subclass that may train in another way."""
    return getattr(type(layer), "call", None) not in (*_CALLS, None) and type(layer) in _DECLARED


def is_batch_norm(layer: object) -> TypeGuard[AnyBatchNorm]:
    """Whether `layer` computes batch normalisation at inference (see `why_not_a_batch_norm`)."""
    return isinstance(layer, AnyBatchNorm) and why_not_a_batch_norm(layer) is None


def why_not_a_batch_norm(layer: AnyBatchNorm) -> str | None:
    """Why a batch norm, or a subclass of one, does not compute what it does; `None` if it does.

    A subclass with a `call` of its own may compute anything, unless it was declared. A subclass of ours
    sets `not_a_batch_norm_because` to the reason why it is no batch norm, or to `None`.
    `as_batch_norm()` then makes the `BatchNorm` of the same arguments and order of weights, and
    `ignores_mask` says that masked positions count in its statistics.
    """
    kind = type(layer)
    if kind in _DECLARED:
        return None
    if hasattr(layer, "not_a_batch_norm_because"):
        return layer.not_a_batch_norm_because
    if kind.call in _CALLS:
        return None
    return undeclared_because(kind)


def undeclared_because(kind: type) -> str:
    """The reason why a subclass that was not declared is no batch norm."""
    return (
        f"{kind.__name__} has a call() of its own, which may compute anything; if it is batch norm at "
        f"inference, declare it: tfbn.batch_norm_at_inference({kind.__name__})"
    )


def layer_paths(model: keras.layers.Layer) -> dict[str, keras.layers.Layer]:
    """Every layer inside `model`, once, by the names on the way to it: `{"block/conv": layer}`.

    The model's own name is no part of a path. Nested models, layers that are attributes of other
    layers or sit in their lists and dictionaries, and wrapped layers are all found. Where two
    layers would have one path, the later ones get `_1`, `_2`, …
    """
    found: dict[str, keras.layers.Layer] = {}
    for path, layer in _walk(model, "", {id(model)}):
        unique, number = path, 0
        while unique in found:
            number += 1
            unique = f"{path}_{number}"
        found[unique] = layer
    return found


def batch_norms(model: keras.layers.Layer, inside: bool = True) -> dict[str, AnyBatchNorm]:
    """The batch norms among `layer_paths(model)`; `model` itself if it is one.

    Args:
        model: a layer or model.
        inside: also those that a layer says it has inside: a layer around TF1 code names them in
            `batch_norms_inside`, objects with the statistics and parameters of a batch norm.
    """
    if is_batch_norm(model):
        return {model.name: model}
    found: dict[str, AnyBatchNorm] = {}
    for path, layer in layer_paths(model).items():
        if is_batch_norm(layer):
            found[path] = layer
        if inside:
            inner = getattr(layer, "batch_norms_inside", {})
            found |= {f"{path}/{name}": one for name, one in inner.items()}
    return found


def excluded_batch_norms(model: keras.layers.Layer) -> dict[str, tuple[AnyBatchNorm, str]]:
    """The layers, by path, that derive from a batch norm and are none, and the reason."""
    derived = [pair for pair in layer_paths(model).items() if isinstance(pair[1], AnyBatchNorm)]
    return {
        path: (layer, why) for path, layer in derived if (why := why_not_a_batch_norm(layer)) is not None
    }


def inference_affine(layer: AnyBatchNorm) -> tuple[np.ndarray, np.ndarray]:
    """The layer's scale and offset at inference, float64, one number per channel."""
    scale, offset = functional.scale_and_offset(
        layer.moving_mean, layer.moving_variance, layer.beta, layer.gamma, layer.epsilon
    )
    return scale.numpy(), offset.numpy()


def sublayers(layer: keras.layers.Layer) -> list[keras.layers.Layer]:
    """The layers directly inside `layer`.

    Private Keras API, used here only: `Model.layers` is public, but a layer that holds layers has no
    public list of them. `tests/test_batch_norms.py` fails by name when it moves.
    """
    return list(layer._flatten_layers(include_self=False, recursive=False))


def _walk(
    layer: keras.layers.Layer, prefix: str, seen: set[int]
) -> Iterator[tuple[str, keras.layers.Layer]]:
    for child in sublayers(layer):
        if id(child) not in seen:
            seen.add(id(child))
            path = f"{prefix}{child.name}"
            yield path, child
            yield from _walk(child, f"{path}/", seen)
