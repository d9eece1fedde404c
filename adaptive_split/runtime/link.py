"""What finished requests tell about the uplink: rate and round trip of each, told apart."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

import numpy as np

WINDOW = 16
RECENT = 4
PING_AGE_S = 3.0
FIRST_MBPS, FIRST_RTT_S = 5.0, 0.060
LEAST_MBPS, MOST_MBPS = 0.01, 2000.0
LEAST_UPLOAD_S = 5e-5
"""Shorter times on the uplink drown in the noise of timers; such a rate is as good as any."""

# How far from what was expected a payload's time on the uplink is (share of it), and a round trip
# (share of it, s, and share of it per second since it was measured).
UPLOAD_SPREAD = 1.0
RTT_SPREAD, RTT_NOISE_S, RTT_DRIFT_PER_S = 0.05, 0.0005, 0.5


@dataclass(frozen=True, slots=True)
class LinkReading:
    """Rate and round trip that explain one request exactly: `net = rtt + bits / rate`."""

    uplink_mbps: float
    rtt_s: float


class LinkEstimator:
    """Tells rate and round trip apart in `T = rtt + bytes * 8 / rate`.

    A request alone does not tell a slow uplink from a long round trip. What it took beyond what was
    expected is shared out by how far each of the two usually strays, so a small payload moves the
    round trip and a large one the rate (a Kalman gain for two states). What to expect comes from
    the last two pings, empty messages; where there are none, from a robust fit to the last 16
    requests. Requests queue behind one another on the uplink; that wait is taken off first.
    """

    def __init__(self) -> None:
        self._bytes: deque[float] = deque(maxlen=WINDOW)
        self._net_s: deque[float] = deque(maxlen=WINDOW)
        self._upload_s: deque[float] = deque(maxlen=WINDOW)
        self._pings: deque[tuple[float, float]] = deque(maxlen=2)
        self._last_reply_s = 0.0
        self.free_s = 0.0
        """When the last answered payload had left the uplink."""
        self.uplink_mbps = FIRST_MBPS
        """What the next payload may expect."""
        self.rtt_s = FIRST_RTT_S
        """Round trip of an empty message."""

    def rebase(self) -> None:
        """Restart the clock at 0; rate and round trip stay."""
        self._pings = deque([(0.0, rtt_s) for _, rtt_s in self._pings], 2)
        self.free_s = self._last_reply_s = 0.0

    def add_ping(self, *, now_s: float, rtt_s: float) -> None:
        """Note the round trip of an empty message; the lesser of two counts, as noise only adds."""
        self._pings.append((now_s, rtt_s))
        self.rtt_s = min(rtt_s for _, rtt_s in self._pings)

    def add(
        self, *, sent_s: float, reply_s: float, server_s: float, wire_bytes: int
    ) -> LinkReading:
        """Note a finished request.

        Args:
            sent_s: When it was handed to the sender.
            reply_s: When the reply came.
            server_s: Time between receipt and reply, as the server reported it.
            wire_bytes: Payload and framing.
        """
        begin_s = max(sent_s, self.free_s) if sent_s < self._last_reply_s else sent_s
        net_s = max(reply_s - server_s - begin_s, LEAST_UPLOAD_S)
        age_s = max(sent_s - self._pings[-1][0], 0.0) if self._pings else PING_AGE_S
        upload_s = self._share(net_s, wire_bytes, age_s)
        self._bytes.append(float(wire_bytes))
        self._net_s.append(net_s)
        self._upload_s.append(upload_s)
        self.free_s, self._last_reply_s = begin_s + upload_s, reply_s
        if age_s >= PING_AGE_S:
            self._fit()
        # Newest requests only, as the rate changes fast. Summed before divided, so that large
        # payloads, which tell more, weigh more.
        recent = list(zip(self._bytes, self._upload_s, strict=True))[-RECENT:]
        self.uplink_mbps = _mbps(sum(size for size, _ in recent), sum(took for _, took in recent))
        return LinkReading(_mbps(wire_bytes, upload_s), max(net_s - upload_s, 0.0))

    def _share(self, net_s: float, wire_bytes: int, age_s: float) -> float:
        """Time of a request on the uplink, by what was expected of it."""
        if not self._bytes:
            if not self._pings:
                self.rtt_s = net_s / 2
            return max(net_s - self.rtt_s, LEAST_UPLOAD_S)
        expected_s = wire_bytes * 8e-6 / self.uplink_mbps
        surprise_s = net_s - self.rtt_s - expected_s
        stray = RTT_SPREAD + RTT_DRIFT_PER_S * min(age_s, 1.0)
        rtt_var = (stray * self.rtt_s + RTT_NOISE_S) ** 2
        upload_var = (UPLOAD_SPREAD * expected_s) ** 2
        upload_s = expected_s + surprise_s * upload_var / (upload_var + rtt_var)
        return min(max(upload_s, 0.1 * expected_s, LEAST_UPLOAD_S), net_s)

    def _fit(self) -> None:
        """Draw the Theil-Sen line through the window, where the sizes differ enough."""
        size, net_s = np.array(self._bytes), np.array(self._net_s)
        first, second = np.triu_indices(len(size), 1)
        gap = size[second] - size[first]
        wide = np.abs(gap) > 0.2 * size.max()
        if wide.sum() < 3:
            return
        slope = float(np.median((net_s[second] - net_s[first])[wide] / gap[wide]))
        intercept_s = float(np.median(net_s - max(slope, 0.0) * size))
        self.rtt_s = min(max(intercept_s, 0.0), float(net_s.min()))
        self._upload_s = deque(np.maximum(net_s - self.rtt_s, LEAST_UPLOAD_S).tolist(), WINDOW)


def _mbps(num_bytes: float, upload_s: float) -> float:
    return min(max(num_bytes * 8e-6 / upload_s, LEAST_MBPS), MOST_MBPS)
