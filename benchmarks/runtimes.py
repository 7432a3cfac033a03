"""Files that `tfbn.export` writes, loaded as users of each runtime load them, where it is installed."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

import kinds
import numpy as np
from measure import Run

Load = Callable[[Path, np.ndarray, int], Run]


class Runtime(NamedTuple):
    kind: str  # of its rows
    file: str  # what `tfbn.export` is to write
    needs: tuple[str, ...]  # packages that write and load it
    load: Load


def threads() -> int:
    """As many as TensorFlow takes by itself: the cores that this process may use."""
    allowed = getattr(os, "sched_getaffinity", None)
    return len(allowed(0)) if allowed else os.cpu_count() or 1


def onnx_runtime(path: Path, x: np.ndarray, threads: int) -> Run:
    import onnxruntime  # noqa: PLC0415

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # errors
    options.intra_op_num_threads = threads  # Left alone, it counts no hyper-threads.
    # Its threads would go on waiting busily while the peer runs.
    options.add_session_config_entry("session.force_spinning_stop", "1")
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    (given,) = session.get_inputs()
    return lambda: session.run(None, {given.name: x})


def openvino(path: Path, x: np.ndarray, threads: int) -> Run:
    from openvino import Core  # noqa: PLC0415

    # In float32, as the peer: by itself it computes in bfloat16 where the processor can.
    settings = {"INFERENCE_PRECISION_HINT": "f32"}
    settings |= {"INFERENCE_NUM_THREADS": threads, "ENABLE_HYPER_THREADING": True}
    request = Core().compile_model(str(path), "CPU", settings).create_infer_request()
    return lambda: request.infer([x])[0]


def litert(path: Path, x: np.ndarray, threads: int) -> Run:
    from ai_edge_litert.interpreter import Interpreter  # noqa: PLC0415

    runner = Interpreter(str(path), num_threads=threads).get_signature_runner()
    (given,) = runner.get_input_details()
    return lambda: runner(**{given: x})


RUNTIMES = (
    Runtime(kinds.ONNX_RUNTIME, "m.onnx", ("onnxruntime", "tf2onnx"), onnx_runtime),
    Runtime(kinds.OPENVINO, "m.xml", ("openvino",), openvino),
    Runtime(kinds.LITERT, "m.tflite", ("ai_edge_litert",), litert),
)


def installed() -> Iterator[Runtime]:
    return (runtime for runtime in RUNTIMES if all(map(find_spec, runtime.needs)))
