"""Under which name a TF1 checkpoint has a variable."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Container, Iterable, Mapping
from typing import Any, NamedTuple

# What Keras' layers call their weights, and what contrib's, slim's and tf.keras' did.
OTHER_NAMES = {
    "kernel": ("weights", "depthwise_weights", "depthwise_kernel"),
    "bias": ("biases",),
    "depthwise_kernel": ("depthwise_weights",),
    "pointwise_kernel": ("pointwise_weights",),
}
SHADOW = "/ExponentialMovingAverage"
CORRECTION = ("/moving_mean/biased", "/moving_mean/local_step")  # of a moving mean's start at 0


class Found(NamedTuple):
    """Where a variable may come from.

    Attributes:
        options: the best first, names in the checkpoint: one, or those of all parts of a variable.
        asked: the names that were looked for.
        ambiguous: names that are the same once `/` is `_`.
    """

    options: list[tuple[str, ...]]
    asked: list[str]
    ambiguous: list[str]


class Search:
    """Finds in a checkpoint what a model names in its own way.

    Args:
        stored: names in the checkpoint.
        name_map: a mapping of whole names, scopes and last parts, a function, or `None`.
        moving_averages: whether the shadow of `tf.train.ExponentialMovingAverage` stands for a variable
            that has one.

    Raises:
        TypeError: `name_map` is neither, or gives something that is no name.
    """

    def __init__(self, stored: Iterable[str], name_map: Any, moving_averages: bool) -> None:
        if not (name_map is None or callable(name_map) or isinstance(name_map, Mapping)):
            raise TypeError(f"name_map must be a mapping of names or a function, received {name_map!r}.")
        self._rename: Callable[[str], Any] = name_map if callable(name_map) else _by(name_map or {})
        self._keys: dict[str, tuple[str, ...]] = {name: (name,) for name in stored}
        if moving_averages:
            shadows = [name for name in self._keys if name.endswith(SHADOW)]
            self._keys |= {name.removesuffix(SHADOW): (name,) for name in shadows}
        for name in [name.removesuffix("/part_0") for name in self._keys if name.endswith("/part_0")]:
            parts = [self._keys[part] for part in parts_of(name, self._keys)]
            self._keys.setdefault(name, sum(parts, ()))
        self._flattened: dict[str, list[str]] = {}
        for name in self._keys:
            self._flattened.setdefault(_flat(name), []).append(name)

    def find(self, name: str, flattened: bool) -> Found:
        """The names in the checkpoint of what the model calls `name`.

        Args:
            name: in the model; of a partitioned variable its part, `…/part_1`.
            flattened: whether the model's scopes may have `_` for `/`.
        """
        found = Found([], [], [])
        name = _undoubled(name)
        base, part = split_part(name)
        for asked in [name] if part is None else [name, base]:
            renamed = self._rename(asked)
            if renamed is None and asked != base:
                continue  # the map knows the variable as a whole
            if not isinstance(renamed, str):
                raise TypeError(
                    f"name_map gave {renamed!r} for {asked!r}. It must give a name to look for: that "
                    "one itself, if it is the same. What is to stay as it is belongs into exclude."
                )
            spellings = _spellings(renamed)
            found.asked.extend(spellings)
            hits = [spelling for spelling in spellings if spelling in self._keys]
            if not hits and flattened:
                lists = [self._flattened.get(_flat(spelling), []) for spelling in spellings]
                hits = next((matches for matches in lists if matches), [])
                found.ambiguous.extend(sorted(hits) if len(hits) > 1 else [])
            found.options.extend(self._keys[spelling] for spelling in hits[:1])
        return found


def parts_of(name: str, names: Container[str]) -> list[str]:
    """The names of the parts of a partitioned variable, as far as they follow each other from 0."""
    every = (f"{name}/part_{number}" for number in itertools.count())
    return list(itertools.takewhile(names.__contains__, every))


def split_part(name: str) -> tuple[str, int | None]:
    """A name like `conv/weights/part_1` as the variable's and the part's number, `None` for no part."""
    base, _, number = name.rpartition("/part_")
    return (base, int(number)) if base and number.isdecimal() else (name, None)


def _by(mapping: Mapping[str, str]) -> Callable[[str], Any]:
    """A function that renames by whole names, else by scopes and last parts."""

    def rename(name: str) -> Any:
        if name in mapping:
            return mapping[name]
        scope, _, last = name.rpartition("/")
        last = mapping.get(last, last)
        around = [outer for outer in mapping if not outer or f"{scope}/".startswith(f"{outer}/")]
        longest = max(around, key=len, default=None)
        if longest is not None:
            scope = f"{mapping[longest]}/{scope[len(longest) :].strip('/')}".strip("/")
        return f"{scope}/{last}" if scope else last

    return rename


def _spellings(name: str) -> list[str]:
    """The name, and what else the same variable was called."""
    scope, slash, last = name.rpartition("/")
    names = [name, *(f"{scope}{slash}{other}" for other in OTHER_NAMES.get(last, ()))]
    for ending in CORRECTION:
        if name.endswith(ending):  # the last releases put it below the path, once more
            names.append(f"{name.removesuffix(ending)}/{name}")
    return names


def _undoubled(name: str) -> str:
    """`a/moving_mean/biased` of `a/a/moving_mean/biased`, as the last releases and compat call it."""
    for ending in CORRECTION:
        scope = name.removesuffix(ending)
        half = scope[: len(scope) // 2]
        if scope != name and scope == f"{half}/{half}":
            return f"{half}{ending}"
    return name


def _flat(name: str) -> str:
    scope, slash, last = name.rpartition("/")
    return scope.replace("/", "_") + slash + last
