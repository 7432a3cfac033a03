"""OpenVINO's own format: a graph, `m.xml`, and beside it the weights, `m.bin`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import openvino

from ...compare import NamedArrays
from ...messages import one_line
from ..report import SpecsByName
from .converted import Converted
from .format import Reloaded


class OpenVINO(Converted):
    """Writes and reloads files of OpenVINO (see `Format`)."""

    name = "OpenVINO"
    telling = r"No conversion rule found for .*", r"Conversion is failed for: .*"
    limit = None

    def beside(self, target: Path) -> tuple[str, ...]:
        return (target.with_suffix(".bin").name,)

    def convert(self, saved: Path, path: Path) -> None:
        # Not openvino.convert_model, which tells its makers that it was called.
        model = openvino.Core().read_model(str(saved))
        try:
            openvino.save_model(model, str(path), compress_to_fp16=False)
        except RuntimeError as error:
            raise OSError(one_line(error)) from error

    def load(self, path: Path) -> Reloaded:
        core = openvino.Core()
        core.set_property({"ENABLE_MMAP": False})  # Windows moves no file that is mapped.
        # It would compute in bfloat16 where the processor can: nothing to compare with.
        model = core.compile_model(str(path), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})

        def run(arrays: NamedArrays) -> NamedArrays:
            found = model(arrays)
            return {name: found[port] for port in model.outputs for name in port.names}

        return Reloaded(run, _specs(model.inputs), _specs(model.outputs))


def _specs(ports: list[Any]) -> SpecsByName:
    """A tensor that is two outputs at once has two names."""
    found = {
        name: (
            tuple(None if size.is_dynamic else size.get_length() for size in port.partial_shape),
            port.element_type.to_dtype().name,
        )
        for port in ports
        for name in port.names
    }
    return dict(sorted(found.items()))
