"""Whatever holds inputs, as something that Keras' `evaluate` reads batch by batch."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import chain
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from ..declared_graph import has_readable_graph

BATCH_SIZE = 32  # for arrays, as in keras.Model.fit
NO_BATCH = "data holds no batch. Pass at least one batch of the model's inputs."


def check(data: Any, steps: Any) -> None:
    """Refuse what cannot be data, and endless data without `steps`."""
    whole = isinstance(steps, (int, np.integer)) and not isinstance(steps, bool)
    if steps is not None and not (whole and steps >= 1):
        raise ValueError(
            f"steps must be a positive number of batches or None, received {type(steps).__name__} "
            f"{steps!r}. Targets go into data: population_statistics(model, (x, y))."
        )
    endless = isinstance(data, tf.data.Dataset) and data.cardinality() == tf.data.INFINITE_CARDINALITY
    endless |= isinstance(data, keras.utils.PyDataset) and data.num_batches is None
    if steps is None and endless:
        raise ValueError(
            f"This {type(data).__name__} never ends. Say how many batches to use: steps=100."
        )
    readable = _is_array(data) or isinstance(data, (Iterable, keras.utils.PyDataset))
    if not readable or isinstance(data, (str, bytes)):
        raise ValueError(
            f"data must be arrays or batches of the model's inputs, received {data!r}. Pass what "
            "keras.Model.fit takes: an array, a tf.data.Dataset, a PyDataset or a generator."
        )


def readable(model: keras.Model, data: Any) -> tuple[Any, int | None]:
    """The inputs in a form that Keras reads, and the batch size to cut them in if they are arrays.

    Of a tuple, the inputs are left; any other iterable of batches becomes a generator of inputs.

    Raises:
        ValueError: no batch; or arrays that cannot be cut in the batches that the model declares.
    """
    if isinstance(data, tuple):
        data = _inputs(data)
    elif isinstance(data, list) and all(isinstance(batch, tuple) for batch in data):
        data = iter(data)
    if isinstance(data, list):
        data = _array_for_each_input(model, data)
    if isinstance(data, (dict, list, tuple)) or _is_array(data):
        return data, _size_to_cut(model, data)
    if isinstance(data, tf.distribute.DistributedDataset):
        data = _whole_batches(model, data)
    if _is_read_by_keras(data):
        return data, None
    batches = iter(data)
    try:
        first = next(batches)
    except StopIteration:
        raise ValueError(NO_BATCH) from None
    return ((_inputs(batch),) for batch in chain([first], batches)), None


def preprocessed(model: keras.Model, batch: Any) -> Any:
    """The inputs of a batch `x`, `(x, y)` or `(x, y, sample_weight)`, as `fit` hands them to the model.

    A KerasHub task applies its preprocessor in `fit` and `predict`, not in `call`.
    """
    x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(batch)
    # What a batch lacks of an optional input, Keras' datasets hold as an Optional.
    x = tf.nest.map_structure(_without_optional, x)
    preprocess = getattr(model, "preprocess_samples", None)
    if preprocess is None:
        return x
    given = {"y": y, "sample_weight": sample_weight}
    batch = preprocess(x, **{name: value for name, value in given.items() if value is not None})
    return keras.utils.unpack_x_y_sample_weight(batch)[0] if isinstance(batch, tuple) else batch


def _without_optional(tensor: Any) -> Any:
    return None if isinstance(tensor, tf.experimental.Optional) else tensor


def check_inputs(model: keras.Model, x: Any, number: int) -> None:
    """Raise ValueError for a batch that a model of one declared input cannot take, in plain words."""
    declared = model.inputs if has_readable_graph(model) else []
    given = tf.nest.flatten(x)
    if len(declared) != 1 or len(given) != 1 or len(declared[0].shape) < 2:
        return
    wanted, shape = tuple(declared[0].shape), tuple(given[0].shape)
    if _fit(wanted[1:], shape[1:]):
        return
    message = f"Batch {number} has the shape {shape}, and {model.name!r} takes {wanted}."
    if _fit(wanted[1:], shape):
        message += " That is one sample, not a batch: use dataset.batch(32), or x[numpy.newaxis]."
    raise ValueError(f"{message} The model was not changed.")


def _fit(wanted: tuple[int | None, ...], shape: tuple[int | None, ...]) -> bool:
    """As Keras: a last axis of 1 may be left out, or added."""
    pairs = zip(wanted, shape, strict=False)
    alike = all(None in pair or pair[0] == pair[1] for pair in pairs)
    longer = wanted if len(wanted) > len(shape) else shape
    return alike and (
        len(wanted) == len(shape) or (abs(len(wanted) - len(shape)) == 1 and longer[-1] == 1)
    )


def size_of_batch(x: Any) -> int:
    """How many samples a batch of inputs has, by the first input that counts them."""
    for tensor in tf.nest.flatten(x):
        if isinstance(tensor, tf.SparseTensor):
            return int(tensor.dense_shape[0])
        if isinstance(tensor, tf.RaggedTensor):
            return int(tensor.nrows())
        if tensor is not None and len(tensor.shape):
            return int(tensor.shape[0])
    return 1


def check_size(model: keras.Model, declared: int | None, size: int, number: int) -> None:
    """Raise ValueError for a batch of another size than the model has declared."""
    if declared not in (None, size):
        raise ValueError(
            f"Batch {number} has {size} samples, and {model.name!r} is declared for batches of "
            f"{declared}. Pass such batches, without the short one at the end "
            f"(tf.data.Dataset.batch({declared}, drop_remainder=True)). The model was not changed."
        )


def declared_batch_size(model: keras.Model) -> int | None:
    """The batch size that a model's inputs have fixed; `None` where any is welcome."""
    inputs = model.inputs if has_readable_graph(model) else []
    sizes = [tensor.shape[0] for tensor in inputs if len(tensor.shape) > 0]
    return next((size for size in sizes if size is not None), None)


def _size_to_cut(model: keras.Model, arrays: Any) -> int:
    declared = declared_batch_size(model)
    sizes = [len(array) for array in tf.nest.flatten(arrays) if _is_array(array) and np.ndim(array)]
    if len(set(sizes)) > 1:
        raise ValueError(
            f"data has arrays of {', '.join(map(str, sizes))} samples. Give each input as many as the "
            "others."
        )
    samples = sizes[0] if sizes else 0
    if declared is not None and samples % declared:
        whole = samples - samples % declared
        raise ValueError(
            f"data has {samples} samples, and {model.name!r} is declared for batches of {declared}, "
            f"which leaves {samples % declared} over. Pass {whole} samples, x[:{whole}], or as many "
            "more as make a batch."
        )
    return BATCH_SIZE if declared is None else declared


def _whole_batches(model: keras.Model, dataset: tf.distribute.DistributedDataset) -> Iterator[Any]:
    """Batches that were cut up for replicas, put together again, and those of all workers with them."""
    inside = tf.distribute.has_strategy()
    strategy = tf.distribute.get_strategy() if inside else model.distribute_strategy

    def gathered(value: tf.Tensor) -> tf.Tensor:
        return tf.distribute.get_replica_context().all_gather(value, axis=0)

    def whole(value: Any) -> Any:
        if not isinstance(value, tf.distribute.DistributedValues):
            return value
        parts = value.values  # the default strategy has no other way to them
        if strategy.num_replicas_in_sync > len(parts):
            return strategy.experimental_local_results(strategy.run(gathered, args=(value,)))[0]
        return tf.concat(list(parts), 0)

    return (tf.nest.map_structure(whole, batch) for batch in dataset)


def _inputs(batch: Any) -> Any:
    """`x` of a batch `x` or a tuple `(x, y, …)`; several inputs as a tuple, as tf.data wants them."""
    x = keras.utils.unpack_x_y_sample_weight(batch)[0] if isinstance(batch, tuple) else batch
    return tuple(x) if isinstance(x, list) and any(map(_is_array, x)) else x


def _array_for_each_input(model: keras.Model, arrays: list[Any]) -> Any:
    if has_readable_graph(model) and len(arrays) != len(model.inputs):
        raise ValueError(
            f"data is a list of {len(arrays)} arrays, one for each input, and {model.name!r} has "
            f"{len(model.inputs)}. For batches pass a list of tuples, [(x,), …] or [(x, y), …]."
        )
    return arrays[0] if len(arrays) == 1 else arrays


def _is_array(data: Any) -> bool:
    return hasattr(data, "__array__")


def _is_read_by_keras(data: Any) -> bool:
    kinds = (tf.data.Dataset, keras.utils.PyDataset)
    torch_loader = type(data).__module__.startswith("torch.")
    return (isinstance(data, kinds) or torch_loader) and not isinstance(data, Iterator)
