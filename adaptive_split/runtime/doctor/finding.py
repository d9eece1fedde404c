"""What a check found, how bad it is, and what to do about it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from adaptive_split.errors import ConfigError

GREEN, YELLOW, RED = "green", "yellow", "red"
LEVELS = (GREEN, YELLOW, RED)


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One row of a diagnosis."""

    subject: str
    level: str
    """`green`; `yellow`: works, with less; `red`: does not work."""
    found: str
    """What is the case."""
    advice: str = ""
    """What to do, in one line; of everything that is not green."""

    def __post_init__(self) -> None:
        """Refuse trouble without advice."""
        if self.level not in LEVELS or (self.level == GREEN) != (not self.advice):
            raise ConfigError(
                "a finding must be green, or yellow or red with advice; got "
                f"{self.level!r} and {self.advice!r}"
            )


def green(subject: str, found: str) -> Finding:
    """All is well."""
    return Finding(subject=subject, level=GREEN, found=found)


def yellow(subject: str, found: str, advice: str) -> Finding:
    """It works, with less."""
    return Finding(subject=subject, level=YELLOW, found=found, advice=advice)


def red(subject: str, found: str, advice: str) -> Finding:
    """It does not work."""
    return Finding(subject=subject, level=RED, found=found, advice=advice)


def worst(findings: Iterable[Finding]) -> str:
    """The worst level."""
    return max((finding.level for finding in findings), key=LEVELS.index, default=GREEN)


def examine(subject: str, check: Callable[[], Iterable[Finding]]) -> list[Finding]:
    """What a check finds; one that fails itself is a finding, and the others still come."""
    try:
        return list(check())
    except Exception as error:  # a broken machine breaks checks in ways that nobody foresees
        return [
            red(subject, f"the check failed: {error!r}", "report this as a bug, with this line")
        ]
