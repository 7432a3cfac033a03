"""Who wrote a model: which release of Keras, on which backend."""

from __future__ import annotations

import re
from dataclasses import dataclass

from ..errors import LegacyModelError

Release = tuple[int, ...]
FIRST, LAST = (0, 3, 3), (2, 10**6)  # tf_keras goes on with Keras 2 beyond 2.15
BACKENDS = ("theano", "tensorflow", "cntk")


@dataclass(frozen=True)
class WriterInfo:
    """What is known of who wrote a model. What is not known is asked for only where it matters.

    Attributes:
        text: the release as the file or the caller wrote it.
        release: its numbers, maybe not all; empty if unknown.
        backend: one of `BACKENDS`, or `None`.
        generation: 1 or 2.
    """

    text: str | None
    release: Release
    backend: str | None
    generation: int

    @property
    def inside_tensorflow(self) -> bool:
        """Whether it was tf.keras, and not the package keras."""
        return bool(self.text and "tf" in self.text)

    def between(self, first: Release, last: Release) -> bool:
        """Whether it may be one of the releases `first` to `last`."""
        padded = self.release + (0,) * (3 - len(self.release))
        highest = self.release + (10**6,) * (3 - len(self.release))
        return not self.release or (padded <= last and highest >= first)

    def required_backend(self, part: str, why: str) -> str:
        """The backend, or an error that says why it matters and how to give it."""
        if self.backend is None:
            raise LegacyModelError(
                f"{why}, and the file does not say which backend wrote it. Pass backend='theano' or "
                "backend='tensorflow'",
                part,
            )
        return self.backend


def writer_info(
    versions: dict[str, str],
    backends: dict[str, str],
    keras_version: str | None,
    backend: str | None,
    *,
    like_keras2: bool,
) -> WriterInfo:
    """Bring together what the files and the caller say.

    Raises:
        LegacyModelError: they contradict each other; a release that this is not for; no backend of
            Keras.
    """
    if keras_version is not None:
        versions = versions | {"the argument keras_version": keras_version}
    if backend is not None:
        backends = backends | {"the argument backend": backend}
    text, release = _release(versions)
    for where, stated in backends.items():
        if stated not in BACKENDS:
            raise LegacyModelError(f"{stated!r} is no backend: one of {', '.join(BACKENDS)}", where)
    if len(set(backends.values())) > 1:
        raise LegacyModelError(f"the backends contradict each other: {_said(backends)}", "backend")
    generation = 1 if release < (2,) else 2
    if not release:
        generation = 2 if like_keras2 else 1
    return WriterInfo(text, release, next(iter(backends.values()), None), generation)


def _release(versions: dict[str, str]) -> tuple[str | None, Release]:
    """The release that all agree on, as its most exact form; architecture and weights may be of two."""
    text: str | None = None
    release: Release = ()
    for where, stated in versions.items():
        match = re.match(r"(\d{1,4})(?:\.(\d{1,4}))?(?:\.(\d{1,4}))?", stated)
        if not match:
            raise LegacyModelError(f"{stated!r} is no version of Keras, such as '1.2.2'", where)
        numbers = tuple(int(group) for group in match.groups() if group is not None)
        if numbers[:2] > LAST or numbers + (10**6,) * (3 - len(numbers)) < FIRST:
            raise LegacyModelError(
                f"Keras {stated} is neither of 0.3.3 to 1.2.2 nor of Keras 2. Load models of Keras 3 "
                "with keras.models.load_model",
                where,
            )
        shared = len(numbers) if where.startswith("the argument") else 1
        shared = min(shared, len(numbers), len(release)) if release else 0
        if numbers[:shared] != release[:shared] or (release and (numbers[0] < 2) != (release[0] < 2)):
            raise LegacyModelError(
                f"the versions contradict each other: {_said(versions)}", "keras_version"
            )
        # What statistics hold is up to the release that wrote the weights, which come last.
        if len(numbers) > len(release) or (where.startswith("weights") and len(numbers) == len(release)):
            text, release = stated, numbers
    return text, release


def _said(readers: dict[str, str]) -> str:
    return ", ".join(f"{where} is {value!r}" for where, value in readers.items())
