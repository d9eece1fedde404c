"""Time as an object that is handed in, so that tests own it."""

from __future__ import annotations

import time
from typing import Protocol


class Clock(Protocol):
    """A monotonic clock."""

    def now_s(self) -> float:
        """Seconds since an arbitrary start; never goes back."""
        ...

    def sleep_until(self, moment_s: float) -> None:
        """Return no earlier than `moment_s`; at once if it has passed."""
        ...


class MonotonicClock:
    """The machine's monotonic clock."""

    def now_s(self) -> float:
        """Seconds of `time.monotonic`."""
        return time.monotonic()

    def sleep_until(self, moment_s: float) -> None:
        """Sleep until `moment_s` on `time.monotonic`."""
        rest = moment_s - time.monotonic()
        if rest > 0:
            time.sleep(rest)
