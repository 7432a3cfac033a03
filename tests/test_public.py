"""What is public, and what is installed."""

import doctest
import importlib
import inspect
import pkgutil
import re
import shutil
import subprocess
import sys

import numpy as np
import pytest

import reference
import tfbn
from networks import chain
from paths import ROOT
from tfbn import compat

pytestmark = pytest.mark.both
SIGNATURES = {
    "BatchNorm": (
        "axis=-1, decay=0.99, epsilon=0.001, center=True, scale=True, unbiased=False, "
        "synchronized=False, beta_initializer='zeros', gamma_initializer='ones', "
        "moving_mean_initializer='zeros', "
        "moving_variance_initializer='ones', beta_regularizer=None, gamma_regularizer=None, "
        "beta_constraint=None, gamma_constraint=None, **kwargs"
    ),
    "batch_norms": "model, inside=True",
    "population_statistics": "model, data, steps=None, verbose='auto', checkpoint=None",
    "recalibrate": "model, data, steps=None, verbose='auto', checkpoint=None",
    "measure": "model, data, steps=None, verbose='auto', checkpoint=None",
    "convert": "model, to=None, data_format=None, in_place=False",
    "fold": "model, dtype=None",
    "inspect": "model",
    "diagnose": "model, data, steps=None, verbose='auto'",
    "export": "model, path, fold=True, overwrite=False, atol=0.0, rtol=None, samples=None, freeze=None, "
    "input_names=None, format=None, inputs=None, outputs=None, signatures=None",
}


COMPAT_SIGNATURES = {
    "BatchNormalization": (
        "epsilon=1e-05, mode=0, axis=-1, momentum=0.99, weights=None, beta_init='zero', "
        "gamma_init='one', gamma_regularizer=None, beta_regularizer=None, **kwargs"
    ),
    "batch_norm": (
        "inputs, decay=0.999, center=True, scale=False, epsilon=0.001, activation_fn=None, "
        "updates_collections='update_ops', is_training=True, reuse=None, variables_collections=None, "
        "outputs_collections=None, trainable=True, scope=None, *, param_initializers=None, "
        "param_regularizers=None, batch_weights=None, fused=None, data_format='NHWC', "
        "zero_debias_moving_mean=False, renorm=False, renorm_clipping=None, renorm_decay=0.99, "
        "adjustment=None"
    ),
    "load_model": (
        "path, *, weights=None, keras_version=None, backend=None, data_format=None, custom_objects=None"
    ),
    "load_checkpoint": "path, layer_or_model, name_map=None, *, exclude=(), moving_averages=False",
    "VariableScopeLayer": (
        "function, *, scope=None, arguments=None, update_collections=('update_ops',), "
        "v1_shapes=False, name=None, **kwargs"
    ),
    "install_contrib": "programs=None",
    "add_arg_scope": "function",
    "arg_scope": "list_ops_or_scope, **kwargs",
}


def plain(signature):
    stripped = [
        parameter.replace(annotation=parameter.empty) for parameter in signature.parameters.values()
    ]
    return str(signature.replace(parameters=stripped, return_annotation=signature.empty))[1:-1]


@pytest.mark.parametrize("name", SIGNATURES)
def test_signatures(name):
    assert plain(inspect.signature(getattr(tfbn, name))) == SIGNATURES[name]


@pytest.mark.parametrize("name", COMPAT_SIGNATURES)
def test_signatures_of_compat(name):
    assert plain(inspect.signature(getattr(compat, name))) == COMPAT_SIGNATURES[name]


def test_public_names_of_compat():
    assert set(compat.__all__) == COMPAT_SIGNATURES.keys() | {
        "CheckpointError",
        "CheckpointReport",
        "LegacyModelError",
        "UnsupportedLayerError",
        "batch_normalization",
        "install_contrib",
        "slim",
    }
    for name in compat.__all__:
        assert inspect.getdoc(getattr(compat, name)), f"{name} has no docstring"


def test_public_names():
    public = {
        "BatchNorm",
        "BatchRenorm",
        "Diagnosis",
        "ExportError",
        "ExportReport",
        "FoldReport",
        "Inspection",
        "Measurement",
        "PopulationStatistics",
        "Statistics",
        "functional",
    }
    assert set(tfbn.__all__) == public | {
        "batch_norm_at_inference",
        "batch_norms",
        "callbacks",
        "compat",
        "convert",
        "diagnose",
        "export",
        "fold",
        "inspect",
        "measure",
        "population_statistics",
        "recalibrate",
    }
    for name in tfbn.__all__:
        assert inspect.getdoc(getattr(tfbn, name)), f"{name} has no docstring"
    assert dir(tfbn) == sorted([*tfbn.__all__, "__version__"])


def test_every_public_function_of_the_mathematics_is_documented():
    for name, function in inspect.getmembers(tfbn.functional, inspect.isfunction):
        if not name.startswith("_"):
            assert inspect.getdoc(function), name


def python(code, cwd):
    return subprocess.run(
        [sys.executable, "-c", code], cwd=cwd, capture_output=True, text=True, check=False
    )


def test_tfbn_and_compat_are_all_that_is_installed(tmp_path):
    code = "import importlib.metadata as m; print(*m.distribution('tfbn').files)"
    files = python(code, cwd=tmp_path).stdout.split()
    tops = {file.split("/")[0] for file in files if not file.startswith("..")}
    tops = {top for top in tops if not re.match(r"__editable__|__pycache__|tfbn-.*\.dist-info", top)}
    assert tops <= {"tfbn"}
    if tops:  # a wheel; an editable installation has no files of its own
        assert {"tfbn/__init__.py", "tfbn/compat/__init__.py", "tfbn/py.typed"} <= set(files)


def test_compat_cannot_be_imported_by_another_name(tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", "import compat"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert "No module named 'compat'" in done.stderr


LOAD = """
import tfbn, keras, numpy
model, x = keras.models.load_model("m.keras"), numpy.load("x.npy")
numpy.save("y.npy", model(x, training=False))
kinds = tfbn.BatchNorm, tfbn.BatchRenorm, tfbn.compat.BatchNormalization
assert [type(layer) for layer in model.layers[1:]] == [*kinds]
"""


def test_files_load_after_import_tfbn(tmp_path):
    model = chain((4,), tfbn.BatchNorm(), tfbn.BatchRenorm(), compat.BatchNormalization())
    model.save(tmp_path / "m.keras")
    np.save(tmp_path / "x.npy", x := reference.data((5, 4)))
    done = python(LOAD, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    np.testing.assert_array_equal(np.load(tmp_path / "y.npy"), model(x, training=False))


def test_batch_norms_is_a_function_and_its_module_can_be_imported():
    from tfbn.batch_norms import batch_norms  # noqa: PLC0415

    model = chain((4,), tfbn.BatchNorm(name="bn"))
    assert tfbn.batch_norms is batch_norms
    assert tfbn.batch_norms(model) == {"bn": model.get_layer("bn")}


CLIENT = """
import tfbn
from tfbn import *
from tfbn import BatchNorm, compat

layer: tfbn.BatchNorm = BatchNorm(decay="0.9")
report: tfbn.ExportReport = export(layer, 3)
tfbn.functional.normalize
tfbn.compat.load_model(7, keras_version=7)
compat.nothing
tfbn.keras
BatchNorm(momentum=0.9)
BatchNorm(decay=0.9, name="bn", trainable=False, dtype="float32", input_shape=(None, 4))
tfbn.batch_norms(layer)["bn"].moving_mean
"""


@pytest.mark.checkout
def test_type_checkers_know_what_is_public(tmp_path):
    for package, place in (("tfbn", "tfbn"), ("compat", "tfbn/compat")):
        shutil.copytree(ROOT / package, tmp_path / place)
    (tmp_path / "client.py").write_text(CLIENT)
    command = [sys.executable, "-m", "mypy", "--strict", "--ignore-missing-imports"]
    command += ["--follow-imports=silent", "client.py"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    found = [line.split(":", 1)[1] for line in done.stdout.splitlines()[:-1] if " note: " not in line]
    assert [line.split(":")[0] for line in found] == ["6", "7", "9", "10", "11", "12"], done.stdout
    assert '"decay"' in found[0]
    assert 'Argument 2 to "export"' in found[1]
    assert '"keras_version"' in found[2]
    assert '"nothing"' in found[3]
    assert '"keras"' in found[4]
    assert 'Unexpected keyword argument "momentum" for "BatchNorm"' in found[5]


def test_another_backend_is_refused(tmp_path):
    code = "import keras; keras.backend.backend = lambda: 'jax'; import tfbn"
    message = "ImportError: tfbn needs Keras' TensorFlow backend, and Keras runs on 'jax'. Set the"
    assert message in python(code, cwd=tmp_path).stderr


def test_without_tensorflow_the_error_says_what_to_install(tmp_path):
    code = (
        "import importlib.util as u; find = u.find_spec; "
        "u.find_spec = lambda name, *rest: None if name == 'tensorflow' else find(name, *rest); "
        "import tfbn"
    )
    message = "ImportError: tfbn runs on TensorFlow, and none is installed: pip install tensorflow, or"
    assert message in python(code, cwd=tmp_path).stderr


def test_the_examples_in_docstrings_of_compat():
    """Those of the core are run by `pytest --doctest-modules`, which does not find compat there."""
    tried = 0
    for found in pkgutil.walk_packages(compat.__path__, "tfbn.compat."):
        results = doctest.testmod(importlib.import_module(found.name))
        assert results.failed == 0, found.name
        tried += results.attempted
    assert tried >= 3


@pytest.mark.parametrize(
    "name", [name for name in compat.__all__ if not inspect.isclass(getattr(compat, name))]
)
def test_the_examples_of_what_arg_scope_wraps(name):
    """Doctest looks for functions and classes, and misses the functions that `add_arg_scope` made."""
    public = getattr(compat, name)
    globs = vars(importlib.import_module(public.__module__))
    for example in doctest.DocTestFinder(recurse=False).find(public, name, globs=dict(globs)):
        assert doctest.DocTestRunner().run(example).failed == 0
