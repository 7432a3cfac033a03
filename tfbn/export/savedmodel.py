"""Fold, write, reload, compare."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from .. import folding
from ..batch_norms import batch_norms, layer_paths, warn_if_never_updated
from ..cloning import check_built
from . import freezing, signature
from . import samples as sampling
from .report import ExportError, ExportReport
from .staging import staged

# What rounding does to a deep network's outputs, relative to the largest of them, by the coarsest
# type that a layer computes in: its unit roundoff times 100 (float32) or about 20 (the short types).
TOLERANCES = {"float64": 1e-5, "float32": 1e-5, "float16": 1e-2, "bfloat16": 1e-1}

# What a SavedModel's folder may hold; anything else in it is somebody's.
SAVED_MODEL_FILES = {"saved_model.pb", "saved_model.pbtxt", "fingerprint.pb", "keras_metadata.pb"}
SAVED_MODEL_FILES |= {"variables", "assets", "assets.extra", "debug"}

Outputs = dict[str, np.ndarray]


def export(
    model: keras.Model,
    path: str | os.PathLike[str],
    fold: bool = True,
    overwrite: bool = False,
    atol: float = 0.0,
    rtol: float | None = None,
    samples: Any = None,
    freeze: bool | None = None,
) -> ExportReport:
    """Write a model as a SavedModel with a serving signature, and prove that it is the same function.

    Folds the batch norms, writes the SavedModel beside `path`, reloads it, compares its
    signature with the given model on sample inputs (all at once, and the first one alone), and only
    then moves it to `path`. Whatever fails, interrupts or kills it, what was at `path` stays whole until
    the new one replaces it: in one step on Linux; elsewhere nothing is there for an instant. What a
    killed export left is removed by the next one to the same path. TensorFlow Serving takes paths that
    end in a version number, `models/digits/1`.

    The signature `serving_default` takes the model's inputs under their names, with a free batch size.
    Where `keras.Input` was given none, they are `inputs`, or `inputs_0`, `inputs_1`, … of several; what
    a Python argument cannot hold becomes `_`. It returns the outputs as Keras names them: `output_0`,
    `output_1`, … or the keys of a dictionary; nested ones by their path, `y_0`.

    Args:
        model: a built Keras model; with `fold=True`, one that `tfbn.fold` takes. It is not changed.
        path: the local directory to write. Its parents are made.
        fold: whether to fold batch norms first.
        overwrite: whether a SavedModel that is already there, with nothing beside it in its
            directory, may be replaced.
        atol: absolute difference allowed.
        rtol: difference allowed relative to the largest absolute value of an output; by default
            1e-5, or 1e-2 with float16 and 1e-1 with bfloat16 layers in the model.
        samples: inputs to compare on, structured as the model's, at least one. By default four are
            drawn to the model's input specification: standard normal numbers, 0 or 1
            for integers and booleans, 32 for unknown sizes.
        freeze: whether the weights become constants of the SavedModel's graph: it answers sooner, and
            takes more memory to serve; it holds nothing to train on. By default weights of up to 128 MB
            in all do, unless a call writes to them or a layer needs them as variables.

    Returns:
        An `ExportReport`.

    Raises:
        TypeError, ValueError: as `tfbn.fold`; a model that does not run on the samples or gives
            values that are not finite; samples that cannot be drawn; weights that cannot be constants
            with `freeze=True`: above 2 GB, written to by a call, or needed as variables by a layer.
        FileExistsError: `path` is taken, and `overwrite` is false or it is not just a SavedModel.
        OSError: `path` cannot be written.
        ExportError: the reloaded model differs by more than `atol + rtol · max|output|`.

    Warns:
        UserWarning: a batch norm was trained whose moving statistics were never updated.
    """
    target = _check_target(path, overwrite)
    check_built(model, "export", "export")
    freezing.reason_for_variables(model, freeze)  # Before any work: it may be impossible.
    # A layer around TF1 code warns by itself.
    warn_if_never_updated(batch_norms(model, inside=False))
    with staged(target, overwrite) as staging:
        served, report = folding.fold(model) if fold else (model, None)
        inputs = sampling.draw(model) if samples is None else sampling.check(model, samples)
        batches = [(batch, _run(model, batch)) for batch in (inputs, sampling.first(inputs))]
        sizes = {name: _size(array) for name, array in batches[0][1].items()}
        specification = signature.specification(model, inputs)
        allowed = (atol, TOLERANCES[_coarsest_dtype(model)] if rtol is None else rtol)
        reason = _write(served, staging, specification, freeze)
        loaded = tf.saved_model.load(str(staging)).signatures[signature.NAME]
        names = [one.name for one in tf.nest.flatten(specification)]
        differences = [
            _difference(_serve(loaded, names, batch), expected, sizes, *allowed)
            for batch, expected in batches
        ]
        _check_target(path, overwrite)  # Again: something may have come there meanwhile.
    absolute, relative = np.max(differences, axis=0)
    return ExportReport(
        path=target,
        fold=report,
        difference=float(absolute),
        relative_difference=float(relative),
        samples=len(tf.nest.flatten(inputs)[0]),
        inputs=signature.described(loaded.structured_input_signature[1]),
        outputs=signature.described(loaded.structured_outputs),
        reason_for_variables=reason,
    )


def _check_target(path: str | os.PathLike[str], overwrite: bool) -> Path:
    if "://" in os.fspath(path):
        raise ValueError(f"export writes to local directories, received {path}. Copy it there after.")
    target = Path(path)
    if set("*?[") & set(os.path.abspath(target)):
        raise ValueError(
            f"TensorFlow takes *, ? and [ in paths for patterns, received {path}. Rename it."
        )
    if not target.exists():
        return target
    if not overwrite:
        raise FileExistsError(f"{target} exists already. Choose another path, or pass overwrite=True.")
    found = {entry.name for entry in target.iterdir()} if target.is_dir() else {"a file"}
    if found - SAVED_MODEL_FILES or (found and "saved_model.pb" not in found):
        raise FileExistsError(
            f"{target} exists and is not just a SavedModel (it holds {', '.join(sorted(found))}), so "
            "overwrite=True does not replace it. Move it away, or choose another path."
        )
    return target


def _run(model: keras.Model, inputs: Any) -> Outputs:
    """The outputs of the given model at inference, under the names that the signature gives them."""
    try:
        outputs = model(inputs, training=False)
    except Exception as error:
        raise ValueError(
            f"The model {model.name!r} does not run on the sample inputs: {error}\n"
            "Pass samples=, a small batch of inputs that it takes. (It must run on any batch size, "
            "one included.)"
        ) from error
    arrays = {name: tf.convert_to_tensor(one).numpy() for name, one in signature.flat(outputs).items()}
    for name, array in arrays.items():
        if _is_number(array) and not np.isfinite(_wide(array)).all():
            raise ValueError(
                f"The model's {name} is NaN or infinite on the sample inputs, so nothing can be "
                "compared. Pass samples= that give finite outputs, or mend the weights."
            )
    return arrays


def _is_number(array: np.ndarray) -> bool:
    return array.dtype.kind not in "OSU"


def _size(array: np.ndarray) -> float:
    return float(np.abs(_wide(array)).max(initial=0.0)) if _is_number(array) else 0.0


def _wide(array: np.ndarray) -> np.ndarray:
    return array.astype("complex128" if array.dtype.kind == "c" else "float64")


def _coarsest_dtype(model: keras.Model) -> str:
    dtypes = {layer.compute_dtype for layer in layer_paths(model).values()} | {model.compute_dtype}
    return max(dtypes & TOLERANCES.keys(), key=TOLERANCES.__getitem__, default="float32")


def _write(model: keras.Model, path: Path, specification: Any, freeze: bool | None) -> str:
    """Write the SavedModel; return why its weights are variables, `""` if they are constants."""

    def serve(inputs: Any) -> Any:
        outputs = model(inputs, training=False)
        inside = outputs.values() if isinstance(outputs, Mapping) else outputs
        nested = isinstance(outputs, (Mapping, list, tuple)) and any(map(tf.nest.is_nested, inside))
        return signature.flat(outputs) if nested else outputs

    archive, reason = freezing.archive(model, serve, specification, freeze)
    with _quiet():
        try:
            archive.write_out(str(path))
        except tf.errors.OpError as error:  # TensorFlow's own, on a full disk, for instance
            raise OSError(
                f"The SavedModel cannot be written: {error.message}. Make room, or choose another path."
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


def _serve(loaded: Any, names: list[str], inputs: Any) -> Outputs:
    tensors = map(tf.constant, tf.nest.flatten(inputs))
    outputs = loaded(**dict(zip(names, tensors, strict=True)))
    return {name: tensor.numpy() for name, tensor in outputs.items()}


def _difference(
    served: Outputs, expected: Outputs, sizes: dict[str, float], atol: float, rtol: float
) -> tuple[float, float]:
    """The largest absolute difference, and that relative to `sizes`.

    Raises:
        ExportError: one is above the tolerance, or an output that is no number differs.
    """
    absolute = relative = 0.0
    for name, want in expected.items():
        got, size = served[name], sizes[name]
        if _is_number(want):
            difference = float(np.abs(_wide(got) - _wide(want)).max(initial=0.0))
        else:
            difference = float(not np.array_equal(got, want))
        if not difference <= atol + rtol * size:
            raise ExportError(
                f"The reloaded SavedModel's {name} differs from the model's by {difference:.3g}, with "
                f"values up to {size:.3g}; allowed is atol + rtol * {size:.3g} with atol={atol:g}, "
                f"rtol={rtol:g}. Nothing was written. Try fold=False to see whether folding does "
                "it, or allow more."
            )
        absolute = max(absolute, difference)
        relative = max(relative, difference / size if size else 0.0)
    return absolute, relative
