"""Sweeps: of many cases alike, `make test` runs some, and `make test-sweeps` the others."""

from itertools import product

import pytest


def some(cases, kept):
    """The cases, for `pytest.mark.parametrize`: those that are not kept are marked `sweep`."""
    assert set(kept) <= set(cases)
    return [case if case in kept else pytest.param(case, marks=pytest.mark.sweep) for case in cases]


def covering(every, cases):
    """One in `every` of the cases, dictionaries with more arguments at "kwargs", and what these lack.

    A case comes too if a value in it is in none of those before.
    """
    kept, seen = [], set()
    for case in [*(sample := cases[::every]), *cases]:
        own = {key: value for key, value in case.items() if key not in ("name", "kwargs")}
        values = {(key, repr(value)) for key, value in (own | case["kwargs"]).items()}
        if case not in kept and (case in sample or values - seen):
            kept.append(case)
        seen |= values
    return kept


def thinned(every, *axes):
    """All combinations, of which one in `every` or so is kept, among them each value of each axis.

    A tuple is a value for each of as many names.
    """
    cases, kept = [], []
    axes = [list(axis) for axis in axes]
    for places in product(*(range(len(axis)) for axis in axes)):
        case = []
        for axis, place in zip(axes, places, strict=True):
            case += axis[place] if isinstance(axis[place], tuple) else [axis[place]]
        keep = sum(places) % every == 0
        cases.append(pytest.param(*case, marks=[] if keep else [pytest.mark.sweep]))
        kept += [places] * keep
    assert [len(set(places)) for places in zip(*kept, strict=True)] == [len(axis) for axis in axes]
    return cases
