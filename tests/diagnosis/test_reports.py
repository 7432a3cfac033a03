"""Reports as rows, JSON, pages and pictures."""

import html.parser
import json
import re
import sys

import keras
import numpy as np
import pytest
from matplotlib.figure import Figure

import tfbn
from tfbn.diagnosis.diagnosis import LayerDiagnosis, worst_first
from tfbn.diagnosis.evidence import Evidence
from tfbn.diagnosis.layers import LayerNumbers
from tfbn.diagnosis.verdicts import judge
from tfbn.population.drift import MeanAndVariance
from trainings import X, Y

VOID = {"meta", "br", "hr", "img", "link", "input"}


class Page(html.parser.HTMLParser):
    """The cells of the rows of a page, and its balance of tags."""

    def __init__(self, text):
        super().__init__()
        self.open, self.rows, self.attributes = [], [], []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.attributes += attrs
        if tag not in VOID:
            self.open.append(tag)
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if {"td", "th"} & set(self.open):
            self.rows[-1][-1] += data


def evidence(path="bn", position=0, channels=8, held=0.4, seed=0, steps=None):
    """A layer that holds a share of its initial values."""
    rng = np.random.default_rng(seed)
    population = MeanAndVariance(rng.normal(1, 1, channels), rng.uniform(2, 9, channels))
    numbers = LayerNumbers(
        path,
        "BatchNorm",
        -1,
        0.99,
        1e-3,
        None,
        rng.normal(1, 0.2, channels),
        np.zeros(channels),
        (1 - held) * population.mean,
        held + (1 - held) * population.variance,
        position=position,
    )
    return Evidence(numbers, population, 5000, 5000, 50, steps=steps)


def diagnosis(count, left=None):
    seen = [evidence(f"<i>{n}/bn", n, held=0.5 * (n % 3 == 0), seed=n) for n in range(count)]
    layers = {each.numbers.path: LayerDiagnosis.of(each, judge(each)) for each in seen}
    return tfbn.Diagnosis("net", worst_first(layers), left or {})


def test_numbers_are_those_of_float64():
    seen = evidence()
    mean, variance = seen.population
    moving_mean, moving_variance = 0.6 * mean, 0.4 + 0.6 * variance
    np.testing.assert_allclose(seen.shift, (moving_mean - mean) / np.sqrt(variance + 1e-3))
    np.testing.assert_allclose(seen.variance_ratio, (moving_variance + 1e-3) / (variance + 1e-3))
    # By definition: the root of the mean square between values normalised in both ways.
    x = np.random.default_rng(0).normal(size=(200_000, 1))
    x = (x - x.mean()) / x.std() * np.sqrt(variance) + mean
    both = [(x - m) / np.sqrt(v + 1e-3) for m, v in ((mean, variance), (moving_mean, moving_variance))]
    channels = np.sqrt(np.mean((both[0] - both[1]) ** 2, 0))
    np.testing.assert_allclose(seen.channel_drift, channels, rtol=1e-6)
    assert seen.drift == pytest.approx(np.sqrt(np.mean(channels**2)), rel=1e-6)
    share, rest = seen.residue_found()
    assert share == pytest.approx(0.4, abs=0.005)
    assert rest < 0.01


def test_more_steps_hold_less_of_the_initial_values():
    """0.99^50 is 0.6, and 0.99^500 too little to explain that 0.4 is held."""
    assert judge(evidence(held=0.4, steps=50)).verdict == "lagging"
    assert judge(evidence(held=0.4, steps=500)).verdict == "other data"


def test_a_channel_alone_condemns_no_layer():
    seen = evidence(channels=512, held=0)
    seen.numbers.moving_mean[3] = 1e6
    assert judge(seen).verdict == "fine"
    assert judge(evidence(channels=512, held=0.6)).verdict == "lagging"


def test_scatter_is_that_of_batches(healthy):
    """The share of variance between batches, against NumPy on the inputs of the first layer."""
    kernel = np.asarray(healthy.layers[0].kernel, "float64")
    padded = np.pad(X[:640, ..., 0].astype("float64"), ((0, 0), (1, 1), (1, 1)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), axis=(1, 2))
    inputs = np.einsum("nhwij,ijc->nhwc", windows, kernel[:, :, 0])
    batches = inputs.reshape(20, -1, 8)
    share = batches.mean(1).var(0, ddof=1) / inputs.reshape(-1, 8).var(0)
    seen = tfbn.diagnose(healthy, X[:640], verbose=0).layers["first"].evidence
    np.testing.assert_allclose(seen.between, share, rtol=1e-4)
    # No more are counted than there are.
    assert seen.values_a_batch == pytest.approx(min(1 / np.median(share), 32 * 64), rel=1e-4)
    assert (seen.samples, seen.batches) == (640, 20)


def test_effect_is_that_of_recalibration(lagging, unchanged):
    with unchanged(lagging):
        report = tfbn.diagnose(lagging, (X[:500], Y[:500]), verbose=0)
        before = lagging.evaluate(X[:500], Y[:500], verbose=0, return_dict=True)
    assert report.effect.before == pytest.approx(before)
    weights = lagging.get_weights()
    tfbn.recalibrate(lagging, X[:500], verbose=0)
    after = lagging.evaluate(X[:500], Y[:500], verbose=0, return_dict=True)
    recalibrated = np.asarray(lagging(X[:32]))
    lagging.set_weights(weights)
    assert report.effect.after == pytest.approx(after, rel=1e-4)
    change = recalibrated - np.asarray(lagging(X[:32]))
    size = np.sqrt(np.mean(np.square(np.asarray(lagging(X[:32])))))
    assert report.effect.outputs == pytest.approx(np.sqrt(np.mean(change**2)) / size, rel=1e-3)
    text = f"accuracy from {before['accuracy']:.4g} to {after['accuracy']:.4g}"
    assert text in report.summary
    assert report.summary.startswith(f"{lagging.name}: of its 3 batch norms, 3 lag behind the data.")
    assert tfbn.diagnose(lagging, iter([X[:64]]), verbose=0).effect is None


def test_rows_print_and_json(lagging):
    report = tfbn.diagnose(lagging, X[:320], verbose=0)
    rows = report.rows()
    assert [row["path"] for row in rows] == [*report.layers]
    assert [row["drift"] for row in rows] == sorted((row["drift"] for row in rows), reverse=True)
    assert rows[0].keys() >= {"class", "channels", "decay", "frozen by", "verdict", "reason", "remedy"}
    text = str(report)
    for expected in (report.summary, "lagging", "first", "Call tfbn.recalibrate(model, data)"):
        assert " ".join(expected.split()) in " ".join(text.split())
    parsed = json.loads(json.dumps(report.as_dict(), allow_nan=False))
    assert parsed["layers"][0]["verdict"] == "lagging"
    assert parsed["fine"] is report.fine is False


@pytest.mark.parametrize("count", [0, 3, 300])
def test_pages(count, tmp_path):
    report = diagnosis(count, left={"c<>": "training does not call it"})
    report.to_html(tmp_path / "d.html")
    text = (tmp_path / "d.html").read_text(encoding="utf-8")
    page = Page(text)
    assert len(page.rows) == 1 + count + 1
    assert [row[0] for row in page.rows[1:]] == [*report.layers, "c<>"]
    assert [row[1] for row in page.rows[1:-1]] == [layer.verdict for layer in report.layers.values()]
    assert page.rows[-1][-1] == "left: training does not call it"
    assert len({len(row) for row in page.rows}) == 1
    assert not re.search(r"https?:|//\w|@import|url\(", text)
    assert not {"src", "href"} & {name for name, _ in page.attributes}
    assert "prefers-color-scheme: dark" in text
    report.to_html(tmp_path / "d.html")  # again, over the first
    assert [path.name for path in tmp_path.iterdir()] == ["d.html"]


def test_the_page_of_an_inspection(healthy, tmp_path):
    tfbn.inspect(healthy).to_html(tmp_path / "i.html")
    page = Page((tmp_path / "i.html").read_text(encoding="utf-8"))
    assert [row[0] for row in page.rows[1:]] == ["first", "second", "third"]


@pytest.mark.parametrize("count", [3, 300])
def test_pictures(count, tmp_path):
    report = diagnosis(count)
    drawn = report.plot()
    assert isinstance(drawn, Figure)
    drift, variances, *_ = drawn.axes
    heights = [patch.get_height() for patch in drift.patches[:count]]
    order = sorted(report.layers.values(), key=lambda layer: layer.evidence.numbers.position)
    np.testing.assert_allclose(heights, [layer.evidence.drift for layer in order])
    assert sum(len(cloud.get_offsets()) for cloud in variances.collections) <= 4000
    named = [label.get_text() for label in drift.get_xticklabels()] == [f"<i>{n}/bn" for n in range(3)]
    assert named == (count == 3)
    drawn.savefig(tmp_path / "d.png")


def test_the_picture_of_an_inspection(healthy, tmp_path):
    drawn = tfbn.inspect(healthy).plot()
    assert len(drawn.axes) == 4
    medians = drawn.axes[0].lines[0].get_ydata()
    gammas = [np.median(healthy.get_layer(name).gamma) for name in ("first", "second", "third")]
    np.testing.assert_allclose(medians, gammas, rtol=1e-6)
    drawn.savefig(tmp_path / "i.png")


def test_without_matplotlib_the_error_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(ImportError, match=re.escape("is not installed: pip install 'tfbn[plot]'")):
        diagnosis(1).plot()


def test_what_cannot_be_diagnosed(healthy):
    with pytest.raises(
        TypeError, match="^model must be a keras.Model, received str: 'm.keras', where th"
    ):
        tfbn.diagnose("m.keras", X)
    plain = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)], name="m")
    with pytest.raises(ValueError, match="^The model 'm' has no batch norm to diagnose: it has none.$"):
        tfbn.diagnose(plain, X)
    with pytest.raises(ValueError, match="^steps must be a positive number of batches"):
        tfbn.diagnose(healthy, X, Y)
