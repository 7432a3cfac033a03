"""What was exported, served by others: TensorFlow's C API, its command line, other runtimes."""

import json
import re
import subprocess
import sys
from pathlib import Path

import ai_edge_litert.interpreter as litert
import keras
import numpy as np
import onnxruntime
import openvino
import pytest
import tensorflow as tf

import reference
import tfbn
from networks import chain, randomize, relative_difference
from paths import ROOT

L = keras.layers
EXAMPLE = ROOT / "examples" / "serve_c_api.py"


@pytest.fixture(scope="module")
def model():
    keras.config.set_dtype_policy("float32")
    layers = L.Conv2D(4, 3), tfbn.BatchNorm(), L.ReLU(), L.DepthwiseConv2D(3), tfbn.BatchNorm()
    return chain((8, 8, 3), *layers, L.Flatten(), L.Dense(2))


@pytest.fixture(scope="module")
def folded(model):
    folded, report = tfbn.fold(model)
    assert len(report.folded) == 2
    folded(np.zeros((1, 8, 8, 3), "float32"))  # Keras writes ONNX only of models that were called once.
    return folded


SERVE = """
import json, runpy, sys
sys.argv = sys.argv[1:]
SavedModel = runpy.run_path(sys.argv[0])["SavedModel"]
import numpy as np
served = SavedModel(sys.argv[1])
for inputs in sys.argv[2:]:
    with np.load(inputs) as arrays:
        np.savez(inputs + ".outputs.npz", **served(**arrays))
print(json.dumps(sorted({name.split(".")[0] for name in sys.modules})))
"""


def serve(path, *batches):
    """What the example answers to each batch, in a process of its own; and what that imported."""
    files = [path.with_name(f"{number}.npz") for number in range(len(batches))]
    for file, batch in zip(files, batches, strict=True):
        np.savez(file, **batch)
    command = [sys.executable, "-c", SERVE, EXAMPLE, path, *files]
    done = subprocess.run(command, check=True, capture_output=True, text=True, cwd=path.parent)
    return [dict(np.load(f"{file}.outputs.npz")) for file in files], json.loads(done.stdout)


def test_the_c_api_serves_without_tensorflow_in_python(model, tmp_path):
    tfbn.export(model, tmp_path / "m")
    x = [reference.data((size, 8, 8, 3), seed=size) for size in (1, 3, 64)]
    outputs, imported = serve(tmp_path / "m", *({"x": batch} for batch in x))
    assert not {"tensorflow", "keras", "tfbn"} & set(imported)
    assert "numpy" in imported
    for batch, got in zip(x, outputs, strict=True):
        assert got.keys() == {"output_0"}
        assert got["output_0"].shape == (len(batch), 2)
        assert relative_difference(got["output_0"], model(batch)) < 1e-5  # what export allows


def test_the_c_api_serves_several_inputs_and_outputs_of_other_types(tmp_path):
    a, b, c = (
        keras.Input((4,), name="a"),
        keras.Input((3,), dtype="int32", name="b"),
        keras.Input((2,), dtype="bool", name="c"),
    )
    outputs = {
        "half": L.Dense(2, dtype="float16")(a),
        "row": L.Embedding(2, 3)(b),
        "not": keras.ops.logical_not(c),
    }
    model = randomize(keras.Model([a, b, c], outputs))
    tfbn.export(model, tmp_path / "m")
    data = [reference.data((3, 4)), np.array([[0, 1, 1]] * 3, "int32"), np.array([[True, False]] * 3)]
    # In another order than the signature's, one not contiguous: what is fed where goes by name.
    fed = {"c": data[2], "b": np.asfortranarray(data[1]), "a": data[0]}
    (got,), _ = serve(tmp_path / "m", fed)
    want = model(data)
    assert {name: (array.dtype.name, array.shape) for name, array in got.items()} == {
        "half": ("float16", (3, 2)),
        "row": ("float32", (3, 3, 3)),
        "not": ("bool", (3, 2)),
    }
    for name, array in got.items():
        assert relative_difference(array, want[name]) < (1e-2 if name == "half" else 1e-5)


def test_the_example_names_what_it_does_not_take(model, tmp_path):
    tfbn.export(model, tmp_path / "m")
    x = reference.data((2, 8, 8, 3))
    for inputs, path, message in (
        ({"y": x}, "m", "The signature takes ['x'], received ['y']."),
        ({"x": x.astype("float64")}, "m", "float"),
        ({"x": x}, "missing", "missing"),
    ):
        np.savez(tmp_path / "x.npz", **inputs)
        command = [sys.executable, EXAMPLE, tmp_path / path, tmp_path / "x.npz", tmp_path / "y.npz"]
        done = subprocess.run(command, check=False, capture_output=True, text=True)
        assert done.returncode == 1
        assert message in done.stderr.splitlines()[-1]
    assert not (tmp_path / "y.npz").exists()


def test_saved_model_cli_lists_the_signature(model, tmp_path):
    tfbn.export(model, tmp_path / "m")
    command = [Path(sys.executable).with_name("saved_model_cli"), "show", "--dir", tmp_path / "m"]
    command += ["--tag_set", "serve", "--signature_def", "serving_default"]
    shown = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    for text in (
        "inputs['x']",
        "(-1, 8, 8, 3)",
        "outputs['output_0']",
        "(-1, 2)",
        "DT_FLOAT",
        "serving/predict",
    ):
        assert text in shown


def run_litert(path, x):
    interpreter = litert.Interpreter(path)
    interpreter.resize_tensor_input(interpreter.get_input_details()[0]["index"], x.shape)
    return interpreter.get_signature_runner("serving_default")(x=x)["output_0"]


def run_onnx(path, x):
    (output,) = onnxruntime.InferenceSession(path).run(None, {"x": x})
    return output


def run_openvino(path, x):
    # On processors that compute in bfloat16, OpenVINO does so unless told otherwise.
    exact = {"INFERENCE_PRECISION_HINT": "f32"}
    return openvino.Core().compile_model(path, "CPU", exact)({"x": x})[0]


def write_litert(saved, file):
    Path(file).write_bytes(tf.lite.TFLiteConverter.from_saved_model(str(saved)).convert())


def write_openvino(saved, file):
    openvino.save_model(openvino.convert_model(saved), file, compress_to_fp16=False)


# How what Keras does not write yet is made of the SavedModel.
OF_THE_SAVEDMODEL = {"litert": write_litert, "openvino": write_openvino}


def write(folded, file, format):
    try:
        folded.export(file, format=format, verbose=False)
    except (ValueError, ModuleNotFoundError, NameError) as error:
        # An older Keras knows no such format, or imports a module that OpenVINO no longer has; on Python
        # 3.13 OpenVINO does not take functions: `exec("del tensorflow")` finds no such name there.
        told = "Unrecognized format|No module named 'openvino.runtime'|name 'tensorflow' is not defined"
        if not re.search(told, str(error)):
            raise
        saved = Path(file).parent / "saved"
        tfbn.export(folded, saved)
        OF_THE_SAVEDMODEL[format](saved, file)


@pytest.mark.parametrize(
    ("format", "file", "run"),
    [
        ("litert", "m.tflite", run_litert),
        ("onnx", "m.onnx", run_onnx),
        ("openvino", "m.xml", run_openvino),
    ],
)
@pytest.mark.filterwarnings("ignore:In the future `np.object`:FutureWarning")  # Keras, for tf2onnx
def test_keras_own_formats_hold_the_folded_model(
    format, file, run, model, folded, tmp_path, monkeypatch
):
    monkeypatch.setenv("CI", "true")  # Otherwise OpenVINO reports its use to its makers.
    file = str(tmp_path / file)  # A Path is no path to Keras' OpenVINO writer.
    write(folded, file, format)
    for size in (1, 3):
        x = reference.data((size, 8, 8, 3), seed=size)
        # Other kernels, so other roundings: as much as export allows.
        assert relative_difference(run(file, x), model(x)) < 1e-5
