"""Find the batch norms of a model, ours and Keras' own, and read both the same way.

A layer is a batch norm if it is of our class or of Keras', or of a subclass with the same `call`, or of
one that was declared by `batch_norm_at_inference`.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from typing import TypeAlias, TypeGuard, TypeVar

import keras
import numpy as np

from . import functional
from .layer import BatchNorm
from .messages import no_model
from .renorm import BatchRenorm

AnyBatchNorm: TypeAlias = BatchNorm | keras.layers.BatchNormalization

_CALLS = (BatchNorm.call, BatchRenorm.call, keras.layers.BatchNormalization.call)
_DECLARED: weakref.WeakSet[type] = weakref.WeakSet()

Class = TypeVar("Class", bound=type)


def batch_norm_at_inference(cls: Class) -> Class:
    """Declare that a subclass with a `call` of its own computes batch normalisation at inference.

    Called with `training=False`, an instance must return the same as the batch norm of Keras or tfbn
    that it derives from: inputs normalised with the moving statistics. In training it may do anything.
    `fold`, `export`, `recalibrate` and `population_statistics` then treat it as a batch norm; `convert`
    copies it unchanged. The declaration does not extend to subclasses of the class.

    Args:
        cls: a subclass of `keras.layers.BatchNormalization` or of `BatchNorm`.

    Returns:
        The class, so that this can be used as a decorator.

    Raises:
        TypeError: `cls` is no such subclass.

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
    """Whether a batch norm is of a declared subclass, which may train in another way."""
    return getattr(type(layer), "call", None) not in (*_CALLS, None) and type(layer) in _DECLARED


def is_batch_norm(layer: object) -> TypeGuard[AnyBatchNorm]:
    """Whether `layer` is known to compute batch normalisation at inference."""
    return isinstance(layer, AnyBatchNorm) and why_not_a_batch_norm(layer) is None


def why_not_a_batch_norm(layer: AnyBatchNorm) -> str | None:
    """Why an instance of a batch norm class may not compute batch normalisation; `None` if it does.

    A subclass with a `call` of its own may compute anything, unless it was declared. This package's own
    subclasses (Keras 1's layer, in `compat`) have three attributes: `not_a_batch_norm_because` is the
    reason, or `None`; `as_batch_norm()` returns an equal `BatchNorm` with its weights in the same
    order; `ignores_mask` says that masked positions count in the statistics.
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
    """The reason for a subclass with a `call` of its own that was not declared."""
    return (
        f"{kind.__name__} has a call() of its own, which may compute anything; if it is batch norm at "
        f"inference, declare it: tfbn.batch_norm_at_inference({kind.__name__})"
    )


def layer_paths(model: keras.layers.Layer) -> dict[str, keras.layers.Layer]:
    """Every layer inside `model`, once, by its path: `{"block/conv": layer}`.

    A path joins the names of the layers around a layer and its own name, without that of `model`. Layers
    inside nested models, wrappers, and attributes, lists and dictionaries of other layers are all found.
    Where layers would have the same path, the later ones get `_1`, `_2`, …
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
    """The batch norms of a model by their paths, ours and Keras' own, in the order of its layers.

    A path joins the names of the layers around a batch norm and its own name, `"block/bn"`: so all
    reports name them. Those inside nested models, wrappers and custom layers are found, too; `model`
    itself if it is one.

    Args:
        model: a layer or model.
        inside: whether to include those that a layer around TF1 code (`compat.VariableScopeLayer`)
            lists: objects with the statistics and parameters of batch norms.

    Raises:
        TypeError: what is no layer.

    >>> import keras, tfbn
    >>> block = keras.Sequential([keras.Input((4,)), tfbn.BatchNorm(name="bn")], name="block")
    >>> list(tfbn.batch_norms(keras.Sequential([keras.Input((4,)), block])))
    ['block/bn']
    """
    if not isinstance(model, keras.layers.Layer):
        raise TypeError(f"batch_norms needs a keras.Model or a layer, {no_model(model)}")
    if is_batch_norm(model):
        return {model.name: model}
    found: dict[str, AnyBatchNorm] = {}
    for path, layer in layer_paths(model).items():
        if is_batch_norm(layer):
            found[path] = layer
        if inside:
            inner = getattr(layer, "batch_norms_inside", {})
            found |= {f"{path}/{name}": batch_norm for name, batch_norm in inner.items()}
    return found


def excluded_batch_norms(model: keras.layers.Layer) -> dict[str, tuple[AnyBatchNorm, str]]:
    """The layers, by path, of subclasses of batch norms that are not taken for batch norms, and why."""
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
