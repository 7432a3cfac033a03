"""Random numbers that are the same in each test, whatever the process ran before."""

import numpy as np

RANDOM = np.random.default_rng(0)


def reset():
    """Start again; before each test, and by fixtures that draw for several tests."""
    RANDOM.bit_generator.state = np.random.default_rng(0).bit_generator.state
