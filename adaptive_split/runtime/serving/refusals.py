"""What a server refused: counted by reason, and told in the log without flooding it."""

from __future__ import annotations

import logging
import threading
from collections import Counter, OrderedDict
from dataclasses import dataclass

from adaptive_split.clock import Clock

_log = logging.getLogger(__name__)

LOG_EVERY_S = 10.0
"""One line per reason and device in that time; it tells how many it stands for."""
MAX_LINES = 1024
"""Pairs of reason and device remembered, so that inventing devices costs no memory."""


@dataclass(slots=True)
class _Line:
    next_s: float
    pending: int = 0


class Refusals:
    """Counts by reason since the start; any thread may add."""

    def __init__(self, clock: Clock, reasons: tuple[str, ...]) -> None:
        """Take all reasons there are, so that those that never occurred are counted as 0."""
        self._clock = clock
        self._counts = Counter(dict.fromkeys(reasons, 0))
        self._lines: OrderedDict[tuple[str, str], _Line] = OrderedDict()
        self._lock = threading.Lock()

    def counts(self) -> dict[str, int]:
        """How many requests were refused, by reason."""
        with self._lock:
            return dict(self._counts)

    def add(self, reason: str, device: str, why: str) -> None:
        """Count a refusal and, unless there was a line of late, log it."""
        with self._lock:
            self._counts[reason] += 1
            times = self._times_to_tell((reason, device))
        if times:
            _log.warning(
                "refused a request of %s (%s, %d since the last such line): %s",
                device, reason, times, why,
            )  # fmt: skip

    def _times_to_tell(self, key: tuple[str, str]) -> int:
        now_s = self._clock.now_s()
        line = self._lines.setdefault(key, _Line(now_s))
        self._lines.move_to_end(key)
        if len(self._lines) > MAX_LINES:
            self._lines.popitem(last=False)
        line.pending += 1
        if now_s < line.next_s:
            return 0
        times, line.pending, line.next_s = line.pending, 0, now_s + LOG_EVERY_S
        return times
