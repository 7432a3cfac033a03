"""What is no file of Keras 1 or 2, or a damaged or hostile one, is refused in words that help."""

import json
import pathlib
import shutil

import h5py
import keras
import numpy as np
import pytest

import legacy_files as files
from tfbn import compat


def dense(name, units=3, **config):
    return files.layer("Dense", name, output_dim=units, activation="linear", **config)


CONFIG = files.sequential(dense("d"), dense("e", 2), shape=(4,))
WEIGHTS = [
    (name, [(f"{name}_W", np.ones(shape)), (f"{name}_b", np.ones(shape[1]))])
    for name, shape in (("d", (4, 3)), ("e", (3, 2)))
]


@pytest.fixture
def whole(tmp_path):
    return pathlib.Path(files.write(tmp_path / "m.h5", CONFIG, WEIGHTS))


def refused(path, message, **arguments):
    with pytest.raises(compat.LegacyModelError, match=message) as caught:
        compat.load_model(path, **arguments)
    assert str(caught.value).startswith((str(path), str(arguments.get("weights", path))))
    assert isinstance(caught.value, ValueError)


def test_other_files(tmp_path, whole):
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    model.save(tmp_path / "new.keras")
    refused(
        tmp_path / "new.keras",
        "this is a zip archive, as .* and the .keras files of Keras 3, which keras.models.load",
    )
    refused(tmp_path, "this is a folder, and should be a file: HDF5, .keras or JSON")
    (tmp_path / "ckpt.index").write_bytes(b"\0\1\2\3")
    for name in ("ckpt", "ckpt.index", "ckpt.meta", "ckpt.data-00000-of-00001"):
        refused(tmp_path / name, r"a TensorFlow checkpoint, .* tfbn\.compat\.load_checkpoint\(path, mod")
    (tmp_path / "saved").mkdir()
    (tmp_path / "saved" / "saved_model.pb").write_bytes(b"")
    refused(tmp_path / "saved", r"a SavedModel, .*TFSMLayer\(path, call_endpoint='serving_default'\)")
    (tmp_path / "checkpoint").write_text("")
    refused(tmp_path, r"a folder of TensorFlow checkpoints, .* load them with tfbn\.compat\.load_check")
    refused(tmp_path / "frozen.pb", r"a graph of TensorFlow, .* tfbn\.export")
    (tmp_path / "new.json").write_text(model.to_json())
    refused(tmp_path / "new.json", r"the JSON of a model of Keras 3\. Make it with keras\.models\.")
    refused(tmp_path / "nothing", "nothing: there is no such file")
    (tmp_path / "text").write_text("hello")
    refused(tmp_path / "text", "JSON: this is neither HDF5 nor JSON .*Pass what model.to_json")
    (tmp_path / "m.json").write_text(json.dumps(CONFIG))
    refused(
        tmp_path / "m.json", "this is an architecture without weights. Pass their HDF5 file as weights="
    )
    refused(tmp_path / "m.json", "text: this is no HDF5 file, as weights=", weights=tmp_path / "text")
    files.write(tmp_path / "w.h5", None, WEIGHTS, whole=False)
    refused(
        tmp_path / "w.h5", "the file holds weights and no architecture. Pass the JSON that model.to_json"
    )
    with pytest.raises(TypeError, match="path must be a string or a pathlib.Path, received 3"):
        compat.load_model(3)
    (tmp_path / "short.h5").write_bytes(whole.read_bytes()[:2000])
    refused(tmp_path / "short.h5", "cannot be read as HDF5 .*copy it again")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[" * 100_000, "this is neither HDF5 nor JSON"),
        ('{"a":' * 300 + "1" + "}" * 300, "is nested more than 200 levels deep"),
        ("[1]", "is no JSON object but list"),
        (
            '{"class_name": "MyModel", "config": {}}',
            "is a 'MyModel' and no Sequential or functional model",
        ),
        ('{"class_name": "Sequential", "config": []}', "has no layers"),
        ('{"class_name": "Model", "config": {"layers": 3}}', "layers: should be a list, and is 3"),
    ],
)
def test_json_that_is_no_model(tmp_path, text, message):
    (tmp_path / "m.json").write_text(text)
    refused(
        tmp_path / "m.json", message, weights=files.write(tmp_path / "w.h5", None, WEIGHTS, whole=False)
    )


def graph(*layers, inputs=("x",), outputs=("d",)):
    return files.functional([files.source("x", 4), *layers], list(inputs), list(outputs))


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (
            graph((dense("d"), [["e"]]), (dense("e", 2), [["d"]])),
            "the layers d, e take tensors of each other",
        ),
        (
            graph((dense("d"), [["gone"]]), (dense("e", 2), [["d"]])),
            "the layers d, e take tensors of each other, or of layers that do",
        ),
        (
            graph((dense("d"), [["x"]]), (dense("e", 2), [["d"]]), outputs=[("d", 3, 0)]),
            "the output 0 of call 3 of 'd', which is none",
        ),
        (graph((dense("d"), [["x"]]), (dense("d"), [["x"]])), "two of one name"),
        (graph((dense("d"), [[("x", -1, 0)]]), (dense("e", 2), [["d"]])), "names no output of a layer"),
        (
            files.sequential(dense("d", 10**12), dense("e", 2), shape=(4,)),
            "d: output_dim=1000000000000 must be between 1 and",
        ),
        (
            files.sequential(dense("d", 2 * 10**9), dense("e", 2), shape=(4,)),
            r"d: called on .* it has weights of the shapes \[\(4, 2000000000\)",
        ),
        (
            files.sequential(dense("d"), dense("e", 2), shape=(10**9,)),
            r"d: called on .* the shapes \[\(1000000000, 3\), \(3,\)\], and the file holds \[\(4, 3\)",
        ),
        (
            files.sequential(dense("d"), dense("e", 2), shape=(None,)),
            "its weights need the sizes that are None there",
        ),
        (
            files.sequential(dense("d", bias=False), dense("e", 2), shape=(4,)),
            r"d: Dense has the weights W, and the file holds 2: d_W, d_b",
        ),
        (
            {"class_name": "Sequential", "config": [dense("d"), dense("e", 2)]},
            "does not say the shape of the model's input",
        ),
    ],
    ids=range(11),
)
def test_architectures_that_cannot_be(tmp_path, config, message):
    (tmp_path / "m.json").write_text(json.dumps(config))
    refused(
        tmp_path / "m.json", message, weights=files.write(tmp_path / "w.h5", None, WEIGHTS, whole=False)
    )


def replace(file, value=None, **settings):
    group = file["model_weights/d"]
    del group["d_W"]
    if value is not None:
        group["d_W"] = value
    elif settings:
        group.create_dataset("d_W", **settings)


def weights_of(file):
    return file["model_weights"]


def virtual(file):
    layout = h5py.VirtualLayout((4, 3), "f4")
    layout[:] = h5py.VirtualSource("other.h5", "x", shape=(4, 3))
    replace(file)
    file["model_weights/d"].create_virtual_dataset("d_W", layout)


def repeat(file):
    """A thousand weights, all of which are one dataset."""
    group = file["model_weights/d"]
    group.create_dataset("big", data=np.zeros(20_000, "f4"))
    for number in range(1000):
        group[f"w{number}"] = group["big"]
    group.attrs["weight_names"] = [f"w{number}".encode() for number in range(1000)]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda file: replace(file, h5py.SoftLink("/model_weights/e/e_W")),
            "d/d_W: is a SoftLink, which may lead anywhere",
        ),
        (
            lambda file: replace(file, h5py.ExternalLink("other.h5", "/x")),
            "d/d_W: is a ExternalLink, which may lead",
        ),
        (lambda file: replace(file, file["model_weights"]), "d/d_W: the weight is no dataset"),
        (replace, "d/d_W: the weight is missing"),
        (virtual, "keeps its numbers in other files"),
        (
            lambda file: replace(file, shape=(4, 3), dtype="f4", external=[("raw", 0, 48)]),
            "keeps its numbers in other files",
        ),
        (
            lambda file: replace(file, data=["x"], dtype=h5py.string_dtype()),
            "holds object and no plain numbers",
        ),
        (
            lambda file: replace(file, data=np.zeros((4, 3), "c8")),
            "holds complex64 and no plain numbers",
        ),
        (lambda file: replace(file, h5py.Empty("f4")), "and no plain numbers"),
        (
            lambda file: replace(file, shape=(10**6, 10**7), dtype="f4", chunks=(100, 100)),
            "declares 40000000000000 bytes .* and stores 0",
        ),
        (
            lambda file: replace(file, data=np.zeros((3, 4))),
            r"\[\(4, 3\), \(3,\)\], and the file holds \[\(3, 4\), \(3,\)\]",
        ),
        (repeat, "has more bytes than the file"),
        (lambda file: file["model_weights"].pop("d"), "d: the layer's group is missing"),
        (
            lambda file: file["model_weights/d"].attrs.pop("weight_names"),
            "the attribute weight_names is missing",
        ),
        (
            lambda file: weights_of(file).attrs.pop("layer_names"),
            "layer_names: the attribute is missing: no weights that Keras",
        ),
        (lambda file: weights_of(file).attrs.modify("layer_names", [b"d", b"d"]), "lists a layer twice"),
        (
            lambda file: weights_of(file).attrs.modify("layer_names", [b"d", b"../e"]),
            "'../e'|e: the layer's group is missing",
        ),
        (
            lambda file: weights_of(file).attrs.modify("layer_names", [b"d", b"/"]),
            "'/' is no name within its group",
        ),
        (
            lambda file: weights_of(file).attrs.__setitem__("layer_names", 3.0),
            "layer_names: is no list of names",
        ),
        (lambda file: file.attrs.__setitem__("model_config", 3.0), "model_config: is no text"),
        (lambda file: file.attrs.modify("model_config", b"\xff"), "model_config: this is no JSON"),
        (lambda file: file.attrs.modify("keras_version", "new"), "'new' is no version of Keras"),
    ],
    ids=range(22),
)
def test_hdf5_that_cannot_be(whole, change, message):
    with h5py.File(whole, "a") as file:
        change(file)
    refused(whole, message)


def test_a_heap_that_the_library_would_read_for_ever(whole):
    """An object of size 0 where a text begins; without the check, h5py never comes back."""
    data = bytearray(whole.read_bytes())
    start = data.index(b"GCOL")
    data[start + 16 : start + 48] = bytes(32)
    whole.write_bytes(data)
    refused(whole, "HDF5: is damaged at byte .*: a text there has 0 bytes")


def test_nothing_is_written_and_repacked_files_load(whole, tmp_path):
    before = whole.read_bytes()
    compat.load_model(whole)
    assert whole.read_bytes() == before
    packed = shutil.copy(whole, tmp_path / "chunked.h5")
    with h5py.File(packed, "a") as file:
        replace(file, data=np.ones((4, 3), "f8"), chunks=(2, 3))
    assert compat.load_model(packed).layers[0].units == 3
    with h5py.File(packed, "a") as file:
        replace(file, data=np.ones((4, 300), "f4"), chunks=(4, 300), compression="gzip")
    refused(packed, "or compressed: h5repack -f NONE unpacks it")
