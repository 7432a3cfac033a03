"""Where the tests' data and the repository's files are; the wheel is tested in a copy of both."""

from pathlib import Path

ROOT = Path(__file__).parents[2]
DATA = ROOT / "tests" / "data"
HELPERS = ROOT / "tests" / "helpers"  # for processes that import them
