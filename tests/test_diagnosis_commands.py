"""The commands `tfbn inspect`, `tfbn diagnose` and `tfbn recalibrate`, as a user types them."""

import json

import keras
import pytest
from click.testing import CliRunner

import tfbn
from networks import chain
from tfbn.cli import main

L = keras.layers


@pytest.fixture
def run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")

    def command(*arguments):
        return CliRunner().invoke(main, arguments, catch_exceptions=False)

    return command


def test_inspect(run):
    model = chain((6, 6, 3), L.Conv2D(4, 3, name="conv"), tfbn.BatchNorm(name="bn"), L.ReLU())
    model.save("m.keras")
    done = run("inspect", "m.keras")
    assert done.exit_code == 0, done.output
    for text in (f"{model.name}: 1 batch norm, nothing remarkable by the", "BatchNorm", "into conv"):
        assert text in done.output
    parsed = json.loads(run("inspect", "m.keras", "--json").output)
    assert parsed == tfbn.inspect(model).as_dict()


def test_inspect_of_what_is_no_model(run, tmp_path):
    (tmp_path / "text.keras").write_text("no model")
    done = run("inspect", "text.keras")
    assert done.exit_code == 1
    assert "text.keras cannot be loaded as a Keras model: it is no .keras (zip) file." in done.output
