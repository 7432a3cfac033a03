"""What the model and the SavedModel answer, and how far the answers are apart."""

from __future__ import annotations

from typing import Any, NamedTuple

import keras
import numpy as np
import tensorflow as tf

from ..batch_norms import layer_paths
from ..data_format import explained
from ..messages import join_some, one_line
from ..population.observe import warn_if_far
from ..population.untouched import untouched
from . import samples as sampling
from . import signature
from .report import ExportError

# What rounding does to a deep network's outputs, relative to the largest of them, by the coarsest
# type that a layer computes in: its unit roundoff times 100 (float32) or about 20 (the short types).
TOLERANCES = {"float64": 1e-5, "float32": 1e-5, "float16": 1e-2, "bfloat16": 1e-1}

# How many times as far as by a change of the inputs in their last digit the outputs may move by
# rounding, and the most that is allowed so, relative to their size.
BEYOND_SENSITIVITY = 10.0
MOST_ALLOWED = 1e-2

# What rounding all weights to another type may do to a deep model's outputs, relative to their size.
OF_ANOTHER_PRECISION = 0.1

Outputs = dict[str, np.ndarray]


def run(model: keras.Model, inputs: Any, training: bool | None = False) -> Outputs:
    """The outputs of the given model at inference, under the names that the signature gives them.

    Args:
        training: what the model is called with. `None` lets layers run as in training that it calls so.

    Raises:
        ValueError: it does not run, or gives values that are not finite.
    """
    arrays = _outputs(model, inputs, training)
    for name, array in arrays.items():
        if not _is_finite(array):
            given = [one for one in map(np.asarray, tf.nest.flatten(inputs)) if one.dtype.kind in "fc"]
            if all(np.isfinite(one).all() for one in given):
                what = "Pass samples= that give finite outputs, or mend the weights"
            else:
                what = "The samples hold NaN or infinity themselves: pass others"
            raise ValueError(
                f"The model's {name} is NaN or infinite on the sample inputs, so nothing can be "
                f"compared. {what}."
            )
    return arrays


def _outputs(model: keras.Model, inputs: Any, training: bool | None) -> Outputs:
    try:
        with untouched(model):
            outputs = model(inputs, training=training)
    except Exception as error:
        if (lacking := explained(error)) is not None:
            raise RuntimeError(lacking) from error
        raise ValueError(
            f"The model {model.name!r} does not run on the sample inputs. Pass samples=, a small batch "
            "of inputs that it takes; it must run on any batch size, one included. It says: "
            f"{one_line(error)}"
        ) from error
    return _arrays(outputs)


def _arrays(outputs: Any) -> Outputs:
    return {name: tf.convert_to_tensor(one).numpy() for name, one in signature.flat(outputs).items()}


def _is_finite(array: np.ndarray) -> bool:
    return not _is_number(array) or bool(np.isfinite(_wide(array)).all())


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


def sensitivity(
    model: keras.Model, inputs: Any, outputs: Outputs, training: bool | None = False
) -> float | None:
    """How far the outputs move, relative to their size, when the inputs move by their last digit.

    What rounding does inside the model moves them alike. The largest of three draws, but for those that
    leave the domain of a function; `None` where no input is a fraction.
    """
    if not any(map(_is_fraction, tf.nest.flatten(inputs))):
        return None
    rng = np.random.default_rng(0)

    def moved(array: np.ndarray) -> np.ndarray:
        if not _is_fraction(array):
            return array
        towards = np.where(rng.random(array.shape) < 0.5, -np.inf, np.inf).astype(array.dtype)
        return np.nextafter(array, towards)

    runs = [_outputs(model, tf.nest.map_structure(moved, inputs), training) for _ in range(3)]
    finite = [other for other in runs if all(map(_is_finite, other.values()))]
    return max((_apart(outputs, other)[1] for other in finite), default=None)


def _is_fraction(array: np.ndarray) -> bool:
    """Whether an input holds fractions; whole numbers may be indices, which must not move."""
    return array.dtype.kind == "f" and bool((array != np.round(array)).any())


def _apart(outputs: Outputs, others: Outputs) -> tuple[str, float]:
    """The output in which two runs differ most, and by how much, relative to its size."""
    differences = {
        name: float(np.abs(_wide(one) - _wide(others[name])).max(initial=0.0)) / (size(one) or 1.0)
        for name, one in outputs.items()
        if _is_number(one)
    }
    name = max(differences, key=lambda name: differences[name], default="")
    return name, differences.get(name, 0.0)


def check_repeatable(
    model: keras.Model, inputs: Any, outputs: Outputs, allowed: float, training: bool | None = False
) -> None:
    """Refuse a model whose outputs are random.

    Raises:
        ValueError: a second run on the same inputs gives others.
    """
    with untouched(model):  # which would start each run with the same seeds
        model(inputs, training=training)
        again = _arrays(model(inputs, training=training))
    name, apart = _apart(outputs, again)
    if apart > allowed:
        drawing = [
            path
            for path, layer in layer_paths(model).items()
            if any(isinstance(one, keras.random.SeedGenerator) for one in vars(layer).values())
        ]
        by = f" The layers {join_some(drawing)} draw random numbers." if drawing else ""
        raise ValueError(
            f"The model's {name} is random: two runs on the same samples differ by {apart:.2g} "
            f"relative, and nothing can be compared.{by} Take a model without that part, of the mean in "
            "place of a drawn sample, for instance."
        )


def serve(loaded: Any, names: list[str], inputs: Any) -> Outputs:
    """What a loaded signature answers to inputs whose names are given in order.

    Raises:
        ExportError: it does not.
    """
    tensors = map(tf.constant, tf.nest.flatten(inputs))
    try:
        outputs = loaded(**dict(zip(names, tensors, strict=True)))
    except Exception as error:  # any operation of the graph may fail
        raise ExportError(
            "The reloaded SavedModel does not run on inputs on which the model does. Nothing was "
            "written. A layer may compute with the shapes that it was traced with: see that it takes "
            f"any batch size. TensorFlow says: {one_line(error)}"
        ) from error
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
        if got.shape != want.shape:
            raise ExportError(
                f"The reloaded SavedModel's {name} has the shape {got.shape}, and the model's has "
                f"{want.shape}. Nothing was written. A layer may compute with the shapes that it was "
                "traced with; see that it takes any batch size."
            )
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


class Compared(NamedTuple):
    """Two models that compute the same.

    Attributes:
        relative: the largest difference of any output, relative to its largest absolute value.
        samples: number of samples compared.
    """

    relative: float
    samples: int


def compare(
    model: keras.Model, other: keras.Model, samples: Any = None, rounded: bool = False
) -> Compared:
    """Check that a model computes what another does, on samples as `tfbn.export` takes them.

    Of given samples that are far from the moving statistics it warns, as `tfbn.export` does.

    Args:
        rounded: whether the other one has weights of another precision, which change much more.

    Raises:
        ValueError: as `tfbn.export`.
        ExportError: it does not.
    """
    inputs = sampling.draw(model) if samples is None else sampling.check(model, samples)
    expected = run(model, inputs)
    if samples is not None:
        warn_if_far(model, inputs)
    allowed = tolerance(other, sensitivity(model, inputs, expected))
    layers = layer_paths(model).values()
    if not any(getattr(layer, "stateful", False) for layer in layers):  # whose second answer is another
        check_repeatable(model, inputs, expected, allowed)
    allowed = max(allowed, OF_ANOTHER_PRECISION) if rounded else allowed
    name, apart = _apart(expected, run(other, inputs))
    if not apart <= allowed:
        raise ExportError(
            f"The folded model's {name} differs from the model's by {apart:.2g} relative, allowed is "
            f"{allowed:.2g}. Nothing was written. Please report this with the model."
        )
    return Compared(apart, len(tf.nest.flatten(inputs)[0]))


def tolerance(model: keras.Model, sensitivity: float | None) -> float:
    """Difference allowed, relative to the outputs' size, unless told."""
    dtypes = {layer.compute_dtype for layer in layer_paths(model).values()} | {model.compute_dtype}
    known = [TOLERANCES[one] for one in dtypes & TOLERANCES.keys()]
    usual = max(known, default=TOLERANCES["float32"])
    return max(usual, min(BEYOND_SENSITIVITY * (sensitivity or 0.0), MOST_ALLOWED))
