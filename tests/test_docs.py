"""The pages: their code prints what they show, their links lead somewhere, each name has its place."""

import doctest
import importlib
import inspect
import re
import sys

import numpy as np
import pytest

import pages
import tfbn
from paths import ROOT
from sweeps import some
from tfbn import compat

pytestmark = pytest.mark.both
DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", *sorted(DOCS.glob("*.md"))]
TRAINING = ("evaluation-is-bad", "small-batches")  # for a quarter of a minute each
WITH_CODE = [page for page in PAGES[1:] if pages.steps(page.read_text())]  # README's is run below


@pytest.mark.parametrize(
    "page",
    some(WITH_CODE, [page for page in WITH_CODE if page.stem not in TRAINING]),
    ids=lambda page: page.stem,
)
@pytest.mark.checkout
def test_a_page_prints_what_it_shows(page, tmp_path):
    pages.check(page.read_text(), tmp_path)


def test_the_readme_prints_what_it_shows_wherever_it_is_installed(tmp_path):
    assert pages.check((ROOT / "README.md").read_text(), tmp_path) == 1


@pytest.mark.parametrize(
    ("want", "got"),
    [
        ("accuracy 0.98", "accuracy 0.98\n"),
        ("accuracy 0.98", "accuracy 0.93"),
        ("off by 2e-07", "off by 1.2e-08"),
        ("10 deviations off, 3", "9.7 deviations off, 3"),
        ("in … ms", "in 3.5 ms"),
        ("first\n…\nlast", "first\na\nb\nlast"),
        ("a  b", "a b  \n"),
    ],
)
def test_outputs_that_agree(want, got):
    assert pages.agree(want, got)


@pytest.mark.parametrize(
    ("want", "got"),
    [
        ("accuracy 0.98", "accuracy 0.11"),
        ("accuracy 0.98", "accuracy nan"),
        ("2 batch norms", "3 batch norms"),
        ("lagging", "fine"),
        ("first\n…\nlast", "first\nother"),
        ("", "something"),
    ],
)
def test_outputs_that_do_not(want, got):
    assert not pages.agree(want, got)


def test_what_a_page_prints_is_compared(tmp_path):
    page = "```python\nprint(1)\n```\n\n```text\n2\n```\n"
    with pytest.raises(AssertionError, match=r"prints\s+1\s+and not\s+2"):
        pages.check(page, tmp_path)


def anchors(page):
    """Those of a page's headings, as they are made of them where it is browsed."""
    headings = re.findall(r"^#+ (.*)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}


@pytest.mark.checkout
@pytest.mark.parametrize("page", [*PAGES, ROOT / "CONTRIBUTING.md", *DOCS.glob("reference/*.md")])
def test_links_lead_somewhere(page):
    text = re.sub(r"```.*?```|`[^`\n]+`", "", page.read_text(), flags=re.DOTALL)
    for link in re.findall(r"\]\(([^)\s]+)\)", text):
        if not link.startswith("https://"):
            path, _, anchor = link.partition("#")
            target = page.parent.joinpath(path) if path else page
            assert target.exists(), link
            assert not anchor or anchor in anchors(target), link


@pytest.mark.checkout
def test_every_page_is_in_the_navigation():
    navigation = (ROOT / "mkdocs.yml").read_text()
    for page in DOCS.rglob("*.md"):
        assert f": {page.relative_to(DOCS)}\n" in navigation, page


def public_names():
    """Every public class and function: the name in the reference, and itself."""
    found = {f"tfbn.{name}": getattr(tfbn, name) for name in tfbn.__all__}
    for module in (found.pop("tfbn.callbacks"), found.pop("tfbn.functional")):
        names = getattr(module, "__all__", ("Recalibrate", "Monitor"))
        found |= {f"{module.__name__}.{name}": getattr(module, name) for name in names}
    del found["tfbn.compat"]
    return found | {f"compat.{name}": getattr(compat, name) for name in compat.__all__}


@pytest.mark.checkout
def test_the_reference_has_every_public_name_once():
    text = "".join(page.read_text() for page in DOCS.glob("reference/*.md"))
    assert sorted(re.findall(r"^      heading: (.*)$", text, re.MULTILINE)) == sorted(public_names())
    for path, heading in re.findall(r"^::: (\S+)\n.*\n +heading: (\S+)", text, re.MULTILINE):
        package, *names = path.split(".")
        module = importlib.import_module(f"{'tfbn.' * (package == 'compat')}{package}")
        if package == "tfbn":
            module, names = importlib.import_module(".".join(["tfbn", *names[:-1]])), names[-1:]
        assert getattr(module, names[0]) is public_names()[heading], path


def test_every_public_name_has_an_example_that_runs():
    documented = {name: inspect.getdoc(each) or "" for name, each in public_names().items()}
    lacking = {name for name, text in documented.items() if ">>> " not in text}
    assert not lacking, f"no example in the docstrings of {', '.join(lacking)}"


def test_examples_in_docstrings_are_short():
    for name, each in public_names().items():
        for example in doctest.DocTestFinder(recurse=False).find(each, name):
            assert sum(part.source.count("\n") for part in example.examples) < 8, name


def blocks():
    """The code on the page on folding: that of each block."""
    text = (DOCS / "how-folding-works.md").read_text()
    found = re.findall(r"^```python\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)
    assert text.count("```") == 2 * len(found) > 0  # there are no others
    return found


def run(code):
    """Runs doctests, and returns what they define."""
    test = doctest.DocTestParser().get_doctest(code, {}, "how-folding-works.md", None, 0)
    report = []
    # Long lines of output are broken on the page.
    runner = doctest.DocTestRunner(optionflags=doctest.NORMALIZE_WHITESPACE)
    failed, tried = runner.run(test, out=report.append, clear_globs=False)
    assert not failed, "".join(report)
    assert tried
    return test.globs


@pytest.mark.checkout
def test_the_code_on_folding_gives_the_output_that_the_page_shows():
    run("\n".join(blocks()))


@pytest.fixture
def drawing(monkeypatch):
    monkeypatch.syspath_prepend(str(DOCS / "drawings"))
    yield importlib.import_module("folding")
    sys.modules.pop("folding")


@pytest.mark.checkout
def test_the_drawing_of_folding_is_what_its_script_draws(drawing):
    assert (DOCS / "folding.svg").read_text() == drawing.draw()


@pytest.mark.checkout
def test_the_drawing_shows_the_model_of_the_page(drawing):
    drawn, shown = drawing.example(), run(blocks()[0])["model"]
    assert len(drawn.layers) == len(shown.layers)
    for layer in drawn.layers:
        other = shown.get_layer(layer.name)
        assert type(other) is type(layer)
        for weight, value in zip(layer.get_weights(), other.get_weights(), strict=True):
            np.testing.assert_array_equal(weight, value)


@pytest.mark.checkout
def test_make_docs_fails_on_warnings():
    """Which mkdocs does not count if it is told to be quiet."""
    makefile = (ROOT / "Makefile").read_text()
    assert "mkdocs build --strict\n" in makefile
    assert "\nchecks:\n\t$(MAKE) lint\n\t$(MAKE) docs\n" in makefile
