"""The benchmarks run, and say under which setting of oneDNN. How fast anything is, no test asks."""

import importlib
import json
import sys

import click.testing
import keras
import matplotlib.pyplot as plt
import numpy as np
import pytest

import tfbn
from paths import ROOT

pytestmark = pytest.mark.checkout

BENCHMARKS = ROOT / "benchmarks"
MODULES = ("drawing", "kinds", "machine", "measure", "run", "runtimes", "serving", "summary", "tables")
MODULES += ("training",)

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
    known = machine.Machine("Abacus 7", 2, 0, False, [False, True], {"Python": "3.11.7"}, {})
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
    assert not [*tmp_path.glob("*.png")]  # no figure has rows of this kind


def test_everything_is_drawn_and_tabled(run, tmp_path, monkeypatch):
    """Into the docs, with the table in its place on the page."""
    kinds = {"training": run.drawing.kinds.LAYER, "serving": run.drawing.kinds.OPENVINO}
    for part, kind in kinds.items():
        (tmp_path / f"{part}.py").write_text(PART.replace("KIND", repr(kind)))
    (docs := tmp_path / "docs").mkdir()
    page = docs / "benchmarks.md"
    page.write_text("Before.\n<!-- table -->\nstale\n<!-- end of table -->\nBehind.\n")
    monkeypatch.setattr(run, "DOCS", docs)
    monkeypatch.setattr(run, "fold_memory", lambda: 2.0)

    def drawn(*arguments):
        done = click.testing.CliRunner().invoke(run.main, arguments, catch_exceptions=False)
        assert done.exit_code == 0, done.output
        for part in kinds:
            figure = plt.imread(docs / f"benchmarks-{part}.png")
            assert figure.shape[1] == 1660  # twice as wide as a README shows it
        return page.read_text()

    text = drawn("--rounds", "1")
    assert text.startswith("Before.\n<!-- table -->\n\nAbacus 7, 2 cores")
    assert text.endswith("\n<!-- end of table -->\nBehind.\n")
    assert "stale" not in text
    for part in kinds.values():
        _, table = text.split(f"### {part}\n")
        assert table.strip().splitlines()[2:6] == [
            "| a | 1.00 (2 ms) | 1.50 (2 ms) |",
            "| b | 2.00 (2 ms) | 4.50 (2 ms) |",
            "| 1 | 0.50 (2 ms) | 0.50 (2 ms) |",
            "| geometric mean of 3 | 1.00 | 1.50 |",
        ]
    # Once more from the results, with nothing measured.
    for path in (page, *docs.glob("*.png")):
        path.write_text("<!-- table --><!-- end of table -->")
    monkeypatch.setattr(run, "measured", None)
    assert drawn("--from", str(tmp_path / "results.json")) in text


def test_the_page_has_a_place_for_the_table(benchmarks):
    tables = benchmarks("tables")
    page = (ROOT / "docs" / "benchmarks.md").read_text()
    assert "\nrow\n" in tables.replaced(page, "row\n")
    with pytest.raises(ValueError, match="once each"):
        tables.replaced("no marks", "row\n")


def test_a_figure_has_the_rows_of_most_peers_the_fastest_on_top(benchmarks):
    drawing, summary = benchmarks("drawing"), benchmarks("summary")
    first, second = (drawing.Series(name, name, "black") for name in ("one", "two"))
    lines = [
        summary.Line(name, ratio, ratio) for name, ratio in zip("abc", (1.0, 2.0, 9.0), strict=True)
    ]
    measured = {"one": lines, "two": lines[:2]}
    rows = drawing.rows_of(drawing.Group("", (first, second), 2), measured)
    assert [name for name, _ in rows] == ["b", "a"]
    assert rows[0].lines == [(first, lines[1]), (second, lines[1])]
    at = {"one": [summary.Line(f"{n}, 8 images of 160 px", n, None) for n in (2.0, 8.0)]}
    *_, mean = drawing.rows_of(drawing.Group("", (first,), 2, 160), at)
    assert mean.name == "2 networks at 160 px, mean"
    assert mean.lines == [(first, (mean.name, pytest.approx(4.0), None, None, None))]


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
    assert kinds == {"k": [("a", None, 3.0, None, 1.0)]}
    assert [*summary.sentences(kinds)] == ["k: 3.00 times as fast (oneDNN on 3.00)"]
    lines = [summary.Line(name, None if name == "a" else 2.0, 3.0) for name in "abc"]
    assert summary.with_mean(lines)[3:] == [
        ("geometric mean of 3", None, pytest.approx(3.0), None, None)
    ]


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
    monkeypatch.setattr(training, "MANY_SHAPES", ((3, 2), (2, 2, 2, 3, 2)))
    monkeypatch.setattr(training, "MODELS", {"tiny": ((2, 96),)})
    monkeypatch.setattr(training, "MODEL_XLA", ("tiny", 96))
    monkeypatch.setattr(training, "network", lambda name, size: tiny(size))
    rows = [*training.rows(1)]
    assert {row.kind.split(", against")[0] for row in rows} == {
        "Layer, training step",
        "Layer, training step, of many shapes",
        "Layer, training step compiled by XLA",
        "Layer, training step of a frozen one",
        "Layer, inference",
        "Model, first training step for batches of any size, converted against stock",
        "Model, first training step, converted against stock",
        "Model, training step for batches of any size, converted against stock",
        "Model, training step, converted against stock",
        "Model, training step with batch norms frozen, converted against stock",
        "Model, training step compiled by XLA, converted against stock",
        "population_statistics, a batch",
    }
    kinds = benchmarks("kinds")
    assert {row.name for row in rows if row.kind == kinds.LAYER_TF_KERAS} == {"(2, 3, 3, 4)", "(5, 4)"}
    assert all(row.onednn and row.peer > 0 for row in rows)
    assert all(row.subject > 0 for row in rows if not row.kind.startswith("population"))
    assert not [row for row in training.rows(1, 0) if row.kind.startswith("Model")]


def test_exports_are_measured(benchmarks, monkeypatch):
    serving = benchmarks("serving")
    monkeypatch.setenv("TF_ENABLE_ONEDNN_OPTS", "0")
    monkeypatch.setattr(serving, "MODELS", ("tiny",))
    monkeypatch.setattr(serving, "RUNTIME_SIZES", {"tiny": (160,)})
    monkeypatch.setattr(serving, "CHAINS", (2,))
    monkeypatch.setattr(serving, "of", lambda name, size: serving.trained(tiny(size)))
    rows = [*serving.rows(1)]
    assert [row.kind for row in rows] == [
        "SavedModel, as exported, against Keras' export",
        "SavedModel, constants, against Keras' export frozen",
        "ONNX Runtime, folded model, against Keras' export",
        "OpenVINO, folded model, against Keras' export",
        "LiteRT, folded model, against Keras' export",
        *["tfbn.fold against keras.models.clone_model"] * 3,
    ]
    assert not any(row.onednn for row in rows)


@pytest.mark.parametrize("number", range(3))
def test_a_runtime_serves_the_model_that_was_exported(benchmarks, tmp_path, number):
    serving, runtimes = benchmarks("serving"), benchmarks("runtimes")
    model, x = serving.trained(tiny(32)), np.random.default_rng(0).random((2, 32, 32, 3), "float32")
    runtime = runtimes.RUNTIMES[number]
    tfbn.export(model, tmp_path / runtime.file)
    found = runtime.load(tmp_path / runtime.file, x, 2)()
    found = next(iter(found.values())) if isinstance(found, dict) else found
    np.testing.assert_allclose(np.reshape(found, (2, 10)), model(x), rtol=1e-5)  # float32's rounding


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
