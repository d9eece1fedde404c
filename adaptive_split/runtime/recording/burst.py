"""A burst: requests sent at once, so that the uplink is full; the replies tell its rate."""

from __future__ import annotations

import statistics
import threading
from collections.abc import Callable
from concurrent.futures import Future
from itertools import combinations

from adaptive_split.clock import Clock
from adaptive_split.runtime.recording.plan import NUM_CHUNKS, payload_of
from adaptive_split.runtime.transport import Transport
from adaptive_split.runtime.wire import RefusedError

CHUNK_TIMEOUT_S = 10.0
MOST_MBPS = 500.0
"""More cannot be told from a server that takes its time: 60 kB per millisecond."""
LEAST_ACKS, LEAST_SPAN_S = 4, 0.5
"""A row's share of a burst tells a rate by so many acknowledgments, or by their absence so long."""


class Burst:
    """Some requests under way, each acknowledged by the server when all of it has come.

    Attributes:
        sent_s: When they were handed to the transport.
        acks: Moment of every acknowledgment and the wire bytes it stands for, in their order.
        received_s: When the server had each request, on the server's clock, where it tells.
        finished_s: When the last request was answered or given up; `None` before.
        refused: What the server said, if it refused one: then the burst tells nothing.
    """

    def __init__(
        self, transport: Transport, clock: Clock, chunk_bytes: int,
        on_heard: Callable[[float], None],
    ) -> None:  # fmt: skip
        """Send, without waiting.

        Args:
            transport: Reaches the server.
            clock: Real, or a test's.
            chunk_bytes: Size of every request on the wire.
            on_heard: Called with the moment of every acknowledgment, on any thread.
        """
        self._clock, self._on_heard, self._lock = clock, on_heard, threading.Lock()
        self._chunk_bytes, self._num_open = chunk_bytes, NUM_CHUNKS
        self.acks: list[tuple[float, int]] = []
        self.received_s: list[float] = []
        self.finished_s: float | None = None
        self.refused = ""
        payload = payload_of(chunk_bytes)
        self.sent_s = clock.now_s()
        for _ in range(NUM_CHUNKS):
            chunk = transport.probe(payload, timeout_s=CHUNK_TIMEOUT_S)
            chunk.add_done_callback(self._on_reply)

    def uplink_mbps(self, start_s: float, end_s: float, rtt_s: float) -> float | None:
        """Rate in a span of time; `None` if the burst tells nothing of it.

        A burst within the span: its second half, from request to request, as the server received
        them; where it does not tell, from reply to reply. So neither the round trip counts, nor the
        first half, in which TCP finds out how much it may send. The slope is the median of all
        pairs (Theil and Sen), as threads oversleep. Of a longer burst: what was acknowledged in the
        span, from one round trip after the sending on; a span without any had no link.

        Args:
            start_s: Begin of the span.
            end_s: Its end.
            rtt_s: Round trip of an empty message.
        """
        acks = [ack for ack in self.acks if ack[0] < end_s]
        finished = self.finished_s is not None and self.finished_s < end_s
        if finished and self.sent_s >= start_s and len(acks) == NUM_CHUNKS:
            told = len(self.received_s) == NUM_CHUNKS
            moments_s = sorted(self.received_s) if told else [moment_s for moment_s, _ in acks]
            half = moments_s[NUM_CHUNKS // 2 - 1 :]
            pairs = combinations(enumerate(half), 2)
            gap_s = statistics.median((late - early) / (j - i) for (i, early), (j, late) in pairs)
            return _mbps(self._chunk_bytes, gap_s)
        begin_s = max(start_s, self.sent_s + rtt_s)
        return _share_mbps(
            [ack for ack in acks if ack[0] >= begin_s], begin_s,
            min(end_s, self.finished_s or end_s),
        )  # fmt: skip

    def _on_reply(self, done: Future[float | None]) -> None:
        now_s, error = self._clock.now_s(), done.exception()
        with self._lock:
            if error is None:
                self.acks.append((now_s, self._chunk_bytes))
                if (received_s := done.result()) is not None:
                    self.received_s.append(received_s)
                self._on_heard(now_s)
            elif isinstance(error, RefusedError):
                self.refused = str(error)
            self._num_open -= 1
            if not self._num_open:
                self.finished_s = now_s


def _share_mbps(acks: list[tuple[float, int]], begin_s: float, end_s: float) -> float | None:
    """Rate of a burst within a span that cuts it; `None` if the span is too short to tell."""
    num_acks, num_bytes = len(acks), sum(size for _, size in acks)
    if end_s - begin_s < LEAST_SPAN_S and num_acks < LEAST_ACKS:
        return None
    if num_acks >= LEAST_ACKS:
        # At its edges a span cuts a request; only a longer wait says something of the link.
        wait_s = 2 * (acks[-1][0] - acks[0][0]) / (num_acks - 1)
        if acks[0][0] - begin_s < wait_s:
            begin_s, num_bytes = acks[0][0], num_bytes - acks[0][1]
        if end_s - acks[-1][0] < wait_s:
            end_s = acks[-1][0]
    return _mbps(num_bytes, end_s - begin_s)


def _mbps(num_bytes: int, span_s: float) -> float:
    return min(8e-6 * num_bytes / max(span_s, 1e-9), MOST_MBPS)
