"""Freeze, fold, write, reload, compare, swap: what `tfbn.export` does with what is no Keras model."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from ...compare import NamedArrays
from ...files.atomic import staged
from ...folding import FoldEntry, FoldReport
from ...messages import join_some, one_line
from .. import checks, freezing
from .. import samples as sampling
from ..formats.format import Format
from ..formats.savedmodel import SIGNATURE
from ..report import ExportReport
from ..servable import Batch, check_finite, output_variation
from ..signature import specs_by_name
from ..tolerance import allowed, sensitivity_of
from .graph import Frozen, check_operations, frozen
from .signatures import Signatures, inputs_of
from .writing import write


def export_graph(
    signatures: Signatures,
    file_format: Format,
    target: Path,
    fold: bool = True,
    overwrite: bool = False,
    atol: float = 0.0,
    rtol: float | None = None,
    samples: Any = None,
) -> ExportReport:
    """Write all signatures, folded, and compare each; see `tfbn.export`."""
    first = _first(signatures, file_format)
    if _by_signature(samples) and (unknown := samples.keys() - signatures.functions.keys()):
        raise ValueError(
            f"samples= has {join_some(sorted(map(str, unknown)))}, and the signatures of "
            f"{signatures.name} are {join_some(sorted(signatures.functions))}."
        )
    for name, function in signatures.functions.items():
        check_operations(function, f"The signature {name!r}")
    examined = {
        name: _Examined(name, function, _of_signature(samples, name, first), signatures.name)
        for name, function in signatures.functions.items()
    }
    functions = {
        name: frozen(function, fold, f"the signature {name!r}", signatures.holder)
        for name, function in signatures.functions.items()
    }
    reason = why_variables(functions, file_format, signatures.name)
    with staged(target, overwrite, file_format.beside(target)) as staging_path:
        file_format.write_from(
            lambda path: write(signatures, functions, bool(reason), path), staging_path
        )
        found = {
            name: one.compared(file_format, staging_path, atol, rtol)
            for name, one in examined.items()
            if file_format.holds(name)
        }
        file_format.check_target(target, overwrite)  # Again: something may have come there meanwhile.
    return ExportReport(
        format=file_format.name,
        path=target,
        fold=_merged(functions.values()) if fold else None,
        difference=max(absolute for absolute, _ in found.values()),
        relative_difference=max(relative for _, relative in found.values()),
        sensitivity=examined[first].sensitivity,
        in_training=(),
        samples=examined[first].count,
        spread=output_variation(examined[first].batches[0].outputs),
        reason_for_variables=reason,
        inputs=specs_by_name(examined[first].specs),
        outputs=specs_by_name(signatures.functions[first].structured_outputs),
    )


class _Examined:
    """One signature, and what it computes on samples.

    Attributes:
        batches: all samples and, where the number of samples is free, the first one alone.
    """

    def __init__(self, name: str, function: Any, samples: Any, what: str) -> None:
        self.name, self.function, self.what = name, function, what
        self.specs = inputs_of(function)
        arrays = sampling.draw(self.specs) if samples is None else self._given(samples)
        parts = [arrays]
        free = all(spec.shape.rank and spec.shape[0] is None for spec in self.specs.values())
        # The parts of a ragged input, its values and its rows, have lengths of their own.
        if free and len({len(array) for array in arrays.values()}) == 1:
            parts.append(sampling.first(arrays))
        self.batches = []
        for part in parts:
            self.batches.append(Batch(part, self.run(part)))
            check_finite(self.batches[-1])
        outputs = self.batches[0].outputs
        self.sensitivity = sensitivity_of(self.run, arrays, outputs)
        self.rtol = allowed({array.dtype.name for array in outputs.values()}, self.sensitivity)
        checks.check_same(self.run(arrays), outputs, self.rtol, ())
        self.count = max((len(array) for array in arrays.values() if array.ndim), default=1)

    def run(self, arrays: NamedArrays) -> NamedArrays:
        try:
            outputs = self.function(**{name: tf.constant(array) for name, array in arrays.items()})
        except Exception as error:  # any operation of the graph may fail
            raise ValueError(
                f"The signature {self.name!r} of {self.what} does not run on the sample inputs. Pass "
                f"samples=, a small batch of inputs that it takes. TensorFlow says: {one_line(error)}"
            ) from error
        return {name: tensor.numpy() for name, tensor in outputs.items()}

    def _given(self, samples: Any) -> NamedArrays:
        if not isinstance(samples, Mapping) and len(self.specs) == 1:
            samples = {next(iter(self.specs)): samples}
        if not isinstance(samples, Mapping) or samples.keys() != self.specs.keys():
            raise ValueError(
                f"The signature {self.name!r} takes {join_some(sorted(self.specs))}, and samples= is "
                "not a dict of arrays by these names."
            )
        return {name: self._array(name, samples[name]) for name in self.specs}

    def _array(self, name: str, sample: Any) -> np.ndarray:
        spec = self.specs[name]
        array = np.asarray(sample)
        if spec.dtype != tf.string:
            array = array.astype(spec.dtype.as_numpy_dtype)
        if not spec.shape.is_compatible_with(array.shape):  # of which a kernel may kill the process
            raise ValueError(
                f"The signature {self.name!r} takes {name} in the shape {spec.shape}, and samples= has "
                f"it in the shape {array.shape}."
            )
        return array

    def compared(
        self, file_format: Format, path: Path, atol: float, rtol: float | None
    ) -> tuple[float, float]:
        """How far what was written is from it, absolutely and relative to the outputs' size."""
        reloaded = file_format.reload(path, self.name)
        tolerance = self.rtol if rtol is None else rtol
        return checks.check_batches(reloaded.run, self.batches, atol, tolerance, file_format)


def _first(signatures: Signatures, file_format: Format) -> str:
    """The signature that reports are about."""
    names = sorted(signatures.functions, key=lambda name: name != SIGNATURE)
    if not file_format.holds(names[0]):
        raise ValueError(
            f"A file of {file_format.name} is made of the signature {SIGNATURE!r}, and "
            f"{signatures.name} has {join_some(names)}. Export a SavedModel."
        )
    return names[0]


def _of_signature(samples: Any, name: str, first: str) -> Any:
    """The samples for a signature: those under its name, or all of them for the first one."""
    if _by_signature(samples):
        return samples.get(name)
    return samples if name == first else None


def _by_signature(samples: Any) -> bool:
    return isinstance(samples, Mapping) and any(isinstance(it, Mapping) for it in samples.values())


def why_variables(functions: Mapping[str, Frozen], file_format: Format, what: str) -> str:
    """Why the weights of functions are variables in a file; `""` where they are constants."""
    size = max(function.size for function in functions.values())
    return freezing.reason_for(size, file_format.freeze, what)


def _merged(functions: Iterable[Frozen]) -> FoldReport:
    """The reports of functions that may have batch norms in common, by their names."""
    entries: dict[str, FoldEntry] = {}
    for function in functions:
        assert function.fold is not None
        for entry in function.fold.entries:
            known = entries.get(entry.path)
            entries[entry.path] = entry if known is None or known.reason is None else known
    return replace(FoldReport(()), entries=tuple(entries.values()))
