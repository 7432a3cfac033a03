"""What docs/how-folding-works.md shows: its code, run as doctests, and its drawing."""

import doctest
import importlib
import re
import sys
from pathlib import Path

import numpy as np
import pytest

pytestmark = pytest.mark.checkout

DOCS = Path(__file__).parent.parent / "docs"


def blocks():
    """The code on the page: that of each block."""
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


def test_the_code_on_folding_gives_the_output_that_the_page_shows():
    run("\n".join(blocks()))


@pytest.fixture
def drawing(monkeypatch):
    monkeypatch.syspath_prepend(str(DOCS / "drawings"))
    yield importlib.import_module("folding")
    sys.modules.pop("folding")


def test_the_drawing_of_folding_is_what_its_script_draws(drawing):
    assert (DOCS / "folding.svg").read_text() == drawing.draw()


def test_the_drawing_shows_the_model_of_the_page(drawing):
    drawn, shown = drawing.example(), run(blocks()[0])["model"]
    assert len(drawn.layers) == len(shown.layers)
    for layer in drawn.layers:
        other = shown.get_layer(layer.name)
        assert type(other) is type(layer)
        for weight, value in zip(layer.get_weights(), other.get_weights(), strict=True):
            np.testing.assert_array_equal(weight, value)
