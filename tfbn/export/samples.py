"""Inputs to compare a model and what was made of it on: given ones checked, or drawn."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from ..messages import join_some
from . import signature

# For axes of unknown size: large enough for the strides and windows of most image models.
DRAWN_SIZE = 32
DRAWN_BATCH = 4


def arrange(declared: Any, samples: Any, input_names: Sequence[str] | None = None) -> Any:
    """Given samples as arrays of the types that a model declares, structured as it declares.

    Args:
        declared: the model's inputs, which have names, shapes and types.
        samples: structured so, or a dict by the signature's names.
        input_names: the names of the signature, where they are chosen.

    Raises:
        ValueError: another structure than the model's, or other shapes; no sample, or not the same
            number in each.
    """
    names = [spec.name for spec in tf.nest.flatten(signature.input_specs(declared, input_names))]
    arranged = _arranged(declared, names, _without_targets(declared, samples))
    given = tf.nest.map_structure(_as_declared, declared, arranged)
    _check_shapes(tf.nest.flatten(declared), names, tf.nest.flatten(given))
    _check_counts(names, tf.nest.flatten(given))
    return given


def as_arrays(samples: Any) -> Any:
    """Given samples as they are, for a model that declares nothing; float64 as Keras' own float type.

    Raises:
        ValueError: no sample, or not the same number in each.
    """
    given = tf.nest.map_structure(_in_float_type, samples)
    arrays = tf.nest.flatten(given)
    _check_counts([f"input {number}" for number in range(len(arrays))], arrays)
    return given


def _check_counts(names: list[str], arrays: list[np.ndarray]) -> None:
    counts = [array.shape[0] if array.ndim else 0 for array in arrays]
    if len(set(counts)) != 1 or 0 in counts:
        listed = ", ".join(f"{count} for {name}" for name, count in zip(names, counts, strict=True))
        raise ValueError(
            "samples must hold the same number of samples for each input, at least one, received "
            f"{listed or 'none'}. Pass a small batch of the model's inputs."
        )


def _without_targets(declared: Any, samples: Any) -> Any:
    """Refuse `(x, y)` where the model takes one input."""
    if isinstance(samples, (str, bytes, os.PathLike)):
        raise ValueError(f"samples are arrays, received the path {samples!r}. Pass numpy.load(path).")
    if isinstance(samples, (tf.data.Dataset, Iterator)):
        raise ValueError(
            f"samples are arrays, received a {type(samples).__name__}. Pass one batch of its inputs."
        )
    pair = isinstance(samples, (tuple, list)) and len(samples) in (2, 3)
    if pair and not tf.nest.is_nested(declared) and all(hasattr(part, "shape") for part in samples):
        raise ValueError(
            f"samples are a {type(samples).__name__} of {len(samples)} arrays, and the model takes one "
            "input. Of (x, y) pass x alone."
        )
    return samples


def _check_shapes(declared: list[keras.KerasTensor], names: list[str], given: list[np.ndarray]) -> None:
    for tensor, name, array in zip(declared, names, given, strict=True):
        wanted = tuple(tensor.shape)
        fits = array.ndim == len(wanted) and all(
            size in (None, own) for size, own in zip(wanted[1:], array.shape[1:], strict=True)
        )
        if fits:
            continue
        message = f"samples for {name} have the shape {array.shape}, and the model takes {wanted}."
        single = array.ndim == len(wanted) - 1 and all(
            size in (None, own) for size, own in zip(wanted[1:], array.shape, strict=True)
        )
        remedy = " That is one sample, not a batch: give it an axis, x[numpy.newaxis]." if single else ""
        raise ValueError(f"{message}{remedy or ' None stands for any size.'}")


def _arranged(declared: Any, names: list[str], samples: Any) -> Any:
    """Samples in the declared structure, given so or as a dict by the signature's names."""
    if isinstance(samples, Mapping) and samples.keys() == set(names):
        return tf.nest.pack_sequence_as(declared, [samples[name] for name in names])
    if len(names) == 1 and not tf.nest.is_nested(samples):
        return tf.nest.pack_sequence_as(declared, [samples])

    def leaves(declared: Any, samples: Any) -> list[Any]:
        """In the order of `tf.nest`. A list may stand for a tuple, and both for an array."""
        if isinstance(declared, Mapping):
            fits = isinstance(samples, Mapping) and samples.keys() == declared.keys()
            parts = [(declared[key], samples[key]) for key in sorted(declared)] if fits else []
        elif isinstance(declared, (list, tuple)):
            fits = isinstance(samples, (list, tuple)) and len(samples) == len(declared)
            parts = list(zip(declared, samples, strict=True)) if fits else []
        elif not isinstance(samples, Mapping):
            return [np.asarray(samples)]
        else:
            fits, parts = False, []
        if not fits:
            raise ValueError(
                f"samples are not structured as the model's inputs: received {_kind(samples)} where "
                f"{_kind(declared)} is. A dict of arrays named {join_some(names)} will do, in a file: "
                f"numpy.savez('x.npz', {', '.join(f'{name}=…' for name in names[:3])})."
            )
        return [leaf for part in parts for leaf in leaves(*part)]

    return tf.nest.pack_sequence_as(declared, leaves(declared, samples))


def _kind(structure: Any) -> str:
    if isinstance(structure, Mapping):
        return f"a dict of {join_some([str(key) for key in structure])}"
    if isinstance(structure, (list, tuple)):
        return f"a {type(structure).__name__} of {len(structure)}"
    return "an array" if hasattr(structure, "shape") else f"a {type(structure).__name__}"


def draw(declared: Any) -> Any:
    """Four samples, or as many as are declared, to the inputs of a model, the same ones each time.

    Standard normal numbers, 0 or 1 for integers and booleans, 32 for axes of unknown size.

    Raises:
        ValueError: an input is neither number nor boolean.
    """
    rng = np.random.default_rng(0)
    return tf.nest.map_structure(lambda tensor: _draw(rng, tensor), declared)


def _as_declared(tensor: keras.KerasTensor, sample: Any) -> np.ndarray:
    array = np.asarray(sample)
    return array if tensor.dtype == "string" else array.astype(tf.as_dtype(tensor.dtype).as_numpy_dtype)


def _in_float_type(sample: Any) -> np.ndarray:
    array = np.asarray(sample)
    return array.astype(keras.config.floatx()) if array.dtype == "float64" else array


def first(samples: Any) -> Any:
    """The first sample alone, as a batch of one."""
    return tf.nest.map_structure(lambda array: array[:1], samples)


def _draw(rng: np.random.Generator, tensor: keras.KerasTensor) -> np.ndarray:
    shape = [tensor.shape[0] or DRAWN_BATCH, *(size or DRAWN_SIZE for size in tensor.shape[1:])]
    dtype = tf.as_dtype(tensor.dtype)
    if dtype.is_floating:
        return rng.standard_normal(shape).astype(dtype.as_numpy_dtype)
    if dtype.is_integer or dtype.is_bool:
        return rng.integers(0, 2, shape).astype(dtype.as_numpy_dtype)
    raise ValueError(
        f"No samples can be drawn for the input {tensor.name!r} of type {tensor.dtype}. Pass samples=, "
        "a small batch of the model's inputs."
    )
