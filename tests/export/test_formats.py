"""tfbn.export as LiteRT, ONNX and OpenVINO: what their own runtimes answer is what the model does."""

import os
import resource

import ai_edge_litert.interpreter
import keras
import numpy as np
import onnxruntime
import openvino
import pytest

import reference
import tfbn
from exports import everything, wrong_fold
from networks import chain, randomize, relative_difference
from tfbn import format_names
from tfbn.export import checks, formats
from tfbn.export.formats.format import Reloaded

L = keras.layers

FILES = {"litert": ["m.tflite"], "onnx": ["m.onnx"], "openvino": ["m.bin", "m.xml"]}
TITLES = {"litert": "LiteRT", "onnx": "ONNX", "openvino": "OpenVINO"}

# Of models with random statistics, on samples of any kind.
pytestmark = [
    pytest.mark.both,
    pytest.mark.filterwarnings("ignore:The inputs of these batch norms are far"),
]


def run_litert(path, **inputs):
    interpreter = ai_edge_litert.interpreter.Interpreter(str(path))
    return interpreter.get_signature_runner("serving_default")(**inputs)


def run_onnx(path, **inputs):
    session = onnxruntime.InferenceSession(path)
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(None, inputs), strict=True))


def run_openvino(path, **inputs):
    # On processors that compute in bfloat16, OpenVINO does so unless told otherwise.
    model = openvino.Core().compile_model(path, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    outputs = model(inputs)
    return {name: outputs[port] for port in model.outputs for name in port.names}


RUNTIMES = {"litert": run_litert, "onnx": run_onnx, "openvino": run_openvino}
SUFFIXES = {"litert": ".tflite", "onnx": ".onnx", "openvino": ".xml"}


@pytest.fixture(params=FILES)
def kind(request):
    return request.param


@pytest.fixture
def path(kind, tmp_path):
    return tmp_path / f"m{SUFFIXES[kind]}"


@pytest.mark.parametrize("fold", [True, False])
def test_its_own_runtime_answers_as_the_model_does(kind, path, fold, model, unchanged):
    path = path.with_name("deep") / path.name
    with unchanged(model):
        report = tfbn.export(model, path, fold=fold)
    assert sorted(os.listdir(path.parent)) == FILES[kind]
    assert (report.format, report.path, report.samples) == (TITLES[kind], path, 4)
    assert report.inputs == {"x": ((None, 8, 8, 3), "float32")}
    assert report.outputs == {"output_0": ((None, 2), "float32")}
    assert report.weights == "constants"
    assert str(report).startswith(f"{TITLES[kind]} {path}\n  differs from the model by at most ")
    assert [len(report.fold.folded), len(report.fold.kept)] == [1, 0] if fold else report.fold is None
    for size in (1, 3, 64):
        x = reference.data((size, 8, 8, 3), seed=size)
        # Other kernels, so other roundings: as much as export allows.
        assert relative_difference(RUNTIMES[kind](path, x=x)["output_0"], model(x)) < 1e-5


def test_the_arithmetic_is_that_of_numpy(kind, path):
    model = chain((5,), L.Dense(3), tfbn.BatchNorm(epsilon=0.1))
    kernel, bias = model.layers[1].get_weights()
    gamma, beta, mean, variance = (np.float64(weight) for weight in model.layers[2].get_weights())
    x = reference.data((7, 5))
    expected = (x.astype("float64") @ kernel + bias - mean) / np.sqrt(variance + 0.1) * gamma + beta
    assert len(tfbn.export(model, path).fold.folded) == 1
    # float32 sums of five products.
    assert relative_difference(RUNTIMES[kind](path, x=x)["output_0"], expected) < 1e-6


def test_constants_that_layers_make_outside_are_no_inputs(kind, path):
    """As those of EfficientNet's first layers."""
    model = chain(
        (6, 6, 2),
        L.Normalization(mean=[0.5, -2.0], variance=[4.0, 0.25]),
        L.Rescaling([2.0, 3.0]),
        L.Conv2D(3, 3),
        tfbn.BatchNorm(),
    )
    report = tfbn.export(randomize(model), path)
    assert report.inputs == {"x": ((None, 6, 6, 2), "float32")}
    x = reference.data((5, 6, 6, 2))
    assert relative_difference(RUNTIMES[kind](path, x=x)["output_0"], model(x)) < 1e-5


def test_several_inputs_and_outputs_keep_their_names_and_types(kind, path):
    a, b, c = (
        keras.Input((4,), name="a"),
        keras.Input((3,), dtype="int32", name="b"),
        keras.Input((2,), dtype="bool", name="c"),
    )
    outputs = {
        "row": [L.Embedding(2, 3)(b), tfbn.BatchNorm()(L.Dense(2)(a))],
        "not": keras.ops.logical_not(c),
        "same": L.Identity()(a),
    }
    model = randomize(keras.Model({"a": a, "b": b, "c": c}, outputs))
    report = tfbn.export(model, path, input_names=["first", "b", "c"])
    assert report.inputs == {
        "first": ((None, 4), "float32"),
        "b": ((None, 3), "int32"),
        "c": ((None, 2), "bool"),
    }
    assert report.outputs == {
        "row_0": ((None, 3, 3), "float32"),
        "row_1": ((None, 2), "float32"),
        "not": ((None, 2), "bool"),
        "same": ((None, 4), "float32"),
    }
    x = reference.data((5, 4)), np.array([[0, 1, 1]] * 5, "int32"), np.array([[True, False]] * 5)
    found = RUNTIMES[kind](path, first=x[0], b=x[1], c=x[2])
    expected = model(dict(zip("abc", x, strict=True)))
    for name, array in (("row_0", expected["row"][0]), ("row_1", expected["row"][1])):
        assert relative_difference(found[name], array) < 1e-6
    for name in ("not", "same"):
        np.testing.assert_array_equal(found[name], expected[name])


def test_samples_are_compared(kind, path, model):
    assert tfbn.export(model, path, samples=reference.data((9, 8, 8, 3))).samples == 9
    with pytest.raises(ValueError, match="the model takes"):
        tfbn.export(model, path, samples=np.ones((2, 3)), overwrite=True)


def test_a_difference_is_an_error_with_a_remedy_that_the_format_has(kind, path, model, monkeypatch):
    monkeypatch.setattr(tfbn.folding, "fold", wrong_fold)
    message = (
        rf"^The reloaded {TITLES[kind]}'s output_0 differs from the model's by .* Nothing was written\. "
        r"Try fold=False to see whether folding does it, or allow more\.$"
    )
    with pytest.raises(tfbn.ExportError, match=message):
        tfbn.export(model, path)
    assert everything(path.parent) == {}
    assert tfbn.export(model, path, atol=1e3).difference > 1e-3


# Of each, what its converter or its runtime does not know.
INEXPRESSIBLE = {
    "litert": "TF Select ops: MaxPool3D",
    "onnx": "No Op registered for StringToHashBucketFast",
    "openvino": "No conversion rule found for .*: StringToHashBucketFast",
}


@pytest.mark.parametrize("existing", [False, True])
def test_what_a_format_cannot_express_is_said_in_its_own_words(kind, path, existing, model):
    if existing:
        tfbn.export(model, path)
    before = everything(path.parent)
    if kind == "litert":
        layer, inputs, samples = L.MaxPooling3D(), keras.Input((4, 4, 4, 1)), None
    else:
        layer, inputs, samples = L.Hashing(3), keras.Input((2,), dtype="string"), np.array([["a", "b"]])
    bad = keras.Model(inputs, layer(inputs))
    says = (
        rf"^{TITLES[kind]} cannot express this model: {INEXPRESSIBLE[kind]}\. Nothing was written\. Re"
    )
    with pytest.raises(ValueError, match=says):
        tfbn.export(bad, path, samples=samples, overwrite=existing)
    assert everything(path.parent) == before


def test_what_is_there_is_replaced_only_if_it_may_be(kind, path, model):
    tfbn.export(model, path)
    before = everything(path.parent)
    with pytest.raises(
        FileExistsError, match=r"m\.\w+ exists already\. Choose another path, or pass ov"
    ):
        tfbn.export(model, path)
    assert everything(path.parent) == before
    other = randomize(keras.models.clone_model(model), seed=9)
    tfbn.export(other, path, overwrite=True)
    assert sorted(os.listdir(path.parent)) == FILES[kind]
    x = reference.data((5, 8, 8, 3))
    assert relative_difference(RUNTIMES[kind](path, x=x)["output_0"], other(x)) < 1e-5
    folder = path.with_stem("folder")
    folder.mkdir()
    with pytest.raises(FileExistsError, match="is a directory. Choose another name for the file"):
        tfbn.export(model, folder, overwrite=True)


def test_a_file_of_weights_that_belongs_to_nothing_is_not_replaced(model, tmp_path):
    (tmp_path / "m.bin").write_text("years of work")
    for overwrite in (False, True):
        with pytest.raises(FileExistsError, match=r"m\.bin exists, and .*m\.xml does not, which it wou"):
            tfbn.export(model, tmp_path / "m.xml", overwrite=overwrite)
    assert (tmp_path / "m.bin").read_text() == "years of work"


def test_a_full_disk(kind, path, model):
    tfbn.export(model, path)
    before = everything(path.parent)
    large = chain((2,), L.Dense(50_000))
    unlimited = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (3000, unlimited[1]))
    try:
        with pytest.raises(OSError, match="cannot be written. Make room, or choose another path"):
            tfbn.export(large, path, overwrite=True)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, unlimited)
    assert everything(path.parent) == before


@pytest.mark.parametrize(
    ("name", "told", "message"),
    [
        ("m.onnx", "litert", "^format='litert' is LiteRT, and .onnx is for ONNX, received .*m.onnx. Le"),
        ("m.xml", "tf_saved_model", "^format='tf_saved_model' is SavedModel, and .xml is for OpenVINO"),
        ("m.onnx", "h5", "^format must be one of tf_saved_model, litert, onnx, openvino, received 'h5'"),
        ("m", "openvino", "^A file of OpenVINO ends in .xml, received .*m. export writes SavedModels"),
        ("m.keras", None, r"^A SavedModel is a folder, received .*m.keras. .*tfbn.fold\(model\)\[0\]"),
    ],
)
def test_formats_that_contradict_the_path_are_refused_before_any_work(
    name, told, message, model, tmp_path, monkeypatch
):
    monkeypatch.setattr(tfbn.folding, "fold", None)
    with pytest.raises(ValueError, match=message):
        tfbn.export(model, tmp_path / name, format=told)


def test_swapped_arguments_are_seen(model, tmp_path):
    with pytest.raises(
        TypeError, match=r"^path must be where .* received Functional. Write export\(model"
    ):
        tfbn.export(tmp_path / "m", model)


@pytest.mark.parametrize("told", ["litert", "onnx"])
def test_a_format_may_be_told_where_the_path_says_none(told, model, tmp_path):
    path = tmp_path / "model.v1"
    assert tfbn.export(model, path, format=told).format == TITLES[told]
    assert path.is_file()


def test_missing_packages_are_named_before_any_work(kind, path, model, monkeypatch):
    monkeypatch.setattr(tfbn.folding, "fold", None)
    monkeypatch.setattr(format_names, "find_spec", lambda name: None)
    needs = ", ".join(format_names.FORMATS[kind].needs)
    message = rf"^{TITLES[kind]} needs {needs}, not installed here: pip install 'tfbn\[{kind}\]'\.$"
    with pytest.raises(ImportError, match=message):
        tfbn.export(model, path)


def test_what_is_for_savedmodels_or_too_large_is_refused(kind, path, model, monkeypatch):
    monkeypatch.setattr(tfbn.folding, "fold", None)
    with pytest.raises(
        ValueError, match=f"^freeze= is for SavedModels; the weights of {TITLES[kind]} are"
    ):
        tfbn.export(model, path, freeze=False)
    with pytest.raises(ValueError, match="^export writes to local directories, received gs://"):
        tfbn.export(model, f"gs://bucket/{path.name}")
    file_format = formats.chosen(path, None, None)
    if kind == "openvino":
        assert file_format.limit is None
    else:
        monkeypatch.setattr(type(file_format), "limit", 1000)
        with pytest.raises(
            ValueError, match="are 0.0 GB, and a file of .* holds at most 0.0 GB. Export a"
        ):
            tfbn.export(model, path)


def test_a_fixed_batch_size_and_failures_of_the_runtime_are_named(kind, path, monkeypatch):
    def fails(arrays):
        raise RuntimeError("no kernel")

    file_format = formats.chosen(path, None, None)
    reloaded = Reloaded(fails, {"x": ((1, 4), "float32")}, {})
    monkeypatch.setattr(type(file_format), "load", lambda self, path: reloaded)
    with pytest.raises(tfbn.ExportError, match=f"The {TITLES[kind]} file takes x in batches of 1 only"):
        file_format.reload(path)
    reloaded = reloaded._replace(inputs={"x": ((None, 4), "float32")})
    with pytest.raises(tfbn.ExportError, match="does not run on inputs on which .* says: no kernel$"):
        file_format.reload(path).run({})
    with pytest.raises(tfbn.ExportError, match=f"^The reloaded {TITLES[kind]} has no a, b. Nothing was"):
        checks.check_close({"c": 0}, {"b": 0, "a": 0, "c": 0}, {}, 0, 0, file_format)
