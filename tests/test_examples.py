"""The examples run."""

import re
import subprocess
import sys

import pytest

from paths import ROOT


def run(*arguments, cwd):
    return subprocess.run(
        [sys.executable, *map(str, arguments)], cwd=cwd, capture_output=True, text=True, check=False
    )


def run_main(name, cwd, arguments="", settings=""):
    """The `main` of an example, `example` in the settings that are made before."""
    code = f"import sys; sys.path.insert(0, {str(ROOT / 'examples')!r}); import {name} as example"
    return run("-c", f"{code}; {settings}sys.exit(example.main({arguments}))", cwd=cwd)


def test_the_digits_example(tmp_path):
    done = run(ROOT / "examples" / "digits.py", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert not done.stderr  # TensorFlow's lines
    words = " ".join(done.stdout.split())  # whatever the width of the terminal
    for text in ("9 of 9 batch norms folded", "All comparisons hold.", "What to do: tfbn.recalibrate"):
        assert text in words
    assert re.search(r"after_relu_bn +-> dense", done.stdout)
    # The README has the rows of this table, rounded; how badly a network evaluates differs by processor.
    shown = (ROOT / "README.md").read_text()
    rows = re.findall(r"^│ (.*?) +│ +([\d.]+)% │", done.stdout, re.MULTILINE)
    assert len(rows) == 6
    for row, accuracy in rows:
        in_readme = float(re.search(rf"^\| {row} \| ([\d.]+) %", shown, re.MULTILINE)[1])
        assert abs(float(accuracy) - in_readme) < (20 if "evaluated" in row else 3), row
    assert len({accuracy for _, accuracy in rows[3:]}) == 1  # recalibrated, folded, served


@pytest.mark.sweep
def test_the_digits_example_fails_when_a_comparison_does(tmp_path):
    done = run_main("digits", tmp_path, "epochs=1", "example.CLOSE = 0.0; ")
    assert done.returncode == 1
    assert "A comparison failed." in done.stdout


def migrate(cwd, settings=""):
    return run_main("migrate_slim", cwd, "steps=60, epochs=1", settings)


def test_the_migration_example(tmp_path):
    done = migrate(tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "17 variables loaded." in done.stdout
    assert "All comparisons hold." in done.stdout
    accuracies = re.findall(r"(?:Keras model|fit) +([\d.]+)% ", done.stdout)
    assert len(accuracies) == 2
    assert all(float(accuracy) > 90 for accuracy in accuracies)  # the moving statistics came along


@pytest.mark.sweep
def test_the_migration_example_fails_when_a_comparison_does(tmp_path):
    done = migrate(tmp_path, "example.CLOSE = -1.0; ")
    assert done.returncode == 1
    assert "A comparison failed." in done.stdout


def test_the_example_of_a_diagnosis(tmp_path):
    done = run_main("diagnose", tmp_path, "epochs=2, picture='picture.png'")
    assert done.returncode == 0, done.stdout + done.stderr
    for text in ("of its 4 batch norms, 4 lag behind the data", "nothing is wrong with the", "Mended."):
        assert text in done.stdout
    assert float(re.search(r"after recalibration: ([\d.]+)%", done.stdout)[1]) > 90
    assert (tmp_path / "picture.png").read_bytes()[:4] == b"\x89PNG"


@pytest.mark.sweep
def test_the_example_of_a_diagnosis_fails_when_nothing_is_mended(tmp_path):
    settings = "example.tfbn.recalibrate = lambda *args, **kwargs: None; "
    done = run_main("diagnose", tmp_path, "epochs=1", settings)
    assert done.returncode == 1
    assert "Not mended." in done.stdout


@pytest.mark.both
def test_the_example_of_a_legacy_file(tmp_path):
    done = run_main("upgrade_emotion_model", tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "14 of 14 batch norms folded" in done.stdout
    assert "All comparisons hold." in done.stdout


@pytest.mark.sweep
def test_the_example_of_a_legacy_file_fails_when_a_comparison_does(tmp_path):
    done = run_main("upgrade_emotion_model", tmp_path, settings="example.CLOSE = -1.0; ")
    assert done.returncode == 1
    assert "A comparison failed." in done.stdout


@pytest.mark.sweep
def test_the_beam_example_equals_one_process(tmp_path):
    done = run(ROOT / "examples" / "beam_statistics.py", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "1797 images in 57 batches, measured in 8 shards" in done.stdout
    assert re.search(r"Differs from one process by at most [\de-]+ of a mean or variance", done.stdout)


@pytest.mark.sweep
def test_the_beam_example_fails_when_the_comparison_does(tmp_path):
    done = run_main("beam_statistics", tmp_path, "[]", "example.ROUNDING = 0.0; ")
    assert done.returncode == 1, done.stderr
