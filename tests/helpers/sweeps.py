"""Sweeps: of many cases alike, `make test` runs some, and `make test-sweeps` the others."""

import pytest


def some(cases, kept):
    """The cases, for `pytest.mark.parametrize`: those that are not kept are marked `sweep`."""
    assert set(kept) <= set(cases)
    return [case if case in kept else pytest.param(case, marks=pytest.mark.sweep) for case in cases]
