"""The page of a report in a real browser: sorted by its buttons, light and dark, without a network.

Where no Chromium is installed, or it does not start, the tests say so; CI installs one.
"""

import shutil
import subprocess

import keras
import numpy as np
import pytest
from matplotlib import image

import tfbn
from networks import chain

NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")
BROWSER = next(filter(None, map(shutil.which, NAMES)), None)
# Clicks a column's button so many times, and writes what a reader then sees into the title.
CLICK = """
<script>
const button = [...document.querySelectorAll("th button")].find((one) => one.textContent === "COLUMN");
for (let times = 0; times < TIMES; times++) button.click();
const cells = [...document.querySelectorAll("tbody tr")].map((row) => row.cells[AT].textContent);
document.title = JSON.stringify([button.closest("th").getAttribute("aria-sort"), cells]);
</script>
"""


@pytest.fixture(scope="module")
def report():
    """Of three layers whose variances are 1, 4 and 10 times too small, the middle one first in order."""
    model = chain((3,), *(tfbn.BatchNorm(name=name, decay=0.5) for name in ("middle", "least", "most")))
    for name, variance in (("middle", 0.25), ("least", 1.0), ("most", 0.1)):
        model.get_layer(name).moving_variance.assign(np.full(3, variance))
        model.get_layer(name).moving_mean.assign(np.full(3, 1e-3))
    keras.utils.set_random_seed(0)
    return tfbn.diagnose(model, np.random.default_rng(0).normal(size=(640, 3)), verbose=0)


def browse(*arguments, cwd):
    command = [BROWSER, "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"]
    # Whatever the page would ask the network for is not found.
    command += [f"--user-data-dir={cwd}/profile", "--host-resolver-rules=MAP * ~NOTFOUND"]
    command += ["--virtual-time-budget=2000", *arguments]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=True, timeout=300)


@pytest.fixture(scope="module", autouse=True)
def browser(tmp_path_factory):
    """Skips the tests, and says why, where there is no browser that shows a page."""
    if BROWSER is None:
        pytest.skip(f"none of {', '.join(NAMES)} is installed")
    folder = tmp_path_factory.mktemp("start")
    (folder / "page.html").write_text("<p>shown</p>")
    try:
        shown = browse("--dump-dom", f"file://{folder}/page.html", cwd=folder).stdout
    except (OSError, subprocess.SubprocessError) as error:
        pytest.skip(f"{BROWSER} does not start here: {error}")
    if "shown" not in shown:
        pytest.skip(f"{BROWSER} shows no page here")


@pytest.mark.parametrize(("times", "sort"), [(1, "ascending"), (2, "descending")])
@pytest.mark.parametrize("column", ["path", "drift"])
def test_a_column_sorts_by_its_button(report, column, times, sort, tmp_path):
    titles = [each.title for each in report.table().columns]
    at = next(number for number, each in enumerate(report.table().columns) if each.key == column)
    report.to_html(tmp_path / "page.html")
    script = CLICK.replace("COLUMN", titles[at]).replace("TIMES", str(times)).replace("AT", str(at))
    text = (tmp_path / "page.html").read_text()
    (tmp_path / "page.html").write_text(text.replace("</body>", f"{script}</body>"))
    shown = browse("--dump-dom", f"file://{tmp_path}/page.html", cwd=tmp_path).stdout
    title = shown.partition("<title>")[2].partition("</title>")[0]
    cells = [row[report.table().columns[at].key] for row in report.table().rows]
    want = sorted(cells, reverse=sort == "descending")
    got = title.replace("&quot;", '"')
    assert f'["{sort}",' in got
    positions = [got.index(f'"{each}"' if isinstance(each, str) else f'"{each:.2g}') for each in want]
    assert positions == sorted(positions), got


def test_it_is_light_or_dark_as_the_reader_likes(report, tmp_path):
    report.to_html(tmp_path / "page.html")
    brightness = []
    for number, settings in enumerate(([], ["--blink-settings=preferredColorScheme=0"])):
        picture = f"--screenshot={tmp_path}/{number}.png"
        page = f"file://{tmp_path}/page.html"
        browse(*settings, "--window-size=1200,600", picture, page, cwd=tmp_path)
        pixels = image.imread(tmp_path / f"{number}.png")[..., :3]
        assert pixels.shape[:2] == (600, 1200)
        assert pixels.std() > 0.01, "an empty page"
        brightness.append(float(np.median(pixels)))
    assert min(brightness) < 0.2, brightness
    assert max(brightness) > 0.8, brightness
