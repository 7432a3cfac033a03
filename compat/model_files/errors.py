"""What is raised of a legacy model that cannot be loaded."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager


class LegacyModelError(ValueError):
    """A model of Keras 1 or 2 cannot be loaded; nothing of it was returned.

    Attributes:
        path: the file, as it was passed.
        part: the part of it: an attribute, a group, a layer.
        problem: what is wrong, and what to do.

    >>> from tfbn import compat
    >>> try:
    ...     compat.load_model("missing.h5")
    ... except compat.LegacyModelError as error:
    ...     print(error.path)
    missing.h5
    """

    def __init__(self, problem: str, part: str = "") -> None:
        super().__init__(problem, part)
        self.problem, self.part, self.path = problem, part, ""

    def __str__(self) -> str:
        return ": ".join(text for text in (self.path, self.part, self.problem) if text)


class UnsupportedLayerError(LegacyModelError):
    """A layer, or a setting of one, that Keras 3 has nothing for.

    >>> issubclass(UnsupportedLayerError, LegacyModelError)
    True
    """


@contextmanager
def translated(part: str, problem: str) -> Iterator[None]:
    """Turn whatever a library raises into a `LegacyModelError`.

    Args:
        part: of the file.
        problem: the message, with `{}` for what the library said, of which a part is enough.
    """
    try:
        yield
    except LegacyModelError:
        raise
    except Exception as error:
        said = f"{type(error).__name__}: {error}"[:1400]
        raise LegacyModelError(problem.format(said), part) from error
