"""`load_model`: a model of Keras 1 or 2 as one of Keras 3."""

from __future__ import annotations

import os
import warnings
from collections.abc import Mapping
from typing import Any

import keras

from ...data_format import channels_first, to_channels_last
from ...layer import BatchNorm
from ...messages import one_line
from ...renorm import BatchRenorm
from .building.assignment import Assignment
from .building.builder import Builder
from .errors import LegacyModelError
from .layers import keras1_table, keras2_table
from .reading import files
from .reading.architecture import looks_like_keras2, makes_masks, model_config
from .reading.writer_info import WriterInfo, writer_info
from .report import LegacyBatchNorm, LegacyReport


def load_model(
    path: Any,
    *,
    weights: Any = None,
    keras_version: str | None = None,
    backend: str | None = None,
    data_format: str | None = None,
    custom_objects: Mapping[str, Any] | None = None,
) -> keras.Model:
    """A model that Keras 0.3.3 to 2.15 saved, tf.keras 2 among them, as one of Keras 3.

    It predicts what the saved one did. Batch norms of mode 0 become `tfbn.BatchNorm`, those of modes 1
    and 2 `compat.BatchNormalization`; layers keep their names ("/" becomes "_"). The model is not
    compiled. It saves to `.keras`, which loads after `import tfbn`.

    A model with channels-first layers, as nearly all of Keras 1 on Theano, is turned to channels last
    (see `tfbn.convert`), which runs on every processor; its inputs and outputs keep their layout.

    Training goes on as it did, but for what Keras 3 does otherwise: a frozen batch norm keeps its
    statistics, and `tfbn.BatchNorm` leaves masked positions out of the batch's; and Keras 1.2.2 on
    Theano moved `running_std` of mode 0 towards the variance plus epsilon, not the variance. What is
    called with training=True runs so in `predict` too.

    Files are data: nothing that they say is run or imported, and nothing outside them is read.

    Args:
        path: an HDF5 file of a whole model, a `.keras` archive of Keras 2, the `model.json` of
            TensorFlow.js beside its shards, or the JSON of an architecture.
        weights: the HDF5 file of its weights, with a JSON.
        keras_version: the release that wrote it, as "1.0.6", where the file does not say.
        backend: "theano", "tensorflow" or "cntk". Keras 1 wrote it nowhere, and kernels of convolutions,
            and what batch norms of 1.0.6 and 1.0.7 stored, depend on it.
        data_format: "channels_first" keeps the layers as the file has them, "channels_last" turns them;
            `None` turns them too, but a model that cannot be turned stays as it is, with a warning.
        custom_objects: classes of layers and functions of activations by name; functions of Lambda
            layers by the layer's or the function's name.

    Returns:
        A Sequential or Functional model, as the file has it.

    Raises:
        TypeError: `path` or `weights` are no paths.
        ValueError: another `data_format`; a model that cannot be turned to the one asked for.
        LegacyModelError: no such files, or damaged ones; release or backend are needed and unknown, or
            contradict what the file says; weights that do not fit.
        UnsupportedLayerError: a layer or a setting that Keras 3 has nothing for.

    Warns:
        UserWarning: the model stays channels first; why, and what to do.

    >>> import json, pathlib, tempfile, numpy
    >>> config = {"name": "relu", "activation": "relu", "batch_input_shape": [None, 2]}
    >>> layers = [{"class_name": "Activation", "config": config}]
    >>> old = {"class_name": "Sequential", "config": {"name": "old", "layers": layers}}
    >>> path = pathlib.Path(tempfile.mkdtemp(), "model.json")  # as TensorFlow.js writes it
    >>> _ = path.write_text(json.dumps({"modelTopology": old, "weightsManifest": []}))
    >>> print(load_model(path)(numpy.array([[-1.0, 2.0]])).numpy())
    [[0. 2.]]
    """
    return load(
        path,
        weights=weights,
        keras_version=keras_version,
        backend=backend,
        data_format=data_format,
        custom_objects=custom_objects,
    )[0]


def load(
    path: Any,
    *,
    weights: Any = None,
    keras_version: str | None = None,
    backend: str | None = None,
    data_format: str | None = None,
    custom_objects: Mapping[str, Any] | None = None,
) -> tuple[keras.Model, LegacyReport]:
    """`load_model`, and a report of what the batch norms were and became."""
    path = _path("path", path)
    weights = None if weights is None else _path("weights", weights)
    if data_format not in (None, "channels_first", "channels_last"):
        raise ValueError(
            "data_format must be 'channels_first' (as the file has it), 'channels_last' or None, "
            f"received {data_format!r}."
        )
    try:
        file = files.read(path, weights)
        writer = writer_info(
            file.versions,
            file.backends,
            keras_version,
            backend,
            like_keras2=looks_like_keras2(file.config),
        )
        if data_format != "channels_first":
            model, found = _build(file, writer, custom_objects or {}, turned=True)
            if not channels_first(model):
                return model, _report(writer, found)
            try:
                with keras.saving.custom_object_scope(dict(custom_objects or {})):
                    turned = to_channels_last(model, check_biases=False)
                return turned, _report(writer, found, turned=True)
            except Exception as error:  # a layer of the caller's own may raise anything
                if data_format is not None:
                    raise
                _warn_of_channels_first(one_line(error))
        model, found = _build(file, writer, custom_objects or {}, turned=False)
    except LegacyModelError as error:
        error.path = error.path or path
        raise
    return model, _report(writer, found)


def _build(
    file: files.LegacyFile, writer: WriterInfo, custom: Mapping[str, Any], *, turned: bool
) -> tuple[keras.Model, list[LegacyBatchNorm]]:
    """The model with its weights, in the file's layout, and what became of its batch norms."""
    found: list[LegacyBatchNorm] = []

    def note(where: str, mode: int, stored: str, layer: Any) -> None:
        kind = type(layer)
        if kind in (BatchNorm, BatchRenorm):
            unbiased = ", unbiased" * layer.unbiased
            became = f"{kind.__name__}(epsilon={layer.epsilon:g}{unbiased})"
        else:
            became = f"compat.BatchNormalization(epsilon={layer.epsilon:g}, mode={mode})"
        found.append(LegacyBatchNorm(where, mode, stored, layer.epsilon, became))

    table = (keras1_table if writer.generation == 1 else keras2_table).TABLE
    config = model_config(file.config)
    assignment = Assignment(table, file, config)
    masked = bool(custom) or makes_masks(file.config)
    return Builder(table, assignment, writer, custom, note, masked, turned).model(config), found


def _report(writer: WriterInfo, found: list[LegacyBatchNorm], turned: bool = False) -> LegacyReport:
    return LegacyReport(writer.text, writer.backend, tuple(found), turned)


def _warn_of_channels_first(why: str) -> None:
    warnings.warn(
        f"{why} It stays channels first, and runs only where TensorFlow has such kernels. With "
        "data_format='channels_first' this is not tried.",
        stacklevel=4,
    )


def _path(name: str, value: Any) -> str:
    if not isinstance(value, (str, bytes, os.PathLike)):
        raise TypeError(f"{name} must be a string or a pathlib.Path, received {value!r}.")
    return os.fsdecode(value)
