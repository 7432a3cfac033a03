"""What is public, and what is installed."""

import inspect
import re
import subprocess
import sys

import pytest

import tfbn

SIGNATURES = {
    "BatchNorm": (
        "axis=-1, decay=0.99, epsilon=0.001, center=True, scale=True, unbiased=False, "
        "synchronized=False, beta_initializer='zeros', gamma_initializer='ones', "
        "moving_mean_initializer='zeros', "
        "moving_variance_initializer='ones', beta_regularizer=None, gamma_regularizer=None, "
        "beta_constraint=None, gamma_constraint=None, **kwargs"
    ),
    "population_statistics": "model, data, steps=None, verbose='auto'",
    "recalibrate": "model, data, steps=None, verbose='auto'",
    "convert": "model, to=<class 'tfbn.layer.BatchNorm'>",
    "fold": "model",
    "export": "model, path, fold=True, overwrite=False, atol=0.0, rtol=None, samples=None",
}


def plain(signature):
    return ", ".join(
        str(parameter.replace(annotation=parameter.empty)) for parameter in signature.parameters.values()
    )


@pytest.mark.parametrize("name", SIGNATURES)
def test_signatures(name):
    assert plain(inspect.signature(getattr(tfbn, name))) == SIGNATURES[name]


def test_public_names():
    public = {
        "BatchNorm",
        "BatchRenorm",
        "ExportError",
        "ExportReport",
        "FoldReport",
        "PopulationStatistics",
        "functional",
    }
    assert set(tfbn.__all__) == public | {
        "convert",
        "export",
        "fold",
        "population_statistics",
        "recalibrate",
    }
    for name in tfbn.__all__:
        assert inspect.getdoc(getattr(tfbn, name)), f"{name} has no docstring"


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


def test_another_backend_is_refused(tmp_path):
    code = "import keras; keras.backend.backend = lambda: 'jax'; import tfbn"
    message = "ImportError: tfbn needs Keras' TensorFlow backend, and Keras runs on 'jax'. Set the"
    assert message in python(code, cwd=tmp_path).stderr
