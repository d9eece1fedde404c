"""The circuit breaker: after failures in a row nothing is sent until a probe has succeeded."""

from __future__ import annotations

import threading

from adaptive_split.clock import Clock

FAILURES = 5
FIRST_WAIT_S, LONGEST_WAIT_S = 0.25, 2.0


class Breaker:
    """Closed, open, or half open while one probe is under way.

    Only failures of the link count: a late reply comes from a slow link, and the controller sees
    that one itself. Safe to use from several threads.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._failures = 0
        self._reason = ""
        self._wait_s = FIRST_WAIT_S
        self._probe_at_s = 0.0
        self._probing = False

    @property
    def reason(self) -> str:
        """Why nothing may be sent: `breaker` or `bundle`; empty while requests may go."""
        return self._reason

    def succeed(self) -> None:
        """Note a reply; closes the breaker, unless it is open because of the bundle."""
        with self._lock:
            self._failures = 0
            if self._reason != "bundle":
                self._close()

    def close(self) -> None:
        """Note that the server is there with the right bundle."""
        with self._lock:
            self._close()

    def fail(self) -> None:
        """Note an unreachable server; the fifth in a row, or a failed probe, opens the breaker."""
        with self._lock:
            self._failures += 1
            if self._probing or (not self._reason and self._failures >= FAILURES):
                self._open(self._reason or "breaker")

    def refuse(self, reason: str) -> None:
        """Open at once, for a reason that no retry of a frame would change."""
        with self._lock:
            if self._probing or not self._reason:
                self._open(reason)

    def take_probe(self) -> bool:
        """Ask for the one probe that may go out now; the caller must then report its outcome."""
        with self._lock:
            due = bool(self._reason) and self._clock.now_s() >= self._probe_at_s
            if not due or self._probing:
                return False
            self._probing = True
            return True

    def _close(self) -> None:
        self._failures, self._reason = 0, ""
        self._wait_s, self._probing = FIRST_WAIT_S, False

    def _open(self, reason: str) -> None:
        self._reason, self._probing = reason, False
        self._probe_at_s = self._clock.now_s() + self._wait_s
        self._wait_s = min(2 * self._wait_s, LONGEST_WAIT_S)
