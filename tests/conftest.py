"""Fixtures shared by the tests; TensorFlow is imported once for each test process."""

import os
from contextlib import contextmanager

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
import pytest
from hypothesis import HealthCheck, settings

import draws

pytest.register_assert_rewrite("folds", "tf1_programs", "tf1_networks", "tf1_checkpoints")

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


@pytest.fixture
def unchanged():
    """Make a context that fails if anything a model saves is different afterwards."""

    @contextmanager
    def check(model):
        def state():
            return [variable.numpy() for variable in model.variables]

        before, config = state(), model.get_config() if hasattr(model, "inputs") else None
        yield
        after = state()
        assert len(before) == len(after)
        for old, new in zip(before, after, strict=True):
            np.testing.assert_array_equal(old, new)
        assert config is None or config == model.get_config()

    return check
