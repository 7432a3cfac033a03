"""LiteRT, once TensorFlow Lite: one file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import tensorflow as tf
from ai_edge_litert.interpreter import Interpreter

from ...compare import NamedArrays
from ..report import SpecsByName
from .converted import Converted
from .format import Reloaded
from .savedmodel import SIGNATURE


class LiteRT(Converted):
    """Writes and reloads files of LiteRT (see `Format`)."""

    name = "LiteRT"
    telling = r"TF Select ops: .*", r"'tf\.\w+' op .*"

    def convert(self, saved: Path, path: Path) -> None:
        path.write_bytes(tf.lite.TFLiteConverter.from_saved_model(str(saved)).convert())

    def load(self, path: Path) -> Reloaded:
        interpreter = Interpreter(model_content=path.read_bytes())
        runner = interpreter.get_signature_runner(SIGNATURE)

        def run(arrays: NamedArrays) -> NamedArrays:
            return dict(runner(**arrays))

        return Reloaded(run, _specs(runner.get_input_details()), _specs(runner.get_output_details()))


def _specs(details: dict[str, dict]) -> SpecsByName:
    return {
        name: (
            tuple(None if size < 0 else int(size) for size in detail["shape_signature"]),
            np.dtype(detail["dtype"]).name,
        )
        for name, detail in sorted(details.items())
    }
