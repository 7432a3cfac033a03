"""ONNX: one file, written by tf2onnx, which Keras takes for it, too, and run by ONNX Runtime."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import onnxruntime
import tensorflow as tf
import tf2onnx

from ...compare import NamedArrays
from ..report import SpecsByName
from .converted import Converted
from .format import Reloaded
from .savedmodel import SIGNATURE

# What ONNX Runtime calls types otherwise than NumPy does.
DTYPES = {"float": "float32", "double": "float64", "string": "string"}


class ONNX(Converted):
    """Writes and reloads files of ONNX (see `Format`)."""

    name = "ONNX"
    telling = (r"No Op registered for \S+",)

    def convert(self, saved: Path, path: Path) -> None:
        loaded = tf.saved_model.load(str(saved))
        signature = loaded.signatures[SIGNATURE]
        specs = list(signature.structured_input_signature[1].values())

        @tf.function(input_signature=specs, autograph=False)
        def serve(*tensors: tf.Tensor) -> dict[str, tf.Tensor]:
            # Constants that layers have made outside are no inputs of the file.
            values = [_in_this_graph(captured) for captured in signature.captured_inputs]
            signature.set_external_captures(values)
            named = {spec.name: tensor for spec, tensor in zip(specs, tensors, strict=True)}
            return signature(**named)

        with _silent("tf2onnx"):  # It logs what ONNX Runtime says better.
            tf2onnx.convert.from_function(serve, input_signature=specs, output_path=str(path))

    def load(self, path: Path) -> Reloaded:
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3  # errors
        session = onnxruntime.InferenceSession(path.read_bytes(), options)
        inputs, outputs = _specs(session.get_inputs()), _specs(session.get_outputs())

        def run(arrays: NamedArrays) -> NamedArrays:
            return dict(zip(outputs, session.run(list(outputs), arrays), strict=True))

        return Reloaded(run, inputs, outputs)


def _in_this_graph(captured: tf.Tensor) -> tf.Tensor:
    """A constant as one of the graph that is being built; variables and tables as they are."""
    return captured if captured.dtype == tf.resource else tf.constant(captured.numpy())


def _specs(tensors: list[Any]) -> SpecsByName:
    """Of shapes whose free sizes have names, and types as `tensor(float)`."""
    return {
        tensor.name: (
            tuple(size if isinstance(size, int) else None for size in tensor.shape),
            DTYPES.get(kind := tensor.type[len("tensor(") : -1], kind),
        )
        for tensor in sorted(tensors, key=lambda tensor: tensor.name)
    }


@contextmanager
def _silent(name: str) -> Iterator[None]:
    logger = logging.getLogger(name)
    level = logger.level
    logger.setLevel(logging.CRITICAL + 1)
    try:
        yield
    finally:
        logger.setLevel(level)
