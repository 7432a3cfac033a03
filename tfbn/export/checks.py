"""Whether outputs can be compared, and whether they are close enough."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import keras
import numpy as np

from ..compare import NamedArrays, difference, largest_difference, max_abs
from ..messages import join_some
from ..population.observe import warn_if_far
from .formats.format import Format
from .report import ExportError
from .servable import Batch, Servable, check_finite, from_keras, in_place_of
from .tolerance import OF_ANOTHER_PRECISION


def check_repeatable(servable: Servable, rtol: float) -> None:
    """Refuse a model whose outputs are random.

    Raises:
        ValueError: a second run on the same inputs gives others.
    """
    inputs, outputs = servable.batches[0]
    # Every first run starts with the same seeds, so that only a second one can differ.
    check_same(servable.run(inputs, times=2), outputs, rtol, servable.random_layers)


def check_same(
    again: NamedArrays, outputs: NamedArrays, rtol: float, drawing: Sequence[str] = ()
) -> None:
    """Refuse outputs that are others in a second run.

    Args:
        drawing: layers that draw random numbers.
    """
    name, relative = largest_difference(again, outputs)
    if relative > rtol:
        by = f" The layers {join_some(drawing)} draw random numbers." if drawing else ""
        raise ValueError(
            f"The model's {name} is random: two runs on the same samples differ by {relative:.2g} "
            f"relative, and nothing can be compared.{by} Take a model without that part, of the mean in "
            "place of a drawn sample, for instance."
        )


def check_reloaded(
    reloaded: Callable[[NamedArrays], NamedArrays],
    servable: Servable,
    atol: float,
    rtol: float,
    file_format: Format,
) -> tuple[float, float]:
    """Hold what was written and reloaded against the model, on all samples at once and on the first.

    Args:
        reloaded: a function of named arrays.

    Returns:
        The largest difference of any output, absolute and relative to the output's size.

    Raises:
        ExportError: it fails, has other shapes, or differs by more than `atol + rtol · max|output|`.
    """
    batches = [Batch(servable.by_name(batch.inputs), batch.outputs) for batch in servable.batches]
    try:
        return check_batches(reloaded, batches, atol, rtol, file_format)
    except ExportError as error:
        if not servable.free_steps:
            raise
        # Before Keras knows the length, its TimeDistributed is wrong in graphs.
        raise ExportError(
            f"TimeDistributed over a length that is not declared ({join_some(servable.free_steps)}) "
            "computes something else in a graph, with this Keras. Declare the length, "
            "keras.Input((7, ...)), or take the layer alone where it acts on the last axis. "
            f"{error}"
        ) from error


def check_batches(
    reloaded: Callable[[NamedArrays], NamedArrays],
    batches: Sequence[Batch],
    atol: float,
    rtol: float,
    file_format: Format,
) -> tuple[float, float]:
    """See `check_reloaded`; the inputs of the batches are named arrays, the first batch has the size."""
    sizes = {name: max_abs(array) for name, array in batches[0].outputs.items()}
    differences = [
        check_close(reloaded(batch.inputs), batch.outputs, sizes, atol, rtol, file_format)
        for batch in batches
    ]
    absolute, relative = np.max(differences, axis=0)
    return float(absolute), float(relative)


def check_close(
    found: NamedArrays,
    expected: NamedArrays,
    sizes: dict[str, float],
    atol: float,
    rtol: float,
    file_format: Format,
) -> tuple[float, float]:
    """The largest absolute difference, and that relative to `sizes`.

    Raises:
        ExportError: one is missing, is above the tolerance, or is no number and differs.
    """
    reloaded = f"The reloaded {file_format.name}"
    if missing := expected.keys() - found.keys():
        raise ExportError(f"{reloaded} has no {join_some(sorted(missing))}. Nothing was written.")
    absolute = relative = 0.0
    for name, wanted in expected.items():
        array, size = found[name], sizes[name]
        if array.shape != wanted.shape:
            raise ExportError(
                f"{reloaded}'s {name} has the shape {array.shape}, and the model's has "
                f"{wanted.shape}. Nothing was written. A layer may compute with the shapes that it was "
                "traced with; see that it takes any batch size."
            )
        apart = difference(array, wanted, size)
        if not apart.absolute <= atol + rtol * size:
            raise ExportError(
                f"{reloaded}'s {name} differs from the model's by {apart.absolute:.3g}, "
                f"with values up to {size:.3g}; allowed is atol + rtol * {size:.3g} with "
                f"atol={atol:g}, rtol={rtol:g}. Nothing was written. Try {file_format.remedy}."
            )
        absolute = max(absolute, apart.absolute)
        relative = max(relative, apart.relative if size else 0.0)
    return absolute, relative


class Compared(NamedTuple):
    """Two models whose outputs on the samples are the same but for rounding.

    Attributes:
        relative: the largest difference of any output, relative to its largest absolute value.
        samples: number of samples compared.
    """

    relative: float
    samples: int


def compare_models(
    model: keras.Model, folded: keras.Model, samples: Any = None, rounded: bool = False
) -> Compared:
    """Compare what a folded model computes with what the model does, on samples as `export` takes them.

    Of given samples that are far from the moving statistics it warns, as `tfbn.export` does.

    Args:
        rounded: whether the folded one has weights of another precision, which change much more.

    Raises:
        ValueError: as `tfbn.export`.
        ExportError: it computes something else.
    """
    expected = from_keras(model, samples, at_inference=True, any_batch_size=False)
    found = in_place_of(expected, folded)
    if not expected.is_stateful:
        check_repeatable(expected, found.rtol)
    inputs, outputs = expected.batches[0]
    if samples is not None:
        warn_if_far(model, inputs, stacklevel=2)
    batch = Batch(inputs, found.run(inputs))
    check_finite(batch)
    name, relative = largest_difference(batch.outputs, outputs)
    allowed = max(found.rtol, OF_ANOTHER_PRECISION) if rounded else found.rtol
    if not relative <= allowed:
        raise ExportError(
            f"The folded model's {name} differs from the model's by {relative:.2g} relative, allowed is "
            f"{allowed:.2g}. Nothing was written. Please report this with the model."
        )
    return Compared(relative, expected.sample_count)
