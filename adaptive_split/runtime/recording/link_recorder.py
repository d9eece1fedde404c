"""Records a link: in every period pings, one burst, and what they tell as a row."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from adaptive_split.clock import Clock
from adaptive_split.errors import LinkError
from adaptive_split.runtime.recording.burst import Burst
from adaptive_split.runtime.recording.pings import PING_TIMEOUT_S, Pings
from adaptive_split.runtime.recording.plan import (
    BURST_AT,
    HEADERS,
    NUM_CHUNKS,
    PING_AT,
    PING_WIRE_BYTES,
    RecordPlan,
)
from adaptive_split.runtime.transport import Transport

_log = logging.getLogger(__name__)

FIRST_MBPS = 1.0
STILL_GROWING, MOST_WARM = 1.1, 6
"""At first bursts are too small for a fast link: rows are left out while each reads so much more
than the last, up to so many."""
GREETING_S = 10.0
"""A server must have answered by then, or there is nothing to record."""
ALIVE_S = 1.5
"""A burst is sent only if something came back so recently: it would but queue."""
SILENCE_S = 2.0
"""After so long without a reply the connection is given up for a new one."""
NAP_S = 0.05


@dataclass(frozen=True, slots=True)
class RecordedRow:
    """What was measured in one period, or in several where one told no rate."""

    start_s: float
    """On the recorder's clock."""
    end_s: float
    uplink_mbps: float
    rtt_s: float | None
    """Median round trip of an empty message; `None` = every reply lost."""
    loss: float
    """Share of empty messages not answered within `PING_TIMEOUT_S`."""
    rtt_held: bool = False
    """Whether the round trip is the last row's: the whole row was one burst."""


@dataclass(slots=True)
class _Period:
    start_s: float
    pings: Pings
    end_s: float = 0.0
    uplink_mbps: float = 0.0


class LinkRecorder:
    """Measures the uplink from here to a server until its budget or time is used up.

    A row without any reply is a link without rate. What cannot be measured (nobody listens at the
    other end, or the server refuses) makes no row: the next row then begins later than the last
    one ended.

    Attributes:
        spent_bytes: Sent so far, headers of packets estimated.
        ended: Why the recording is over.
    """

    def __init__(
        self, connect: Callable[[], Transport], clock: Clock, plan: RecordPlan,
        spent_bytes: float = 0.0,
    ) -> None:  # fmt: skip
        """Take what is needed; nothing is sent yet.

        Args:
            connect: Opens a connection to the server; called again when one is dead.
            clock: Real, or a test's.
            plan: Budget and pace.
            spent_bytes: Of the budget, by an earlier part of the recording.
        """
        self._connect, self._clock, self._plan = connect, clock, plan
        self._transport = connect()
        self.spent_bytes, self.ended = spent_bytes, ""
        self._burst: Burst | None = None
        self._rate_mbps, self._rtt_s = FIRST_MBPS, 0.06
        self._begin_s = self._heard_s = self._connected_s = clock.now_s()
        self._stopped = False
        self._problem = ""

    def stop(self) -> None:
        """End the recording with the present row; safe to call from a signal handler."""
        self._stopped = True

    def close(self) -> None:
        """Hang up."""
        self._transport.close()

    def rows(self) -> Iterator[RecordedRow]:
        """Measure; yields a row as soon as each of its pings is answered or lost.

        Raises:
            LinkError: If the server does not answer at first.
        """
        self._greet()
        self._begin_s = start_s = self._clock.now_s()
        waiting: deque[_Period] = deque()
        num_warm = 0
        while not self._over():
            period, before_mbps = _Period(start_s, Pings(self._clock, self._hear)), self._rate_mbps
            if self._measure(period):
                if num_warm < MOST_WARM and period.uplink_mbps > STILL_GROWING * before_mbps:
                    num_warm += 1
                else:
                    num_warm = MOST_WARM
                    waiting.append(period)
            # A process that was stopped takes up from now, and does not catch up.
            late_s = self._clock.now_s() - period.end_s
            start_s = period.end_s + (late_s if self._too_late(late_s) else 0.0)
            while waiting and waiting[0].pings.settled:
                yield self._row(waiting.popleft())
        self._wait_for(PING_TIMEOUT_S, lambda: all(one.pings.settled for one in waiting))
        yield from map(self._row, waiting)

    def _greet(self) -> None:
        ping = self._transport.ping(timeout_s=GREETING_S)
        self._wait_for(GREETING_S + 1.0, ping.done)
        if not ping.done() or (error := ping.exception()):
            why = error if ping.done() else "no answer"
            raise LinkError(f"a server must answer before a recording; got {why}")
        self._hear(self._clock.now_s())

    def _over(self) -> bool:
        if self._stopped:
            self.ended = "stopped"
        elif self._clock.now_s() >= self._begin_s + self._plan.duration_s:
            self.ended = "time is up"
        elif self._chunk_bytes() == 0:
            self.ended = "the budget is used up"
        return bool(self.ended)

    def _measure(self, period: _Period) -> bool:
        """Fill a period, and more of them until there is a rate; tell whether it is a row."""
        period.end_s, burst = period.start_s, None
        while True:
            burst = self._play(period) or burst
            period.end_s += self._plan.period_s
            if self._stopped or self._too_late(self._clock.now_s() - period.end_s):
                return False
            if problem := period.pings.problem or (burst.refused if burst else ""):
                self._tell(problem)
                return False
            rate_mbps = self._rate(period, burst)
            if rate_mbps is not None:
                self._tell("")
                period.uplink_mbps, self._rate_mbps = rate_mbps, rate_mbps or self._rate_mbps
                return True

    def _play(self, period: _Period) -> Burst | None:
        """Send what is due in the next period; return the burst that was under way in it."""
        begin_s, period_s, burst = period.end_s, self._plan.period_s, self._open_burst()
        for share in sorted((*PING_AT, BURST_AT)):
            self._wait_until(begin_s + share * period_s)
            if self._stopped or self._open_burst():
                continue
            if share != BURST_AT:
                period.pings.send(self._transport)
                self.spent_bytes += PING_WIRE_BYTES
            elif self._clock.now_s() - self._heard_s < ALIVE_S and (size := self._chunk_bytes()):
                burst = self._burst = Burst(self._transport, self._clock, size, self._hear)
                self.spent_bytes += HEADERS * NUM_CHUNKS * size
        self._wait_until(begin_s + period_s)
        return burst

    def _rate(self, period: _Period, burst: Burst | None) -> float | None:
        """What a period tells of the rate: 0 if nothing came back, `None` if nobody knows."""
        if burst is not None:
            rtt_s = period.pings.rtt_s or self._rtt_s
            rate_mbps = burst.uplink_mbps(period.start_s, period.end_s, rtt_s)
            if rate_mbps is not None:
                return rate_mbps
        return 0.0 if period.end_s - self._heard_s >= ALIVE_S else None

    def _row(self, period: _Period) -> RecordedRow:
        pings = period.pings
        dark = not pings.any_sent and period.uplink_mbps == 0
        held = not pings.any_sent and not dark
        if pings.rtt_s is not None:
            self._rtt_s = pings.rtt_s
        return RecordedRow(
            period.start_s, period.end_s, period.uplink_mbps,
            self._rtt_s if held else pings.rtt_s, 1.0 if dark else pings.loss, held,
        )  # fmt: skip

    def _chunk_bytes(self) -> int:
        return self._plan.chunk_bytes(
            self._rate_mbps, spent_bytes=self.spent_bytes,
            elapsed_s=self._clock.now_s() - self._begin_s,
        )  # fmt: skip

    def _open_burst(self) -> Burst | None:
        burst = self._burst
        return burst if burst is not None and burst.finished_s is None else None

    def _hear(self, now_s: float) -> None:
        self._heard_s = now_s

    def _too_late(self, late_s: float) -> bool:
        return late_s > 0.5 * self._plan.period_s

    def _wait_until(self, moment_s: float) -> None:
        """Let time pass; give up a connection on which nothing comes back any more."""
        while not self._stopped and (now_s := self._clock.now_s()) < moment_s:
            self._clock.sleep_until(min(moment_s, now_s + NAP_S))
            if self._clock.now_s() - max(self._heard_s, self._connected_s) > SILENCE_S:
                self._transport.close()
                self._transport = self._connect()
                self._connected_s = self._clock.now_s()

    def _tell(self, problem: str) -> None:
        """Log once that recording is not possible, and once that it is again."""
        if problem and not self._problem:
            _log.warning("a gap in the recording begins: %s", problem)
        elif self._problem and not problem:
            _log.warning("the recording goes on")
        self._problem = problem

    def _wait_for(self, longest_s: float, done: Callable[[], bool]) -> None:
        end_s = self._clock.now_s() + longest_s
        while not done() and (now_s := self._clock.now_s()) < end_s:
            self._clock.sleep_until(min(end_s, now_s + NAP_S))
