"""Fold, examine, write, reload, compare, swap."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import keras

from .. import folding
from ..batch_norms import batch_norms
from ..cloning import check_built
from ..files.atomic import staged
from ..moving_statistics import warn_if_never_updated
from ..population.observe import warn_if_far
from . import checks, freezing
from .formats.format import Format
from .formats.savedmodel import SavedModel
from .report import ExportReport
from .servable import check_model, from_keras, in_place_of


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
    file_format: Format = SavedModel(freeze)
    target = file_format.check_target(path, overwrite)
    check_built(model, "export", "export")
    _check_arguments(model, atol, rtol, freeze)
    check_model(model)
    # A layer around TF1 code warns by itself.
    warn_if_never_updated(batch_norms(model, inside=False))
    with staged(target, overwrite) as staging_path:
        folded, fold_report = folding.fold(model) if fold else (model, None)
        given = from_keras(model, samples, input_names)
        checks.check_repeatable(given, given.rtol)
        if samples is not None:
            warn_if_far(model, given.batches[0].inputs, stacklevel=2)
        if fold_report is not None and (kept := _kept_to_train(fold_report, given.in_training)):
            fold_report = kept
        if fold_report is None or not fold_report.folded:
            folded = model  # which needs no copy
        reason = file_format.write(in_place_of(given, folded), staging_path)
        reloaded = file_format.reload(staging_path)
        absolute, relative = checks.check_reloaded(
            reloaded.run, given, atol, given.rtol if rtol is None else rtol, file_format.name
        )
        file_format.check_target(path, overwrite)  # Again: something may have come there meanwhile.
    return ExportReport(
        path=target,
        fold=fold_report,
        difference=absolute,
        relative_difference=relative,
        sensitivity=given.sensitivity,
        in_training=given.in_training,
        samples=given.sample_count,
        spread=given.output_variation(),
        inputs=reloaded.inputs,
        outputs=reloaded.outputs,
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


def _check_arguments(model: keras.Model, atol: float, rtol: float | None, freeze: bool | None) -> None:
    if not (atol >= 0 and (rtol is None or rtol >= 0)):
        raise ValueError(f"atol and rtol must be 0 or more, received {atol} and {rtol}.")
    if not isinstance(freeze, (bool, type(None))):
        raise TypeError(f"freeze must be True, False or None, received {freeze!r}.")
    freezing.unfrozen_because(model, freeze)  # Before any work: it may be impossible.
