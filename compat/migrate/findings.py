"""What is said of a file besides its diff."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True, order=True)
class Finding:
    """One line of the report: where, and what to do."""

    line: int
    text: str


@dataclass(frozen=True)
class Result:
    """What became of a file.

    Attributes:
        path: as it was given.
        diff: of its bytes, or nothing if it stays.
        findings: by line.
        skipped: why it was not looked at, with `line`; or nothing.
        failed: why it was not written; or nothing.
    """

    path: str
    diff: bytes = b""
    findings: tuple[Finding, ...] = ()
    skipped: str = ""
    failed: str = ""
    line: int = field(default=1)

    def lines(self) -> list[str]:
        """The report, one line for each finding, as compilers write it."""
        said = [Finding(self.line, text) for text in (self.skipped, self.failed) if text]
        return [f"{self.path}:{finding.line}: {finding.text}" for finding in (*said, *self.findings)]
