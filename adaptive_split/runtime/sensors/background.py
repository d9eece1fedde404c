"""Sensors that may be slow are read on threads of their own; whoever asks gets the last value."""

from __future__ import annotations

import logging
import math
import threading
from collections.abc import Callable
from typing import Generic, TypeVar

from adaptive_split.clock import Clock, MonotonicClock

_log = logging.getLogger(__name__)
Value = TypeVar("Value")

_PATIENCE_S = 1.0
"""How long `close` waits for a reading that hangs."""


class Background(Generic[Value]):
    """Reads again and again; a reading that hangs or fails leaves the last value, which ages."""

    def __init__(
        self, read: Callable[[], Value], period_s: float, *, clock: Clock | None = None
    ) -> None:
        """Begin to read.

        Args:
            read: The sensor; what it raises counts as no value.
            period_s: Time between the end of a reading and the next.
            clock: Tells the age.
        """
        self._read, self._period_s, self._clock = read, period_s, clock or MonotonicClock()
        self._last: tuple[Value | None, float] = None, -math.inf
        self._ended = threading.Event()
        self._first = threading.Event()
        self._thread = threading.Thread(target=self._run, name="sensor", daemon=True)
        self._thread.start()

    def last(self) -> tuple[Value | None, float]:
        """The last value and its age in seconds; `None` and infinity before the first."""
        value, time_s = self._last
        return value, self._clock.now_s() - time_s

    def wait(self, timeout_s: float) -> bool:
        """Wait until a first reading has ended, well or not; tell whether one has."""
        return self._first.wait(timeout_s)

    def close(self) -> None:
        """Read no more; a reading that hangs is left behind."""
        self._ended.set()
        self._thread.join(_PATIENCE_S)

    def _run(self) -> None:
        while True:
            try:
                self._last = self._read(), self._clock.now_s()
            except Exception as error:  # of a driver, a daemon or a file: none may end the watch
                _log.debug("a sensor cannot be read: %r", error)
            self._first.set()
            if self._ended.wait(self._period_s):
                return
