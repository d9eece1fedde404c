"""The uplink's book: what is under way, what came back, and what that tells of the link."""

from __future__ import annotations

import threading
from collections import deque
from dataclasses import dataclass, replace

from adaptive_split.measurement import LinkSample
from adaptive_split.runtime.link import WINDOW, LinkEstimator, LinkReading


@dataclass(slots=True, eq=False)
class Sent:
    """A request without a reply, or one of the last 16."""

    sent_s: float
    wire_bytes: int
    give_up_s: float
    split_point: int = 0
    epoch: int = 0
    """The breaker's when it was sent."""
    reply_s: float | None = None


class Traffic:
    """Requests first in, first out, and the estimate of the link; safe to use from several threads.

    Frames' payloads and probes are requests; pings, which are empty, count for the round trip only.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.reset(0.0)

    def reset(self, now_s: float) -> None:
        """Forget the link; a request still under way is ignored from now on."""
        with self._lock:
            self._link = LinkEstimator()
            self._unanswered: dict[Sent, None] = {}
            self._recent: deque[Sent] = deque(maxlen=WINDOW)
            self._samples: deque[LinkSample] = deque(maxlen=WINDOW)
            self._told_s = self._heard_s = now_s

    def rebase(self) -> None:
        """Take what is known as known at moment 0, where the clock has just restarted."""
        with self._lock:
            self._unanswered.clear()
            self._link.rebase()
            self._samples = deque([replace(s, time_s=0.0) for s in self._samples], WINDOW)
            self._told_s = self._heard_s = 0.0

    @property
    def samples(self) -> tuple[LinkSample, ...]:
        """The last finished requests, oldest first."""
        with self._lock:
            return tuple(self._samples)

    @property
    def link(self) -> LinkEstimator:
        """The estimator in use, for pings that end after a reset."""
        return self._link

    @property
    def estimate(self) -> LinkReading:
        """Rate and round trip that the next payload may expect."""
        with self._lock:
            return LinkReading(self._link.uplink_mbps, self._link.rtt_s)

    @property
    def heard_s(self) -> float:
        """When the server was last heard of."""
        return self._heard_s

    def timeouts(self, now_s: float) -> int:
        """How many of the last 16 requests missed their deadline."""
        with self._lock:
            moments = [(now_s if s.reply_s is None else s.reply_s, s) for s in self._recent]
            return sum(moment > sent.give_up_s for moment, sent in moments)

    def oldest(self) -> tuple[float | None, int]:
        """When the oldest request without a reply was sent, and its bytes."""
        with self._lock:
            for sent in self._unanswered:
                return sent.sent_s, sent.wire_bytes
            return None, 0

    def free_s(self) -> float:
        """When the uplink should have sent all it was given, at the estimated rate."""
        with self._lock:
            free_s = self._link.free_s
            for sent in self._unanswered:
                free_s = max(free_s, sent.sent_s) + self._upload_s(sent.wire_bytes)
            return free_s

    def blocked_until_s(self, now_s: float) -> float:
        """When a new payload should get on the uplink; half of an overdue reply's delay is added.

        Outages last the longer the older they are; the planner reckons with the same half.
        """
        free_s = self.free_s()
        with self._lock:
            for sent in self._unanswered:
                expected_s = sent.sent_s + self._upload_s(sent.wire_bytes) + self._link.rtt_s
                return max(free_s, now_s + 0.5 * max(now_s - expected_s - 0.05, 0.0))
        return max(free_s, now_s)

    def silent_s(self, now_s: float) -> float:
        """For how long nothing was heard that should have been; 0 when nothing is under way."""
        with self._lock:
            for sent in self._unanswered:
                expected_s = self._upload_s(sent.wire_bytes) + self._link.rtt_s
                return max(now_s - max(sent.sent_s, self._heard_s) - expected_s, 0.0)
            return 0.0

    def untold_s(self, now_s: float) -> float:
        """For how long no request has told the rate by itself; too small ones do not."""
        with self._lock:
            return now_s - self._told_s

    def begin(self, sent: Sent, *, of_frame: bool) -> tuple[float, float]:
        """Note a request; return its expected time on the uplink and the round trip."""
        with self._lock:
            self._unanswered[sent] = None
            if of_frame:
                self._recent.append(sent)
            return self._upload_s(sent.wire_bytes), self._link.rtt_s

    def hear(self, now_s: float) -> None:
        """Note a sign of life."""
        with self._lock:
            self._heard_s = now_s

    def add_ping(self, link: LinkEstimator, *, now_s: float, rtt_s: float) -> None:
        """Note the round trip of an empty message, on the estimator of when it was sent."""
        with self._lock:
            self._heard_s = now_s
            link.add_ping(now_s=now_s, rtt_s=rtt_s)

    def drop(self, sent: Sent) -> None:
        """Note that a request has ended without a measurement."""
        with self._lock:
            self._unanswered.pop(sent, None)

    def finish(
        self, sent: Sent, now_s: float, *, server_s: float, wait_s: float, slowdown: float | None
    ) -> bool:
        """Learn from a reply; tell whether it belonged to this run.

        Args:
            sent: The request.
            now_s: When the reply came.
            server_s: Time between receipt and reply, as the server told it.
            wait_s: The queue's part of that.
            slowdown: The server's compute time over the profile's; `None` if it did not compute.
        """
        with self._lock:
            if sent not in self._unanswered:
                return False
            del self._unanswered[sent]
            sent.reply_s = self._heard_s = now_s
            reading = self._link.add(
                sent_s=sent.sent_s, reply_s=now_s, server_s=server_s, wire_bytes=sent.wire_bytes,
                computed=slowdown is not None,
            )  # fmt: skip
            if not reading.app_limited:
                self._told_s = now_s
            before = self._samples[-1].server_slowdown if self._samples else 1.0
            self._samples.append(
                LinkSample(
                    time_s=now_s,
                    uplink_mbps=reading.uplink_mbps,
                    rtt_s=reading.rtt_s,
                    server_wait_s=wait_s,
                    server_slowdown=before if slowdown is None else slowdown,
                )
            )
            return True

    def _upload_s(self, wire_bytes: int) -> float:
        return wire_bytes * 8e-6 / self._link.uplink_mbps
