"""The benchmarks run, and say under which setting of oneDNN. How fast anything is, no test asks."""

import importlib
import json
import sys

import click.testing
import keras
import pytest

from paths import ROOT

pytestmark = pytest.mark.checkout

BENCHMARKS = ROOT / "benchmarks"
MODULES = ("drawing", "machine", "measure", "run", "serving", "summary", "training")

# In place of training.py and serving.py: which switch the process was given, as a row.
PART = """
import json, os, sys
onednn = os.environ["TF_ENABLE_ONEDNN_OPTS"] == "1"
for name, peer in (("a", 2 + onednn), ("b", 4 + 5 * onednn), (" ".join(sys.argv[1:]), 1)):
    row = {"kind": KIND, "name": name, "onednn": onednn, "subject": 2.0, "peer": peer}
    print(json.dumps(row), flush=True)
"""


@pytest.fixture
def benchmarks(monkeypatch):
    """Imports one of their modules."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    yield importlib.import_module
    for name in MODULES:
        sys.modules.pop(name, None)


@pytest.fixture
def run(benchmarks, monkeypatch, tmp_path):
    """`run.py` on a made-up machine and with made-up parts."""
    run, machine = benchmarks("run"), benchmarks("machine")
    for part in run.PARTS:
        (tmp_path / f"{part}.py").write_text(PART.replace("KIND", repr(f"{part} against a peer")))
    known = machine.Machine("Abacus 7", 2, 0, False, [False, True], {"Python": "3.11.7"})
    monkeypatch.setattr(run, "HERE", tmp_path)
    monkeypatch.setattr(machine, "describe", lambda: known)
    return run


def invoke(run, tmp_path, *arguments):
    arguments = [*arguments, "--into", str(tmp_path)]
    done = click.testing.CliRunner().invoke(run.main, arguments, catch_exceptions=False)
    return done, json.loads((tmp_path / "results.json").read_text())


def test_every_part_is_measured_under_both_settings(run, tmp_path):
    done, results = invoke(run, tmp_path, "--only", "training", "--rounds", "7", "--networks", "2")
    assert done.exit_code == 0, done.output
    assert results["machine"]["processor"] == "Abacus 7"
    assert results["machine"]["by_itself"] is False
    assert results["machine"]["versions"] == {"Python": "3.11.7"}
    assert [(row["name"], row["onednn"]) for row in results["rows"]] == [
        (name, onednn) for onednn in (False, True) for name in ("a", "b", "7 2")
    ]
    assert {row["kind"] for row in results["rows"]} == {"training against a peer"}
    found = results["ranges"]["training against a peer"]
    assert {setting: ends[:2] for setting, ends in found.items()} == {
        "both": [0.5, 4.5],
        "off": [0.5, 2],
        "on": [0.5, 4.5],
    }
    assert found["off"][2] == pytest.approx((1 * 2 * 0.5) ** (1 / 3))
    assert (
        "training against a peer: 0.50 to 4.50 times as fast (oneDNN off 0.50 to 2.00, on 0.50 to 4.50)"
    ) in done.output
    assert "Abacus 7, 2 cores, no GPU; oneDNN by itself: off" in done.output
    cells = [[cell.strip() for cell in line.split("│")[1:-1]] for line in done.output.splitlines()]
    for row in (["a", "1.00", "1.50"], ["b", "2.00", "4.50"], ["geometric mean of 3", "1.00", "1.50"]):
        assert row in cells
    assert (tmp_path / "benchmarks.png").read_bytes().startswith(b"\x89PNG")


def test_what_was_measured_before_a_crash_is_kept(run, tmp_path):
    crash = "\nif onednn: sys.exit('No more beads.')\n"
    (tmp_path / "serving.py").write_text(PART.replace("KIND", "'serving'") + crash)
    done, results = invoke(run, tmp_path, "--only", "serving")
    assert done.exit_code == 1
    assert "No more beads." in done.output
    assert "serving, oneDNN on: exit 1" in done.output
    assert len(results["rows"]) == 6


def test_a_comparison_that_one_setting_lacks(benchmarks):
    summary, measure = benchmarks("summary"), benchmarks("measure")
    kinds = summary.side_by_side([measure.Row("k", "a", True, 1.0, 3.0)])
    assert kinds == {"k": [("a", None, 3.0)]}
    assert [*summary.sentences(kinds)] == ["k: 3.00 times as fast (oneDNN on 3.00)"]
    lines = [summary.Line(name, None if name == "a" else 2.0, 3.0) for name in "abc"]
    assert summary.with_mean(lines)[3:] == [("geometric mean of 3", None, pytest.approx(3.0))]


def test_the_switch_is_set_and_taken_away(benchmarks, monkeypatch):
    machine = benchmarks("machine")
    monkeypatch.setenv("TF_ENABLE_ONEDNN_OPTS", "1")
    assert machine.with_switch(False)["TF_ENABLE_ONEDNN_OPTS"] == "0"
    assert "TF_ENABLE_ONEDNN_OPTS" not in machine.with_switch(None)
    assert machine.processor()


def test_layers_and_models_are_measured(benchmarks, monkeypatch):
    training = benchmarks("training")
    monkeypatch.setenv("TF_ENABLE_ONEDNN_OPTS", "1")
    monkeypatch.setattr(training, "SHAPES", ((2, 3, 3, 4), (5, 4)))
    monkeypatch.setattr(training, "OTHERS", (((2, 4, 3, 3), 1, "float32"), ((2, 3, 4), -1, "bfloat16")))
    monkeypatch.setattr(training, "MODELS", {"tiny": ((2, 96),)})
    monkeypatch.setattr(training, "network", lambda name, size: tiny(size))
    rows = [*training.rows(1)]
    assert {row.kind.split(", against")[0] for row in rows} == {
        "Layer, training step",
        "Layer, training step compiled by XLA",
        "Layer, inference",
        "Model, training step, converted against stock",
        "population_statistics, a batch",
    }
    assert all(row.onednn and row.peer > 0 for row in rows)
    assert all(row.subject > 0 for row in rows if not row.kind.startswith("population"))
    assert not [row for row in training.rows(1, 0) if row.kind.startswith("Model")]


def test_exports_are_measured(benchmarks, monkeypatch):
    serving = benchmarks("serving")
    monkeypatch.setenv("TF_ENABLE_ONEDNN_OPTS", "0")
    monkeypatch.setattr(serving, "MODELS", ("tiny",))
    monkeypatch.setattr(serving, "CHAINS", (2,))
    monkeypatch.setattr(serving, "of", lambda name, size: serving.trained(tiny(size)))
    rows = [*serving.rows(1)]
    assert [row.kind for row in rows] == [
        "SavedModel, as exported, against Keras' export",
        "SavedModel, constants, against Keras' export frozen",
        *["tfbn.fold against keras.models.clone_model"] * 3,
    ]
    assert not any(row.onednn for row in rows)


def tiny(size):
    layers = keras.layers
    return keras.Sequential(
        [
            keras.Input((size, size, 3)),
            layers.Conv2D(4, 3, strides=8),
            layers.BatchNormalization(),
            layers.GlobalAveragePooling2D(),
            layers.Dense(10, activation="softmax"),
        ]
    )
