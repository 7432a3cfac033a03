"""Serve an exported SavedModel through TensorFlow's C API: no TensorFlow, Keras or tfbn in Python.

python examples/serve_c_api.py SAVED_MODEL INPUTS.npz OUTPUTS.npz

The calls are those that C, Go, Java or Rust would make. Here ctypes makes them, into the library that
the tensorflow wheel ships; NumPy carries the arrays.
"""

import ctypes
import importlib.util
import io
import sys
from collections.abc import Iterator
from ctypes import c_char_p, c_int, c_int64, c_size_t, c_void_p
from pathlib import Path
from typing import Any

import numpy as np

# TF_DataType of c/tf_datatype.h, without strings, whose memory layout differs, and without bfloat16,
# which NumPy does not have.
DTYPES = {1: "float32", 2: "float64", 3: "int32", 4: "uint8", 5: "int16", 6: "int8", 8: "complex64"}
DTYPES |= {9: "int64", 10: "bool", 17: "uint16", 18: "complex128", 19: "float16", 22: "uint32"}
CODES = {name: code for code, name in DTYPES.items()}
POINTERS = ["TF_NewStatus", "TF_NewSessionOptions", "TF_NewGraph", "TF_NewBuffer", "TF_AllocateTensor"]
POINTERS += ["TF_LoadSessionFromSavedModel", "TF_GraphOperationByName", "TF_TensorData"]


class Buffer(ctypes.Structure):
    """TF_Buffer."""

    _fields_ = [("data", c_void_p), ("length", c_size_t), ("deallocator", c_void_p)]


class Output(ctypes.Structure):
    """TF_Output: which output of which operation."""

    _fields_ = [("operation", c_void_p), ("index", c_int)]


def load_library() -> ctypes.CDLL:
    """The C API of the installed tensorflow wheel, found without importing it."""
    spec = importlib.util.find_spec("tensorflow")
    if spec is None:
        raise RuntimeError("The C API comes from the tensorflow wheel: pip install tensorflow")
    library = ctypes.CDLL(str(Path(spec.origin).with_name("libtensorflow_cc.so.2")))
    for name in POINTERS:
        getattr(library, name).restype = c_void_p
    library.TF_AllocateTensor.argtypes = [c_int, c_void_p, c_int, c_size_t]
    library.TF_Message.restype = c_char_p
    library.TF_Dim.restype = c_int64
    library.TF_TensorByteSize.restype = c_size_t
    return library


def fields(message: bytes) -> Iterator[tuple[int, Any]]:
    """Number and value of each field of a serialized protocol buffer; messages stay serialized."""
    stream = io.BytesIO(message)

    def varint() -> int:
        (byte,) = stream.read(1)
        return byte if byte < 128 else byte - 128 + 128 * varint()

    while stream.tell() < len(message):
        number, wire_type = divmod(varint(), 8)
        if wire_type == 0:
            yield number, varint()
        else:
            yield number, stream.read(varint() if wire_type == 2 else {1: 8, 5: 4}[wire_type])


def signature_of(meta_graph: bytes, name: str) -> list[dict[str, str]]:
    """The tensors ("operation:index") of a signature's inputs and of its outputs, by name.

    Field numbers are those of protobuf/meta_graph.proto: MetaGraphDef.signature_def = 5, a map to
    SignatureDef with inputs = 1 and outputs = 2, maps to TensorInfo with name = 1. In the entries of
    maps, key = 1 and value = 2.
    """

    def entries(message: bytes, field: int) -> dict[str, bytes]:
        maps = [dict(fields(value)) for number, value in fields(message) if number == field]
        return {entry[1].decode(): entry[2] for entry in maps}

    signature = entries(meta_graph, 5)[name]
    infos = [entries(signature, field) for field in (1, 2)]
    return [{key: dict(fields(info))[1].decode() for key, info in tensors.items()} for tensors in infos]


class SavedModel:
    """A SavedModel's signature `serving_default`, called with arrays by name."""

    def __init__(self, path: str) -> None:
        self.library = tf = load_library()
        self.status, self.graph = c_void_p(tf.TF_NewStatus()), c_void_p(tf.TF_NewGraph())
        options, buffer = c_void_p(tf.TF_NewSessionOptions()), c_void_p(tf.TF_NewBuffer())
        where = path.encode(), (c_char_p * 1)(b"serve"), 1, self.graph
        session = tf.TF_LoadSessionFromSavedModel(options, None, *where, buffer, self.status)
        self.check()
        self.session = c_void_p(session)
        meta_graph = Buffer.from_address(buffer.value)
        serialized = ctypes.string_at(meta_graph.data, meta_graph.length)
        self.inputs, self.outputs = signature_of(serialized, "serving_default")
        tf.TF_DeleteBuffer(buffer)
        tf.TF_DeleteSessionOptions(options)

    def __call__(self, **arrays: np.ndarray) -> dict[str, np.ndarray]:
        """The signature's outputs by name."""
        if arrays.keys() != self.inputs.keys():
            raise ValueError(f"The signature takes {sorted(self.inputs)}, received {sorted(arrays)}.")
        inputs = (Output * len(arrays))(*(self.place(self.inputs[name]) for name in arrays))
        outputs = (Output * len(self.outputs))(*map(self.place, self.outputs.values()))
        values = (c_void_p * len(arrays))(*map(self.tensor_of, arrays.values()))
        results = (c_void_p * len(outputs))()
        lists = inputs, values, len(values), outputs, results, len(results)
        try:
            self.library.TF_SessionRun(self.session, None, *lists, None, 0, None, self.status)
            self.check()
            return dict(zip(self.outputs, map(self.array_of, results), strict=True))
        finally:
            for tensor in filter(None, (*values, *results)):
                self.library.TF_DeleteTensor(c_void_p(tensor))

    def check(self) -> None:
        """Raise an error if the last call failed."""
        if self.library.TF_GetCode(self.status) != 0:
            raise RuntimeError(self.library.TF_Message(self.status).decode())

    def place(self, tensor: str) -> Output:
        """The place of a tensor "operation:index" in the graph."""
        operation, index = tensor.rsplit(":", 1)
        return Output(self.library.TF_GraphOperationByName(self.graph, operation.encode()), int(index))

    def tensor_of(self, array: np.ndarray) -> int:
        """A new TF_Tensor with the array's values."""
        array = np.asarray(array, order="C")
        if array.dtype.name not in CODES:
            raise ValueError(f"Arrays of {', '.join(CODES)} are taken, received {array.dtype.name}.")
        shape = (c_int64 * array.ndim)(*array.shape)
        tensor = self.library.TF_AllocateTensor(CODES[array.dtype.name], shape, array.ndim, array.nbytes)
        ctypes.memmove(self.library.TF_TensorData(c_void_p(tensor)), array.ctypes.data, array.nbytes)
        return tensor

    def array_of(self, tensor: int) -> np.ndarray:
        """A TF_Tensor's values."""
        tf, tensor = self.library, c_void_p(tensor)
        shape = [tf.TF_Dim(tensor, axis) for axis in range(tf.TF_NumDims(tensor))]
        data = ctypes.string_at(tf.TF_TensorData(tensor), tf.TF_TensorByteSize(tensor))
        return np.frombuffer(data, DTYPES[tf.TF_TensorType(tensor)]).reshape(shape)


if __name__ == "__main__":
    if len(sys.argv) != 4:
        sys.exit("usage: python examples/serve_c_api.py SAVED_MODEL INPUTS.npz OUTPUTS.npz")
    with np.load(sys.argv[2]) as inputs:
        np.savez(sys.argv[3], **SavedModel(sys.argv[1])(**inputs))
