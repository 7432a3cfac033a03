"""The command `tfbn` answers what needs no model before TensorFlow starts, and finds all of it then."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

import tfbn
from networks import chain
from tfbn import cli
from tfbn.compat import upgrade
from tfbn.folding.keras import precision

pytestmark = pytest.mark.both
SCRIPT = str(Path(sys.executable).with_name("tfbn"))
SLOW = {"tensorflow", "keras", "numpy", "rich"}

OWN_MODULE = """
import tfbn
assert tfbn.__all__
assert {"BatchNorm", "compat", "export", "__version__"} <= set(dir(tfbn))
for name in tfbn.__all__:
    assert name in vars(tfbn), name
assert callable(tfbn.export) and callable(tfbn.convert) and callable(tfbn.fold)
assert not hasattr(tfbn, "nothing_of_this_name")
print("imported", tfbn.compat.load_model.__name__)
"""

# Python imports it at its start.
LIST_MODULES = """
import atexit, sys
atexit.register(lambda: open("imported.txt", "w").write(" ".join(sys.modules)))
"""


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Make a function that runs Python in a process, and tells which modules it imported."""
    (tmp_path / "sitecustomize.py").write_text(LIST_MODULES)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=os.pathsep)

    def python(*arguments):
        command = [sys.executable, *arguments]
        done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)
        done.imported = set((tmp_path / "imported.txt").read_text().split())
        return done

    return python


@pytest.mark.parametrize("command", [[SCRIPT], ["-m", "tfbn"]], ids=["tfbn", "python -m tfbn"])
@pytest.mark.parametrize(
    ("arguments", "code", "answer"),
    [
        ("--version", 0, f"tfbn, version {tfbn.__version__}\n"),
        ("--help", 0, "Usage: tfbn [OPTIONS] COMMAND"),
        ("export --help", 0, "Usage: tfbn export [OPTIONS] MODEL OUT"),
        ("fold --help", 0, "Usage: tfbn fold [OPTIONS] MODEL OUT"),
        ("upgrade --help", 0, "Usage: tfbn upgrade [OPTIONS] OLD NEW.keras"),
        ("inspect --help", 0, "Usage: tfbn inspect [OPTIONS] MODEL"),
        ("diagnose --help", 0, "Usage: tfbn diagnose [OPTIONS] MODEL"),
        ("recalibrate --help", 0, "Usage: tfbn recalibrate [OPTIONS] MODEL OUT.keras"),
        ("migrate --help", 0, "Usage: tfbn migrate [OPTIONS] PATH…"),
        ("migrate", 2, "Missing argument 'PATH…'."),
        ("migrate missing.py", 2, "Path 'missing.py' does not exist."),
        ("migrate there --write --check", 1, "--write and --check exclude each other."),
        ("diagnose text.keras", 2, "Missing option '--data'."),
        ("recalibrate text.keras out --data text.keras", 1, "OUT must end in .keras, received out."),
        ("diagnose text.keras --data text.keras", 1, "it is no .keras (zip) file."),
        ("melt", 2, "No such command 'melt'."),
        ("export missing.keras out", 2, "Path 'missing.keras' does not exist."),
        (
            "export text.keras out",
            1,
            "text.keras cannot be loaded as a Keras model: it is no .keras (zip)",
        ),
        ("export text.keras there", 1, "there exists already. Pass --overwrite to replace it."),
        ("export text.keras out.onnx --format litert", 1, "Leave --format out, or choose another path."),
        (
            "export text.keras out.onnx --format h5",
            2,
            "'h5' is not one of 'tf_saved_model', 'litert', 'on",
        ),
        ("export text.keras out.h5", 1, "A SavedModel is a folder, received out.h5. export writes "),
        (
            "export text.keras out.xml --version 1",
            1,
            "--version is for SavedModels, and out.xml will be",
        ),
        ("export text.keras out --samples x.npz", 2, "File 'x.npz' does not exist."),
        ("export text.keras out --version next", 2, "'next' is not a valid integer range."),
        ("fold text.keras out", 1, "OUT must end in .keras, received out."),
        ("fold text.keras out.keras --dtype int7", 2, "'int7' is not one of 'float16',"),
        ("upgrade text.keras out.keras --rtol 1", 1, "--rtol is for --reference, which is missing."),
        ("upgrade missing.h5 out.keras", 2, "Path 'missing.h5' does not exist."),
    ],
)
def test_what_needs_no_model_is_answered_without_tensorflow(
    command, arguments, code, answer, run, tmp_path
):
    (tmp_path / "text.keras").write_text("not a model")
    (tmp_path / "there").mkdir()
    done = run(*command, *arguments.split())
    assert done.returncode == code
    assert answer in (done.stderr if code else done.stdout)
    assert done.imported >= {"tfbn", "tfbn.cli", "click"}
    assert not SLOW & done.imported


def test_modules_of_the_users_find_the_whole_package(run, tmp_path):
    chain((4,), tfbn.BatchNorm(), tfbn.BatchRenorm()).save(tmp_path / "m.keras")
    (tmp_path / "own_module.py").write_text(OWN_MODULE)
    done = run("-m", "tfbn", "export", "m.keras", "out", "--import", "own_module")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("imported load_model\n")
    assert done.stderr == ""
    assert done.imported >= SLOW
    assert (tmp_path / "out" / "saved_model.pb").is_file()


def test_without_tensorflow_the_command_says_what_to_install(run, tmp_path):
    chain((4,), tfbn.BatchNorm()).save(tmp_path / "m.keras")
    code = (
        "import importlib.util as u, sys; find = u.find_spec; "
        "u.find_spec = lambda name, *rest: None if name == 'tensorflow' else find(name, *rest); "
        "sys.argv = ['tfbn', 'export', 'm.keras', 'out']; from tfbn.cli import main; main()"
    )
    done = run("-c", code)
    assert done.returncode == 1
    assert done.stderr.startswith("Error: tfbn runs on TensorFlow, and none is installed: pip install ")
    assert done.stderr.count("\n") == 1


def test_the_arguments_that_are_told_are_those_that_are_taken():
    assert cli.POLICIES == precision.POLICIES
    assert cli.DEFAULT_RTOL == upgrade.DEFAULT_RTOL
