"""What finished requests tell about the uplink: rate and round trip of each, told apart."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

WINDOW = 16
PING_AGE_S = 3.0
RECENT = 4
# How far a round trip wanders (share of itself, and s), and a payload's time on the uplink (share).
RTT_SPREAD, RTT_NOISE_S, UPLOAD_SPREAD = 0.1, 0.0005, 0.5
FIRST_MBPS, FIRST_RTT_S = 5.0, 0.060
LEAST_MBPS, MOST_MBPS = 0.01, 2000.0
LEAST_UPLOAD_S = 5e-5
"""Shorter times on the uplink drown in the noise of timers; such a rate is as good as any."""


@dataclass(frozen=True, slots=True)
class LinkReading:
    """Rate and round trip that explain one request exactly: `net = rtt + bits / rate`."""

    uplink_mbps: float
    rtt_s: float


class LinkEstimator:
    """Fits `T = rtt + bytes * 8 / rate` to the last 16 requests and splits each one's time.

    A request alone does not tell a slow uplink from a long round trip. The fit gives what to
    expect of both; what a request took beyond that is shared out by how far each of the two
    usually wanders, so a small payload moves the round trip and a large one the rate (a Kalman
    gain for two states). Requests queue behind one another on the uplink; the wait is taken off.
    """

    def __init__(self) -> None:
        self._bytes: deque[float] = deque(maxlen=WINDOW)
        self._net_s: deque[float] = deque(maxlen=WINDOW)
        self._pings: deque[tuple[float, float]] = deque(maxlen=3)
        self._free_s = 0.0
        self._last_reply_s = 0.0
        self.uplink_mbps = FIRST_MBPS
        """What the next payload may expect."""
        self.rtt_s = FIRST_RTT_S
        """Round trip of an empty message."""

    @property
    def free_s(self) -> float:
        """When the last answered payload had left the uplink."""
        return self._free_s

    def rebase(self) -> None:
        """Restart the clock at 0; rate and round trip stay."""
        self._pings = deque([(0.0, rtt_s) for _, rtt_s in self._pings], 3)
        self._free_s = self._last_reply_s = 0.0

    def add_ping(self, *, now_s: float, rtt_s: float) -> None:
        """Note the round trip of an empty message."""
        self._pings.append((now_s, rtt_s))
        self.rtt_s = float(np.median([rtt for _, rtt in self._pings]))

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
        known = bool(self._net_s)
        queued_behind = sent_s < self._last_reply_s
        begin_s = max(sent_s, self._free_s) if queued_behind else sent_s
        net_s = max(reply_s - server_s - begin_s, LEAST_UPLOAD_S)
        self._bytes.append(float(wire_bytes))
        self._net_s.append(net_s)
        upload_s = self._upload_s(net_s, wire_bytes, known)
        self._free_s, self._last_reply_s = begin_s + upload_s, reply_s
        self._fit(reply_s)
        rate = wire_bytes * 8e-6 / upload_s
        return LinkReading(min(max(rate, LEAST_MBPS), MOST_MBPS), max(net_s - upload_s, 0.0))

    def _upload_s(self, net_s: float, wire_bytes: int, known: bool) -> float:
        """Time of a request on the uplink, by what was expected before it."""
        if not known:
            if not self._pings:
                self.rtt_s = net_s / 2
            return max(net_s - self.rtt_s, LEAST_UPLOAD_S)
        expected = wire_bytes * 8e-6 / self.uplink_mbps
        surprise = net_s - self.rtt_s - expected
        upload_var = (UPLOAD_SPREAD * expected) ** 2
        rtt_var = (RTT_SPREAD * self.rtt_s + RTT_NOISE_S) ** 2
        upload_s = expected + surprise * upload_var / (upload_var + rtt_var)
        return min(max(upload_s, 0.2 * expected), net_s)

    def _fit(self, now_s: float) -> None:
        size, net = np.array(self._bytes), np.array(self._net_s)
        if self._pings and now_s - self._pings[-1][0] <= PING_AGE_S:
            self.rtt_s = min(self.rtt_s, float(net.min()))
        else:
            self.rtt_s = self._fitted_rtt_s(size, net)
        # Newest requests only: the rate changes faster than the round trip. Summed before divided,
        # so that large payloads, which tell more, weigh more.
        recent = slice(-RECENT, None)
        upload = np.maximum(net[recent] - self.rtt_s, LEAST_UPLOAD_S).sum()
        self.uplink_mbps = float(
            np.clip(size[recent].sum() * 8e-6 / upload, LEAST_MBPS, MOST_MBPS)
        )

    def _fitted_rtt_s(self, size: NDArray[np.float64], net: NDArray[np.float64]) -> float:
        """Intercept of the Theil-Sen line through the window, where the sizes differ enough."""
        first, second = np.triu_indices(len(size), 1)
        gap = size[second] - size[first]
        wide = np.abs(gap) > 0.2 * size.max()
        if wide.sum() < 3:
            return min(self.rtt_s, float(net.min()))
        slope = float(np.median((net[second] - net[first])[wide] / gap[wide]))
        intercept = float(np.median(net - max(slope, 0.0) * size))
        return min(max(intercept, 0.0), float(net.min()))
