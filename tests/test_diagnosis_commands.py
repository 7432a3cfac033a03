"""The commands `tfbn inspect`, `tfbn diagnose` and `tfbn recalibrate`, as a user types them."""

import json

import keras
import numpy as np
import pytest

import tfbn
from networks import chain
from paths import DATA
from trainings import X, Y, conv, trained

L = keras.layers


@pytest.fixture(scope="module")
def lagging():
    return trained(conv, epochs=2, decay=0.999)


def test_inspect(run):
    model = chain((6, 6, 3), L.Conv2D(4, 3, name="conv"), tfbn.BatchNorm(name="bn"), L.ReLU())
    model.save("m.keras")
    done = run("inspect", "m.keras")
    assert done.exit_code == 0, done.output
    for text in (f"{model.name}: 1 batch norm, nothing remarkable by the", "BatchNorm", "into conv"):
        assert text in done.output
    parsed = json.loads(run("inspect", "m.keras", "--json").output)
    assert parsed == tfbn.inspect(model).as_dict()


@pytest.mark.parametrize("name", ["keras1/dense_mode0_full.h5", "keras2/keras-2.15.1.keras"])
def test_inspect_of_files_of_keras_1_and_2(run, name):
    parsed = json.loads(run("inspect", str(DATA / name), "--json").output)
    want = tfbn.inspect(tfbn.compat.load_model(DATA / name)).as_dict()
    for report in (parsed, want):  # a name that Keras numbers, and where it is told
        report.pop("summary"), report.pop("model")
    assert parsed == want
    assert len(parsed["layers"]) >= 1


def test_inspect_of_an_old_file_that_does_not_say_enough(run, tmp_path):
    (tmp_path / "m.h5").write_bytes((DATA / "keras1" / "conv_th_axis1_mode0_weights.h5").read_bytes())
    done = run("inspect", "m.h5")
    assert done.exit_code == 1
    assert "As a file of Keras 1 or 2: " in done.output
    assert "tfbn upgrade m.h5 NEW.keras has options. Keras says: " in done.output


def test_inspect_of_what_is_no_model(run, tmp_path):
    (tmp_path / "text.keras").write_text("no model")
    done = run("inspect", "text.keras")
    assert done.exit_code == 1
    assert "text.keras cannot be loaded as a Keras model: it is no .keras (zip) file." in done.output


@pytest.fixture
def lagging_file(lagging, tmp_path):
    lagging.save(tmp_path / "m.keras")
    np.savez(tmp_path / "x.npz", x=X[:640], y=Y[:640])


def test_diagnose(run, lagging, lagging_file, tmp_path):
    done = run("diagnose", "m.keras", "--data", "x.npz", "--html", "d.html")
    assert done.exit_code == 0, done.output
    report = tfbn.diagnose(lagging, (X[:640], Y[:640]), verbose=0)
    for text in ("of its 3 batch norms, 3 lag behind the data", "Call tfbn.recalibrate", "d.html"):
        assert text in done.output
    assert "lagging" in (tmp_path / "d.html").read_text(encoding="utf-8")
    parsed = json.loads(run("diagnose", "m.keras", "--data", "x.npz", "--json").output)
    assert parsed["effect"]["before"] == pytest.approx(report.effect.before)
    assert [row["verdict"] for row in parsed["layers"]] == ["lagging"] * 3
    assert "values a batch" in parsed["layers"][0]


def test_check_gives_the_exit_status_and_recalibrate_mends_it(run, lagging_file, tmp_path):
    assert run("diagnose", "m.keras", "--data", "x.npz", "--check").exit_code == 1
    done = run("recalibrate", "m.keras", "r.keras", "--data", "x.npz")
    assert done.exit_code == 0, done.output
    assert "3 of 3 batch norms measured" in done.output
    assert "Written to r.keras" in done.output
    assert run("diagnose", "r.keras", "--data", "x.npz", "--check").exit_code == 0
    expected = keras.models.load_model(tmp_path / "m.keras")
    tfbn.recalibrate(expected, X[:640], verbose=0)
    written = keras.models.load_model(tmp_path / "r.keras")
    for got, want in zip(written.get_weights(), expected.get_weights(), strict=True):
        np.testing.assert_array_equal(got, want)
    refused = run("recalibrate", "m.keras", "r.keras", "--data", "x.npz")
    assert refused.exit_code == 1
    assert "r.keras exists already. Pass --overwrite to replace it." in refused.output


def test_batches_and_steps(run, lagging, lagging_file):
    arguments = ("diagnose", "m.keras", "--data", "x.npz", "--json", "--batch-size", "4", "--steps", "5")
    (first, *_) = json.loads(run(*arguments).output)["layers"]
    assert first["values"] == 4 * 5 * 64
    report = tfbn.diagnose(lagging, [(x,) for x in np.split(X[:20], 5)], verbose=0)
    assert first["values a batch"] == pytest.approx(report.layers["first"].evidence.values_a_batch)


def test_several_inputs_by_name(run, tmp_path):
    a, b = keras.Input((3,), name="a"), keras.Input((3,), name="b")
    model = keras.Model([a, b], tfbn.BatchNorm(name="bn")(L.Add()([a, 2 * b])), name="m")
    model.save(tmp_path / "m.keras")
    rng = np.random.default_rng(0)
    given = {name: rng.normal(3, 2, (64, 3)).astype("float32") for name in "ab"}
    np.savez(tmp_path / "x.npz", **given)
    assert run("recalibrate", "m.keras", "r.keras", "--data", "x.npz").exit_code == 0
    mean = keras.models.load_model(tmp_path / "r.keras").get_layer("bn").moving_mean
    np.testing.assert_allclose(mean, (given["a"] + 2 * given["b"]).mean(0), rtol=1e-5)
    np.savez(tmp_path / "x.npz", a=given["a"], c=given["b"])
    done = run("diagnose", "m.keras", "--data", "x.npz")
    assert done.exit_code == 1
    message = (
        "x.npz holds the arrays a, c, and the inputs of 'm' are a, b. Name them so in numpy.savez, and"
    )
    assert message in done.output


def test_data_that_does_not_fit(run, lagging_file, tmp_path):
    np.savez(tmp_path / "x.npz", x=X[0])
    done = run("diagnose", "m.keras", "--data", "x.npz")
    assert done.exit_code == 1
    assert "That is one sample, not a batch" in done.output
    assert len(done.output.strip().splitlines()[-1].split("Error: ")) == 2
    assert run("diagnose", "m.keras").exit_code == 2
