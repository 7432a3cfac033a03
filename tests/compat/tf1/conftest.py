"""Fixtures shared by the tests of TF1's façades."""

import pytest

import tf1_programs


@pytest.fixture(scope="module")
def original(request, tmp_path_factory):
    """What TF1's own function did in the programs that a test module lists in `CASES`."""
    folder = tmp_path_factory.mktemp("original")
    return tf1_programs.run_elsewhere("original", request.module.CASES, folder)
