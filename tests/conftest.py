"""Fixtures shared by the tests; TensorFlow is imported once for each test process."""

import gc
import os
import sys
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import pytest
from click.testing import CliRunner
from hypothesis import HealthCheck, settings

pytest.register_assert_rewrite(*(path.stem for path in Path(__file__).with_name("helpers").glob("*.py")))

import draws  # noqa: E402  after that, or their assertions tell nothing
import networks  # noqa: E402
from tfbn.cli import main  # noqa: E402

# A run finds what the run before found; `pytest --hypothesis-profile=explore` looks further. However
# slow the machine is: too_slow is the one health check that looks at a clock.
timeless = {"deadline": None, "suppress_health_check": [HealthCheck.too_slow]}
settings.register_profile("same", derandomize=True, **timeless)
settings.register_profile("explore", **timeless)
settings.load_profile("same")


@pytest.fixture(autouse=True)
def _reproducible():
    """The same random numbers, whatever tests the process ran before."""
    keras.utils.set_random_seed(0)
    draws.reset()
    yield
    keras.config.set_dtype_policy("float32")


@pytest.fixture(autouse=True)
def _tf_slim_as_it_was():
    """The names of TensorFlow 1 put our batch norm into tf_slim, once and for the whole process."""
    yield
    lookup = sys.modules.get("tfbn.compat.tf1.namespace.lookup")
    if lookup is not None and lookup._with_our_batch_norm.cache_info().currsize:
        lookup._with_our_batch_norm().__exit__(None, None, None)
        lookup._with_our_batch_norm.cache_clear()


@pytest.fixture(autouse=True, scope="module")
def _no_collection_reads_it_again():
    """What lives on from other files' tests and TensorFlow's caches is gigabytes by the end of a run."""
    gc.collect()
    gc.freeze()


@pytest.fixture
def unchanged():
    """Make a context that fails if anything a model saves is different afterwards."""
    return networks.unchanged


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Make the command `tfbn`, in a folder of its own and on a wide terminal."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")

    def command(*arguments):
        return CliRunner().invoke(main, arguments, catch_exceptions=False)

    return command
