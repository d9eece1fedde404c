"""The circuit breaker: after failures in a row nothing is sent until a probe has succeeded."""

from __future__ import annotations

import logging
import threading
from random import Random

from adaptive_split.clock import Clock

_log = logging.getLogger(__name__)

FAILURES = 5
FIRST_WAIT_S, LONGEST_WAIT_S = 0.25, 1.5
"""Between probes, doubled each time; the longest leaves as much again of the three seconds within
which a server that is back is to be used."""
LEAST_SHARE = 0.8
"""Devices that lost their server at once must not come back at once: waits are random, from this
share of their length on."""


class Breaker:
    """Closed, open, or half open while one probe is under way.

    After a probe has succeeded the breaker is closed on trial: the next failure opens it again, and
    the waits between probes go on growing, until a payload has been judged by the server. Safe to
    use from several threads.
    """

    def __init__(self, clock: Clock, random: Random | None = None) -> None:
        self._clock, self._random = clock, random or Random()
        self._lock = threading.Lock()
        self._failures = 0
        self._reason = ""
        self._trial = False
        self._wait_s = FIRST_WAIT_S
        self._probe_at_s = 0.0
        self._probing = False
        self._told: set[str] = set()
        self.epoch = 0
        """Counts the closings; what was sent before the last one proves nothing by failing."""

    @property
    def reason(self) -> str:
        """Why nothing may be sent: `breaker` or `bundle`; empty while requests may go."""
        return self._reason

    def rebase(self) -> None:
        """Go on where the clock has just restarted at 0: a probe is due now."""
        with self._lock:
            self._probe_at_s = 0.0

    def succeed(self) -> None:
        """Note that the server judged a payload; only another bundle still keeps it open."""
        with self._lock:
            self._failures, self._trial, self._wait_s = 0, False, FIRST_WAIT_S
            if self._reason == "bundle":
                return
            self._shut()
            if self._told:
                self._told.clear()
                _log.warning("the server answers again")

    def close(self) -> None:
        """Note that the server is there with the right bundle."""
        with self._lock:
            self._shut_on_trial()

    def hear(self) -> None:
        """Note that the server answered, but judged neither bundle nor payload."""
        with self._lock:
            if self._reason != "bundle":
                self._shut_on_trial()

    def fail(self, epoch: int, why: str) -> None:
        """Note that a request of some epoch failed; the fifth since a judged payload opens it."""
        with self._lock:
            if self._reason or epoch < self.epoch:
                return
            self._failures += 1
            if self._trial or self._failures >= FAILURES:
                self._open("breaker", why)

    def open(self, reason: str, why: str) -> None:
        """Open at once, for a reason that another try would not change."""
        with self._lock:
            if not self._reason:
                self._open(reason, why)

    def take_probe(self) -> bool:
        """Ask for the one probe that may go out now; the caller must then report its outcome."""
        with self._lock:
            now_s = self._clock.now_s()
            if not self._reason or self._probing or now_s < self._probe_at_s:
                return False
            self._probing = True
            # From begin to begin, so that a probe that waits for its timeout delays no other.
            self._schedule(now_s)
            return True

    def end_probe(self, reason: str = "", why: str = "") -> None:
        """Note what the probe found: a usable server, or a reason to stay open."""
        if not reason:
            self.close()
        with self._lock:
            self._probing = False
            # A late reply may have closed it meanwhile: then the old connection will do.
            if reason and (self._reason or reason == "bundle"):
                self._reason = reason
                self._tell(reason, why)

    def _shut_on_trial(self) -> None:
        self._trial = self._trial or bool(self._reason)
        self._shut()

    def _shut(self) -> None:
        if self._reason:
            self._reason, self._failures = "", 0
            self.epoch += 1

    def _open(self, reason: str, why: str) -> None:
        self._reason = reason
        self._schedule(self._clock.now_s())
        self._tell(reason, why)

    def _schedule(self, now_s: float) -> None:
        self._probe_at_s = now_s + self._wait_s * self._random.uniform(LEAST_SHARE, 1.0)
        self._wait_s = min(2 * self._wait_s, LONGEST_WAIT_S)

    def _tell(self, reason: str, why: str) -> None:
        if reason not in self._told:
            self._told.add(reason)
            _log.warning("staying local: %s", why)
