"""Fold, write, reload, compare."""

from __future__ import annotations

import contextlib
import io
import os
import re
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from .. import folding
from ..batch_norms import layer_paths
from ..cloning import declared_inputs, is_open
from . import samples as sampling
from .report import ExportError, ExportReport, Specification
from .staging import staged

SIGNATURE = "serving_default"

# What rounding does to a deep network's outputs, relative to the largest of them, by the coarsest
# type that a layer computes in: its unit roundoff times 100 (float32) or about 20 (the short types).
TOLERANCES = {"float64": 1e-5, "float32": 1e-5, "float16": 1e-2, "bfloat16": 1e-1}

Outputs = dict[str, np.ndarray]


def export(
    model: keras.Model,
    path: str | os.PathLike[str],
    fold: bool = True,
    overwrite: bool = False,
    atol: float = 0.0,
    rtol: float | None = None,
    samples: Any = None,
) -> ExportReport:
    """Write a model as a SavedModel with a serving signature, and prove that it is the same function.

    Folds the batch norms, writes the SavedModel beside `path`, reloads it, compares its
    signature with the given model on sample inputs (all at once, and the first one alone), and only
    then moves it to `path`. Whatever fails or interrupts it, what was at `path` stays.

    The signature `serving_default` takes the model's inputs under their names (`inputs` where
    `keras.Input` was given none), with a free batch size, and returns its outputs as Keras names
    them: `output_0`, `output_1`, … or the keys of a dictionary.

    Args:
        model: a built Keras model; with `fold=True`, one that `tfbn.fold` takes. It is not changed.
        path: the directory to write. Its parents are made.
        fold: whether to fold batch norms first.
        overwrite: whether a SavedModel that is already there may be replaced.
        atol: absolute difference allowed.
        rtol: difference allowed relative to the largest absolute value of an output; by default
            1e-5, or 1e-2 with float16 and 1e-1 with bfloat16 layers in the model.
        samples: inputs to compare on, structured as the model's, at least one. By default four are
            drawn to the model's input specification: standard normal numbers, 0 or 1
            for integers and booleans, 32 for unknown sizes.

    Returns:
        An `ExportReport`.

    Raises:
        TypeError, ValueError: as `tfbn.fold`; a model that does not run on the samples or gives
            values that are not finite; samples that cannot be drawn.
        FileExistsError: `path` is taken, and `overwrite` is false or it is no SavedModel.
        ExportError: the reloaded model differs by more than `atol + rtol · max|output|`.
    """
    target = Path(path)
    _check_target(target, overwrite)
    _check_model(model)
    inputs = sampling.draw(model) if samples is None else sampling.check(samples)
    batches = [(batch, _run(model, batch)) for batch in (inputs, sampling.first(inputs))]
    served, report = folding.fold(model) if fold else (model, None)
    specification = _specification(model, inputs)
    allowed = (atol, TOLERANCES[_coarsest_dtype(model)] if rtol is None else rtol)
    with staged(target) as staging:
        _write(served, staging, specification)
        signature = tf.saved_model.load(str(staging)).signatures[SIGNATURE]
        names = [one.name for one in tf.nest.flatten(specification)]
        differences = [
            _difference(_serve(signature, names, batch), expected, *allowed)
            for batch, expected in batches
        ]
    absolute, relative = np.max(differences, axis=0)
    return ExportReport(
        path=target,
        fold=report,
        difference=float(absolute),
        relative_difference=float(relative),
        samples=len(tf.nest.flatten(inputs)[0]),
        inputs=_described(signature.structured_input_signature[1]),
        outputs=_described(signature.structured_outputs),
    )


def _check_target(target: Path, overwrite: bool) -> None:
    if not target.exists():
        return
    if not overwrite:
        raise FileExistsError(f"{target} exists already. Choose another path, or pass overwrite=True.")
    if target.is_file() or (any(target.iterdir()) and not (target / "saved_model.pb").is_file()):
        raise FileExistsError(
            f"{target} exists and is not a SavedModel (it has no saved_model.pb), so overwrite=True "
            "does not replace it. Move it away, or choose another path."
        )


def _check_model(model: object) -> None:
    if not isinstance(model, keras.Model):
        raise TypeError(f"export needs a keras.Model, received {type(model).__name__}: {model!r}.")
    if not model.built:
        raise ValueError(
            f"The model {model.name!r} is not built, so it has no weights to export. Call it on a "
            "batch, or start it with keras.Input."
        )


def _run(model: keras.Model, inputs: Any) -> Outputs:
    """The outputs of the given model at inference, under the names that the signature gives them."""
    try:
        outputs = model(inputs, training=False)
    except Exception as error:
        raise ValueError(
            f"The model {model.name!r} does not run on the sample inputs: {error}\n"
            "Pass samples=, a small batch of inputs that it takes."
        ) from error
    if not isinstance(outputs, dict):
        outputs = {f"output_{n}": one for n, one in enumerate(tf.nest.flatten(outputs))}
    arrays = {name: tf.convert_to_tensor(one).numpy() for name, one in outputs.items()}
    for name, array in arrays.items():
        if not np.isfinite(array.astype("float64")).all():
            raise ValueError(
                f"The model's {name} is NaN or infinite on the sample inputs, so nothing can be "
                "compared. Pass samples= that give finite outputs, or mend the weights."
            )
    return arrays


def _coarsest_dtype(model: keras.Model) -> str:
    dtypes = {layer.compute_dtype for layer in layer_paths(model).values()} | {model.compute_dtype}
    return max(dtypes & TOLERANCES.keys(), key=TOLERANCES.__getitem__, default="float32")


def _specification(model: keras.Model, inputs: Any) -> Any:
    """The signature's inputs: named, with a free batch size, structured as the model's."""
    tensors = declared_inputs(model) if is_open(model) else inputs
    numbers = iter(range(len(tf.nest.flatten(tensors))))
    several = len(tf.nest.flatten(tensors)) > 1

    def specify(tensor: Any) -> tf.TensorSpec:
        number, name = next(numbers), getattr(tensor, "name", None)
        if name is None or name.startswith("keras_tensor"):  # Keras' counter, another in each run
            name = f"inputs_{number}" if several else "inputs"
        name = re.sub(r"\W", "_", name)  # as TensorFlow does
        return tf.TensorSpec((None, *tensor.shape[1:]), tensor.dtype, name=name)

    return tf.nest.map_structure(specify, tensors)


def _write(model: keras.Model, path: Path, specification: Any) -> None:
    def serve(inputs: Any) -> Any:
        return model(inputs, training=False)

    archive = keras.export.ExportArchive()
    archive.track(model)
    archive.add_endpoint("serve", serve, input_signature=[specification])
    with contextlib.redirect_stdout(io.StringIO()):  # Keras would print the staging path
        archive.write_out(str(path))


def _serve(signature: Any, names: list[str], inputs: Any) -> Outputs:
    tensors = map(tf.constant, tf.nest.flatten(inputs))
    outputs = signature(**dict(zip(names, tensors, strict=True)))
    return {name: tensor.numpy() for name, tensor in outputs.items()}


def _difference(served: Outputs, expected: Outputs, atol: float, rtol: float) -> tuple[float, float]:
    """The largest absolute and relative difference; raises `ExportError` above the tolerance."""
    absolute = relative = 0.0
    for name, array in expected.items():
        want, got = array.astype("float64"), served[name].astype("float64")
        if want.size == 0:
            continue
        difference, size = float(np.abs(got - want).max()), float(np.abs(want).max())
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


def _described(tensors: dict[str, tf.TensorSpec]) -> Specification:
    return {name: (tuple(one.shape), one.dtype.name) for name, one in sorted(tensors.items())}
