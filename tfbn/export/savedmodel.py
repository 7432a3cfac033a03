"""Fold, write, reload, compare."""

from __future__ import annotations

import contextlib
import inspect
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from .. import folding
from ..batch_norms import batch_norms, layer_paths
from ..cloning import check_built, has_readable_graph
from ..data_format import check_kernels, misplaced_biases
from ..folding.keras.read import called_in_training, read
from ..messages import join_some, one_line
from ..moving_statistics import warn_if_never_updated
from ..population.measure import input_shape
from ..population.observe import running_in_training, warn_if_far
from . import comparison, freezing, signature
from . import samples as sampling
from .report import ExportError, ExportReport
from .staging import staged
from .target import check_target


def export(
    model: keras.Model,
    path: str | os.PathLike[str],
    fold: bool = True,
    overwrite: bool = False,
    atol: float = 0.0,
    rtol: float | None = None,
    samples: Any = None,
    freeze: bool | None = None,
    input_names: Sequence[str] | None = None,
) -> ExportReport:
    """Write a model as a SavedModel, checked against the model on sample inputs.

    Folds the batch norms, writes the SavedModel beside `path`, reloads it, compares its
    signature with the given model on sample inputs (all at once, and the first one alone), and only
    then moves it to `path`. Whatever fails, interrupts or kills it, what was at `path` stays whole until
    the new one replaces it: in one step on Linux; elsewhere nothing is there for an instant. What a
    killed export left is removed by the next one to the same path. TensorFlow Serving takes paths that
    end in a version number, `models/digits/1`.

    Layers that the model itself calls with training=True run so, as in Keras' own export, and the report
    names them. All others run as at inference.

    The signature `serving_default` takes the model's inputs under their names, with a free batch size.
    Where `keras.Input` was given none, they are `inputs`, or `inputs_0`, `inputs_1`, … of several.
    Characters not allowed in an identifier become `_`; Python keywords and `self` get the prefix
    `input_`. It returns the outputs as Keras names them: `output_0`, `output_1`, … or the keys of a
    dictionary; nested ones by their path, `y_0`.

    Args:
        model: a built Keras model; with `fold=True`, one that `tfbn.fold` takes. It is not changed.
        path: the local directory to write. Its parents are made.
        fold: whether to fold batch norms first.
        overwrite: whether a SavedModel that is already there, with nothing beside it in its
            directory, may be replaced.
        atol: absolute difference allowed.
        rtol: difference allowed relative to the largest absolute value of an output; by default
            1e-5, or 1e-2 with float16 and 1e-1 with bfloat16 layers in the model, and ten times what
            a change of the inputs in their last digit does, up to 1e-2, where that is more.
        samples: inputs to compare on, at least one, structured as the model's or a dict by the
            signature's names. Choose samples whose outputs differ; near-constant outputs make the check
            weak. By default four are drawn to the model's input specification: standard normal
            numbers, 0 or 1 for integers and booleans, 32 for unknown sizes.
        freeze: whether the weights become constants of the SavedModel's graph: it answers sooner, and
            takes more memory to serve; it holds nothing to train on. By default weights of up to 40 MB
            in all do, unless a call writes to variables, or a layer needs some or calls a tf.function.
        input_names: the signature's names of the inputs, in the model's order: those that clients of
            another export use, for instance (Keras' own calls an unnamed one `input_layer`).

    Returns:
        An `ExportReport`.

    Raises:
        TypeError, ValueError: as `tfbn.fold`; a model that does not run on the samples or gives
            values that are random or not finite; samples that cannot be drawn; a stateful RNN; weights
            that cannot be constants with `freeze=True`.
        FileExistsError: `path` is taken, and `overwrite` is false or it is not just a SavedModel.
        OSError: `path` cannot be written.
        RuntimeError: a channels-first model that TensorFlow cannot run on this machine.
        ExportError: the reloaded model fails, has other shapes, or differs by more than
            `atol + rtol · max|output|`.

    Warns:
        UserWarning: a batch norm was trained whose moving statistics were never updated; or they are
            far from those of the `samples`.
    """
    target = check_target(path, overwrite)
    check_built(model, "export", "export")
    _check_arguments(model, atol, rtol, freeze)
    _check_channels_first(model)
    # A layer around TF1 code warns by itself.
    warn_if_never_updated(batch_norms(model, inside=False))
    with staged(target, overwrite) as staging:
        served, report = folding.fold(model) if fold else (model, None)
        inputs = sampling.draw(model) if samples is None else sampling.check(model, samples, input_names)
        in_training = _in_training(model, inputs)
        if report is not None and (kept := _kept_to_train(report, in_training)):
            served, report = model, kept
        # Layers of augmentation train unless told, so that Keras' own export of them is random.
        training = None if in_training else False
        batches = [
            (batch, comparison.run(model, batch, training)) for batch in (inputs, sampling.first(inputs))
        ]
        sizes = {name: comparison.size(array) for name, array in batches[0][1].items()}
        specification = signature.specification(model, inputs, input_names)
        moves = comparison.sensitivity(model, *batches[0], training)
        usual = comparison.tolerance(model, moves)
        comparison.check_repeatable(model, *batches[0], usual, training)
        if samples is not None:
            warn_if_far(model, inputs)
        allowed = (atol, usual if rtol is None else rtol)
        reason = _write(served, staging, specification, freeze, training)
        loaded = tf.saved_model.load(str(staging)).signatures[signature.NAME]
        names = [one.name for one in tf.nest.flatten(specification)]
        with _told_of_free_steps(model):
            differences = [
                comparison.difference(comparison.serve(loaded, names, batch), expected, sizes, *allowed)
                for batch, expected in batches
            ]
        check_target(path, overwrite)  # Again: something may have come there meanwhile.
    absolute, relative = np.max(differences, axis=0)
    return ExportReport(
        path=target,
        fold=report,
        difference=float(absolute),
        relative_difference=float(relative),
        sensitivity=moves,
        in_training=in_training,
        samples=len(tf.nest.flatten(inputs)[0]),
        spread=comparison.spread(batches[0][1]),
        inputs=signature.described(loaded.structured_input_signature[1]),
        outputs=signature.described(loaded.structured_outputs),
        reason_for_variables=reason,
    )


def _kept_to_train(
    report: folding.FoldReport, in_training: tuple[str, ...]
) -> folding.FoldReport | None:
    """That all batch norms stay, where one that went would run as in training; `None` elsewhere."""
    if not {entry.path for entry in report.folded} & set(in_training):
        return None
    why = (
        "the model calls a layer with training=True, which Keras hands on to those behind it; call it "
        "without to fold the others"
    )
    kept = (replace(entry, into=(), reason=entry.reason or why) for entry in report.entries)
    return replace(report, entries=tuple(kept))


def _in_training(model: keras.Model, inputs: Any) -> tuple[str, ...]:
    """The layers that an open model calls with training=True, and the batch norms that train with them.

    None where its graph cannot be read.
    """
    if not has_readable_graph(model):
        return ()
    names = {id(layer): path for path, layer in layer_paths(model).items()}
    try:
        called = called_in_training(read(model))
    except ValueError:  # of a layer without a configuration, which an export does not need
        return ()
    found = [
        names[id(layer)] for layer in called if id(layer) in names and not _trains_unless_told(layer)
    ]
    return tuple(dict.fromkeys([*found, *running_in_training(model, inputs)])) if found else ()


@contextlib.contextmanager
def _told_of_free_steps(model: keras.Model) -> Iterator[None]:
    """Name the likely cause: before Keras knows the length, its TimeDistributed is wrong in graphs."""
    try:
        yield
    except ExportError as error:
        free = [
            path
            for path, layer in layer_paths(model).items()
            if type(layer) is keras.layers.TimeDistributed and input_shape(layer)[:1] == (None,)
        ]
        if not free:
            raise
        raise ExportError(
            f"TimeDistributed over a length that is not declared ({join_some(free)}) computes something "
            "else in a graph, with this Keras. Declare the length, keras.Input((7, ...)), or take the "
            f"layer alone where it acts on the last axis. {error}"
        ) from error


def _trains_unless_told(layer: keras.layers.Layer) -> bool:
    """Whether a layer, of augmentation usually, has `training=True` as its default."""
    parameter = inspect.signature(type(layer).call).parameters.get("training")
    return parameter is not None and parameter.default is True


def _check_arguments(model: keras.Model, atol: float, rtol: float | None, freeze: bool | None) -> None:
    if not (atol >= 0 and (rtol is None or rtol >= 0)):
        raise ValueError(f"atol and rtol must be 0 or more, received {atol} and {rtol}.")
    if not isinstance(freeze, (bool, type(None))):
        raise TypeError(f"freeze must be True, False or None, received {freeze!r}.")
    for path, layer in layer_paths(model).items():
        if isinstance(layer, keras.layers.RNN) and layer.stateful:
            raise ValueError(
                f"The layer {path!r} ({type(layer).__name__}) is stateful, so its batch size is fixed, "
                "and a signature's is free. Make it with stateful=False, and set its weights."
            )
    freezing.reason_for_variables(model, freeze)  # Before any work: it may be impossible.


def _check_channels_first(model: keras.Model) -> None:
    check_kernels(model)
    if misplaced := misplaced_biases(model):
        raise ValueError(
            f"The outputs of {join_some(misplaced)} are as long along the last axis as they have "
            "channels. Keras adds the bias of a channels-first layer along that axis then, in some runs "
            "and not in others, so that nothing can be compared. Set these biases to 0 and train on, or "
            "take images of another size."
        )


def _write(
    model: keras.Model, path: Path, specification: Any, freeze: bool | None, training: bool | None
) -> str:
    """Write the SavedModel; return why its weights are variables, `""` if they are constants."""

    def serve(inputs: Any) -> Any:
        outputs = model(inputs, training=training)
        inside = outputs.values() if isinstance(outputs, Mapping) else outputs
        nested = isinstance(outputs, (Mapping, list, tuple)) and any(map(tf.nest.is_nested, inside))
        return signature.flat(outputs) if nested else outputs

    archive, reason = freezing.archive(model, serve, specification, freeze)
    with _quiet():
        try:
            archive.write_out(str(path))
        except tf.errors.OpError as error:  # TensorFlow's own, on a full disk, for instance
            raise OSError(
                "The SavedModel cannot be written. Make room, or choose another path. TensorFlow says: "
                f"{one_line(error)}"
            ) from error
    return reason


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keras would print the staging path. The setting is a thread's own, unlike `sys.stdout`."""
    interactive = keras.config.is_interactive_logging_enabled()
    keras.config.disable_interactive_logging()
    try:
        yield
    finally:
        if interactive:
            keras.config.enable_interactive_logging()
