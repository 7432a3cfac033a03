"""What the model and the SavedModel answer, and how far the answers are apart."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import tensorflow as tf

from ..batch_norms import layer_paths
from ..data_format import explained
from ..messages import one_line
from . import signature
from .report import ExportError

# What rounding does to a deep network's outputs, relative to the largest of them, by the coarsest
# type that a layer computes in: its unit roundoff times 100 (float32) or about 20 (the short types).
TOLERANCES = {"float64": 1e-5, "float32": 1e-5, "float16": 1e-2, "bfloat16": 1e-1}

Outputs = dict[str, np.ndarray]


def run(model: keras.Model, inputs: Any) -> Outputs:
    """The outputs of the given model at inference, under the names that the signature gives them."""
    try:
        outputs = model(inputs, training=False)
    except Exception as error:
        if (lacking := explained(error)) is not None:
            raise RuntimeError(lacking) from error
        raise ValueError(
            f"The model {model.name!r} does not run on the sample inputs: {one_line(error)}\n"
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


def size(array: np.ndarray) -> float:
    """The largest absolute value; 0 of what is no number."""
    return float(np.abs(_wide(array)).max(initial=0.0)) if _is_number(array) else 0.0


def _wide(array: np.ndarray) -> np.ndarray:
    return array.astype("complex128" if array.dtype.kind == "c" else "float64")


def spread(outputs: Outputs) -> float | None:
    """How far apart the samples' outputs are, relative to their size, where they vary least.

    `None` if there is one sample only, or no output is a number.
    """
    numbers = (_wide(one) for one in outputs.values() if _is_number(one))
    several = (one for one in numbers if one.ndim and len(one) > 1)
    apart = (np.abs(one - one[:1]).max(initial=0.0) / (size(one) or 1.0) for one in several)
    return min(map(float, apart), default=None)


def serve(loaded: Any, names: list[str], inputs: Any) -> Outputs:
    """What a loaded signature answers to inputs whose names are given in order."""
    tensors = map(tf.constant, tf.nest.flatten(inputs))
    outputs = loaded(**dict(zip(names, tensors, strict=True)))
    return {name: tensor.numpy() for name, tensor in outputs.items()}


def difference(
    served: Outputs, expected: Outputs, sizes: dict[str, float], atol: float, rtol: float
) -> tuple[float, float]:
    """The largest absolute difference, and that relative to `sizes`.

    Raises:
        ExportError: one is above the tolerance, or an output that is no number differs.
    """
    absolute = relative = 0.0
    for name, want in expected.items():
        got, largest = served[name], sizes[name]
        if _is_number(want):
            apart = float(np.abs(_wide(got) - _wide(want)).max(initial=0.0))
        else:
            apart = float(not np.array_equal(got, want))
        if not apart <= atol + rtol * largest:
            raise ExportError(
                f"The reloaded SavedModel's {name} differs from the model's by {apart:.3g}, with values "
                f"up to {largest:.3g}; allowed is atol + rtol * {largest:.3g} with atol={atol:g}, "
                f"rtol={rtol:g}. Nothing was written. Try fold=False or freeze=False to see "
                "which of them does it, or allow more."
            )
        absolute = max(absolute, apart)
        relative = max(relative, apart / largest if largest else 0.0)
    return absolute, relative


def tolerance(model: keras.Model) -> float:
    """Difference allowed, relative to the outputs' size, unless told."""
    dtypes = {layer.compute_dtype for layer in layer_paths(model).values()} | {model.compute_dtype}
    known = [TOLERANCES[one] for one in dtypes & TOLERANCES.keys()]
    return max(known, default=TOLERANCES["float32"])
