"""Fold, examine, write, reload, compare, swap."""

from __future__ import annotations

import os
from collections.abc import Collection, Sequence
from dataclasses import replace
from typing import Any

import keras

from .. import folding
from ..batch_norms import batch_norms
from ..cloning import check_built
from ..files.atomic import staged
from ..moving_statistics import warn_if_never_updated
from ..population.observe import warn_if_far
from . import checks, formats
from .graphs import chosen, export_graph, in_its_graph, is_source, open_source
from .report import ExportReport, SpecsByName
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
    format: str | None = None,
    inputs: Sequence[str] | None = None,
    outputs: Sequence[str] | None = None,
    signatures: Sequence[str] | None = None,
) -> ExportReport:
    """Write a model as a SavedModel, LiteRT, ONNX or OpenVINO, checked against it on sample inputs.

    Folds the batch norms, writes beside `path`, reloads that with its own runtime, compares what it
    answers with the given model on sample inputs (all at once, and the first one alone), and only
    then moves it to `path`. Whatever fails, interrupts or kills it, what was at `path` stays whole until
    the new one replaces it: in one step on Linux; elsewhere, and with OpenVINO's two files, nothing is
    there for an instant. What a killed export left is removed by the next one to the same path.
    TensorFlow Serving takes paths that end in a version number, `models/digits/1`.

    A path that ends in .tflite, .onnx or .xml says the format: LiteRT, ONNX, or OpenVINO, which has a
    file .bin beside it. A converter makes them of a SavedModel, so that they have its signature.

    Layers that the model itself calls with training=True run so, as in Keras' own export, and the report
    names them. All others run as at inference.

    The signature `serving_default` takes the model's inputs under their names, with a free batch size.
    Where `keras.Input` was given none, they are `inputs`, or `inputs_0`, `inputs_1`, … of several.
    Characters not allowed in an identifier become `_`; Python keywords and `self` get the prefix
    `input_`. It returns the outputs as Keras names them: `output_0`, `output_1`, … or the keys of a
    dictionary; nested ones by their path, `y_0`.

    Args:
        model: a built Keras model; with `fold=True`, one that `tfbn.fold` takes. Or what TensorFlow
            serves, folded in its graph: the path of a SavedModel (of TensorFlow 1, too), all of whose
            signatures are kept and compared, or of a frozen graph; a `tf.Module`, `tf.function` or
            concrete function with an input signature. It is not changed.
        path: the local directory or file to write. Its parents are made.
        fold: whether to fold batch norms first.
        overwrite: whether a file that is already there may be replaced, or a SavedModel with nothing
            beside it in its directory.
        atol: absolute difference allowed.
        rtol: difference allowed relative to the largest absolute value of an output; by default
            1e-5, or 1e-2 with float16 and 1e-1 with bfloat16 layers in the model, and ten times what
            a change of the inputs in their last digit does, up to 1e-2, where that is more.
        samples: inputs to compare on, at least one, structured as the model's or a dict by the
            signature's names. Choose samples whose outputs differ; near-constant outputs make the check
            weak. By default four are drawn to the model's input specification: standard normal
            numbers, 0 or 1 for integers and booleans, 32 for unknown sizes.
        freeze: whether the weights become constants of a SavedModel's graph: it answers sooner, and
            takes more memory to serve; it holds nothing to train on. By default weights of up to 40 MB
            in all do, unless a call writes to variables, or a layer needs some or calls a tf.function.
        input_names: the signature's names of the inputs, in the model's order: those that clients of
            another export use, for instance (Keras' own calls an unnamed one `input_layer`).
        format: `"tf_saved_model"`, `"litert"`, `"onnx"` or `"openvino"`, unless the path says it.
        inputs, outputs: the tensors of a frozen graph that it takes and gives, `["input:0"]`; where its
            placeholders are the inputs, and one tensor is read by nothing, they need not be told.
        signatures: those of a SavedModel to keep, all of them by default.

    Returns:
        An `ExportReport`.

    Raises:
        TypeError, ValueError: as `tfbn.fold`; a model that does not run on the samples or gives
            values that are random or not finite; samples that cannot be drawn; a stateful RNN; weights
            that cannot be constants with `freeze=True`; a model that the format cannot express.
        ImportError: packages of the format are not installed.
        FileExistsError: `path` is taken, and `overwrite` is false or it is not just a SavedModel.
        OSError: `path` cannot be written.
        RuntimeError: a channels-first model that TensorFlow cannot run on this machine.
        ExportError: the reloaded model fails, has other shapes, or differs by more than
            `atol + rtol · max|output|`.

    Warns:
        UserWarning: a batch norm was trained whose moving statistics were never updated; or they are
            far from those of the `samples`.

    >>> import tempfile, tfbn
    >>> model = keras.Sequential([keras.Input((4,), name="x"), tfbn.BatchNorm(), keras.layers.Dense(2)])
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     report = tfbn.export(model, f"{folder}/1")  # for TensorFlow Serving
    >>> report.inputs, report.outputs
    ({'x': ((None, 4), 'float32')}, {'output_0': ((None, 2), 'float32')})
    """
    file_format = formats.chosen(path, format, freeze)
    target = file_format.check_target(path, overwrite)
    _check_tolerance(atol, rtol)
    if is_source(model):
        _refuse(input_names=input_names)
        served = chosen(open_source(model, inputs, outputs), signatures)
        return export_graph(served, file_format, target, fold, overwrite, atol, rtol, samples)
    _refuse(inputs=inputs, outputs=outputs, signatures=signatures)
    check_built(model, "export", "export")
    file_format.check_weights(model)
    check_model(model)
    # A layer around TF1 code warns by itself.
    warn_if_never_updated(batch_norms(model, inside=False))
    with staged(target, overwrite, file_format.beside(target)) as staging_path:
        folded, fold_report = _folded(model) if fold else (model, None)
        given = from_keras(model, samples, input_names)
        checks.check_repeatable(given, given.rtol)
        if samples is not None:
            warn_if_far(model, given.batches[0].inputs, stacklevel=2)
        if fold_report is not None and (kept := _kept_to_train(fold_report, given.in_training)):
            fold_report = kept
        if fold_report is None or not fold_report.folded:
            folded = model  # which needs no copy
        servable, in_graph = in_place_of(given, folded), None
        if fold_report is not None and not given.in_training:
            in_graph = in_its_graph(servable, fold_report)
        if in_graph is not None:
            fold_report = in_graph.report
            reason = in_graph.write(file_format, staging_path)
        else:
            reason = file_format.write(servable, staging_path)
        reloaded = file_format.reload(staging_path)
        absolute, relative = checks.check_reloaded(
            reloaded.run, given, atol, given.rtol if rtol is None else rtol, file_format
        )
        file_format.check_target(path, overwrite)  # Again: something may have come there meanwhile.
    return ExportReport(
        format=file_format.name,
        path=target,
        fold=fold_report,
        difference=absolute,
        relative_difference=relative,
        sensitivity=given.sensitivity,
        in_training=given.in_training,
        samples=given.sample_count,
        spread=given.output_variation(),
        inputs=_of_names(reloaded.inputs, given.by_name(given.specs)),
        outputs=_of_names(reloaded.outputs, given.batches[0].outputs),
        reason_for_variables=reason,
    )


def _of_names(specs: SpecsByName, names: Collection[str]) -> SpecsByName:
    """Without the other names of tensors that have several, as an input that is an output, too, has."""
    return {name: spec for name, spec in specs.items() if name in names}


def _folded(model: keras.Model) -> tuple[keras.Model, folding.FoldReport]:
    """See `tfbn.fold`; a model whose graph it cannot read stays as it is, with the reason."""
    try:
        return folding.fold(model)
    except TypeError as error:
        reason = str(error)
    entries = (
        folding.FoldEntry(path, type(layer).__name__, reason=reason, hidden=True)
        for path, layer in batch_norms(model).items()
    )
    return model, folding.FoldReport(tuple(entries))


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


def _refuse(**arguments: Sequence[str] | None) -> None:
    """Refuse arguments that say something of another kind of source."""
    for name, value in arguments.items():
        if value is not None:
            kinds = {"input_names": "Keras models", "signatures": "SavedModels"}
            raise ValueError(
                f"{name}= is for {kinds.get(name, 'frozen graphs, files .pb')}. Leave it out."
            )


def _check_tolerance(atol: float, rtol: float | None) -> None:
    if not (atol >= 0 and (rtol is None or rtol >= 0)):
        raise ValueError(f"atol and rtol must be 0 or more, received {atol} and {rtol}.")
