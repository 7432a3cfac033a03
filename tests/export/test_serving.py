"""What was exported, served by others: TensorFlow's C API and its command line."""

import json
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest

import reference
import tfbn
from networks import chain, randomize, relative_difference
from paths import ROOT

pytestmark = pytest.mark.both
L = keras.layers
EXAMPLE = ROOT / "examples" / "serve_c_api.py"


@pytest.fixture(scope="module")
def model():
    keras.config.set_dtype_policy("float32")
    layers = L.Conv2D(4, 3), tfbn.BatchNorm(), L.ReLU(), L.DepthwiseConv2D(3), tfbn.BatchNorm()
    return chain((8, 8, 3), *layers, L.Flatten(), L.Dense(2))


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
