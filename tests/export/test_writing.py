"""Where an export may be written, and what a failed one leaves: what was there."""

import os

import keras
import pytest

import reference
import tfbn
from exports import everything, wrong_fold
from networks import randomize, relative_difference
from tfbn.export.formats.savedmodel import SavedModel
from tfbn.files import atomic

# Of models with random statistics, on samples of any kind.
pytestmark = pytest.mark.filterwarnings("ignore:The inputs of these batch norms are far")


def test_an_existing_path_is_refused_or_replaced(model, tmp_path, serve):
    path = tmp_path / "m"
    tfbn.export(model, path)
    before = everything(tmp_path)
    with pytest.raises(
        FileExistsError, match="m exists already. Choose another path, or pass overwrite=T"
    ):
        tfbn.export(model, path)
    assert everything(tmp_path) == before
    other = randomize(keras.models.clone_model(model), seed=9)
    tfbn.export(other, path, overwrite=True)
    assert os.listdir(tmp_path) == ["m"]
    x = reference.data((5, 8, 8, 3))
    assert relative_difference(serve(path, x=x)["output_0"], other(x)) < 1e-5


def test_overwrite_replaces_savedmodels_only(model, tmp_path):
    (tmp_path / "thesis.tex").write_text("years of work")
    tfbn.export(model, tmp_path / "m")
    (tmp_path / "m" / "notes.txt").write_text("years of work")
    before = everything(tmp_path)
    for path in (tmp_path, tmp_path / "thesis.tex", tmp_path / "m"):
        with pytest.raises(FileExistsError, match="is not just a SavedModel .* so it is not replaced"):
            tfbn.export(model, path, overwrite=True)
    assert everything(tmp_path) == before
    (tmp_path / "empty").mkdir()
    tfbn.export(model, tmp_path / "empty", overwrite=True)


def test_places_that_cannot_be_written_are_named_before_any_work(model, tmp_path, monkeypatch):
    monkeypatch.setattr(tfbn.folding, "fold", interrupted)
    (tmp_path / "file").write_text("")
    with pytest.raises(
        OSError, match="file/m cannot be written: Not a directory at .*file. Choose another"
    ):
        tfbn.export(model, tmp_path / "file" / "m")
    with pytest.raises(ValueError, match="export writes to local directories, received gs://bucket/m"):
        tfbn.export(model, "gs://bucket/m")
    with pytest.raises(ValueError, match=r"takes \*, \? and \[ in paths for patterns, received m\[1\]"):
        tfbn.export(model, "m[1]")


def interrupted(*arguments):
    raise KeyboardInterrupt


def disk_full(*arguments, **keywords):
    raise OSError(28, "No space left on device")


def disk_full_after_some_files(writer, servable, path):
    path.mkdir()
    (path / "saved_model.pb").write_bytes(b"half")
    disk_full()


@pytest.mark.parametrize(
    ("existing", "where", "name", "instead", "error"),
    [
        (existing, *rest)
        for existing in (False, True)
        for rest in (
            (tfbn.folding, "fold", wrong_fold, tfbn.ExportError),
            (SavedModel, "reload", interrupted, KeyboardInterrupt),
            (SavedModel, "write", disk_full_after_some_files, OSError),
            (atomic, "_replace", disk_full, OSError),
        )
    ],
)
def test_a_failed_export_leaves_what_was_there(
    model, existing, where, name, instead, error, tmp_path, monkeypatch
):
    path = tmp_path / "m"
    if existing:
        tfbn.export(model, path)
    before = everything(tmp_path)
    monkeypatch.setattr(where, name, instead)
    with pytest.raises(error):
        tfbn.export(model, path, overwrite=True)
    assert everything(tmp_path) == before


def test_a_savedmodel_holds_no_other(model, tmp_path):
    tfbn.export(model, tmp_path / "m")
    before = everything(tmp_path)
    with pytest.raises(FileExistsError, match=r"m is a SavedModel itself\. Choose a path beside it"):
        tfbn.export(model, tmp_path / "m" / "2")
    assert everything(tmp_path) == before
