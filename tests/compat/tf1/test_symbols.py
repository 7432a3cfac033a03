"""The table of TensorFlow 1's names, and docs/migrating.md, which shows it."""

import re

import pytest

from paths import ROOT
from tfbn.compat.tf1 import symbols

PAGE = ROOT / "docs" / "migrating.md"


def table():
    """The table of the page: modules but for the files within them, and what is gone."""
    lines = ["| `tf.` | from | otherwise |", "|---|---|---|"]
    for path, module in symbols.MODULES.items():
        if ".python" in path or path == "contrib" or path.count(".") > 2:
            continue
        sources = ", ".join(f"`{source}`" for source in module.sources)
        names = ", ".join(f"`{name}`" for name in module.names)
        lines.append(f"| `{path}` | {sources} | {names} |")
    lines += ["", "| gone | instead |", "|---|---|"]
    lines += [f"| `{path}` | {advice} |" for path, advice in symbols.GONE.items()]
    return "\n".join(lines)


@pytest.mark.checkout
def test_the_page_shows_the_table():
    found = re.search(r"<!-- symbols -->\n(.*)\n<!-- end of symbols -->", PAGE.read_text(), re.S)
    assert found[1] == table(), f"Between the comments of {PAGE} write:\n{table()}"


def test_every_target_is_named_as_module_and_attribute():
    for module in symbols.MODULES.values():
        for target in module.names.values():
            assert re.fullmatch(r"[\w.]+:\w+", target)


def test_what_is_gone_is_not_there_too():
    assert not symbols.GONE.keys() & symbols.MODULES.keys()
    for sentence in symbols.GONE.values():
        assert sentence.endswith(".")
    assert symbols.gone("contrib.rnn.LSTMCell") == symbols.GONE["contrib.rnn"]
    assert symbols.gone("contrib.layers.conv2d") is None
    assert symbols.location("contrib.layers", "batch_norm") != symbols.location("contrib.layers", "x")
    assert symbols.module_of("contrib.nothing") is None
