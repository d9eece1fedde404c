"""A metrics endpoint that is read again and again."""

from __future__ import annotations

from collections import deque

from adaptive_split.clock import Clock
from adaptive_split.errors import LinkError
from adaptive_split.runtime.addresses import host_and_port
from adaptive_split.runtime.telemetry.scrape import Change, Scrape, scrape

WINDOW = 11
"""Readings kept: read once a second, rates and quantiles are those of the last ten seconds."""


class Watched:
    """One endpoint: its last readings, since when it is silent, and why."""

    def __init__(self, address: str, clock: Clock) -> None:
        """Take `host:port`; nothing is asked yet.

        Raises:
            ConfigError: If it is no address.
        """
        host_and_port(address, "a metrics endpoint")
        self.address, self.problem = address, "not asked yet"
        self._clock = clock
        self._heard_s: float | None = None
        self._readings: deque[Scrape] = deque(maxlen=WINDOW)

    @property
    def answers(self) -> bool:
        """Whether it answered the last time."""
        return not self.problem

    @property
    def silent_s(self) -> float | None:
        """Time since it answered; `None` if it never did."""
        return None if self._heard_s is None else self._clock.now_s() - self._heard_s

    def look(self) -> None:
        """Read it once more; one that began anew is a new one."""
        try:
            found = scrape(self.address)
        except LinkError as error:
            self.problem = str(error)
            return
        if self._readings and not found.continues(self._readings[-1]):
            self._readings.clear()
        self.problem, self._heard_s = "", self._clock.now_s()
        self._readings.append(found)

    def window(self) -> Change | None:
        """The last seconds, or all since its start where it was read once; `None` before that."""
        return self._since(0)

    def second(self) -> Change | None:
        """What came since the reading before; `None` unless it just answered for a second time."""
        return self._since(-2) if self.answers and len(self._readings) > 1 else None

    def _since(self, index: int) -> Change | None:
        if not self._readings:
            return None
        newest, before = self._readings[-1], self._readings[index]
        return Change(newest) if before is newest else Change(newest, before)
