"""What finished requests tell about the uplink: rate and round trip of each, told apart."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

WINDOW = 16
RECENT = 4
NUM_PINGS, PINGS_S = 2, 1.0
"""The least of so many pings counts, or of those of so long: noise only adds."""
PING_AGE_S = 3.0
FIRST_MBPS, FIRST_RTT_S = 5.0, 0.060
LEAST_MBPS, MOST_MBPS = 0.01, 2000.0
LEAST_UPLOAD_S = 5e-5

SURPRISE = 3.0
"""A request that strays by more standard deviations than this tells of another rate."""
RATE_SCATTER = 0.2
"""How far, as a share, a request's own rate strays from the mean one."""
RATE_DRIFT = 0.03
"""How far the mean rate moves from request to request, as a share."""
FIRST_JITTER, LEAST_JITTER, LEAST_JITTER_S = 0.02, 0.005, 0.0003
"""How far round trips stray: before that is known and at least, as shares of them; and at least."""
HANDLING_SPREAD_S, HANDLING_DRIFT_S = 0.0007, 1e-5
LEAST_HANDLING_S, MOST_HANDLING_S = -0.002, 0.02
"""Of what a request costs beside a ping: at first, gained with every request, and at most."""
CLEAR = 4.0
"""A time on the uplink of less than so many standard deviations of the rest tells no rate."""


@dataclass(frozen=True, slots=True)
class LinkReading:
    """Rate and round trip that explain one request exactly: `net = rtt + bits / rate`."""

    uplink_mbps: float
    rtt_s: float
    app_limited: bool = False
    """Too few bytes to tell a rate by themselves: it is the one that was expected."""


class LinkEstimator:
    """Tells rate and round trip apart in `T = rtt + handling + bytes * 8 / rate`.

    A request alone does not tell a slow uplink from a long round trip. What it took beyond what was
    expected is shared out by how far each part usually strays, so a small payload moves hardly
    anything and a large one the rate: a Kalman filter of the time per byte and of `handling`.

    * The round trip is the least of the pings, empty messages, of the last second; how far it
      strays, the gap to the second. Where no ping is young, a robust fit to the last 16 requests
      tells it.
    * Handling is what a request takes beside a ping and the time that the server tells, other for
      probes and for what is computed: threads that wait for each other, a proxy before the
      server; less than nothing where a ping's wake-ups pass while a payload still arrives. It
      hardly changes, so sizes that differ tell it from the rate.
    * A surprise of three standard deviations makes the rate as good as unknown, so that a new one
      is believed after one or two requests, while those that tell little are averaged.

    Requests queue behind one another on the uplink; that wait is taken off first.
    """

    def __init__(self) -> None:
        self._requests: deque[tuple[float, float]] = deque(maxlen=WINDOW)
        self._pings: deque[tuple[float, float]] = deque()
        self._jitter_s = FIRST_JITTER * FIRST_RTT_S
        # Seconds per byte; handling of probes and of what is computed, in seconds.
        self._state = np.array([8e-6 / FIRST_MBPS, 0.0, 0.0])
        self._covariance = np.diag(
            [self._state[0] ** 2, HANDLING_SPREAD_S**2, HANDLING_SPREAD_S**2]
        )
        self._doubted = False
        self._last_reply_s = 0.0
        self.free_s = 0.0
        """When the last answered payload had left the uplink."""
        self.uplink_mbps = FIRST_MBPS
        """What the next payload may expect."""
        self.rtt_s = FIRST_RTT_S
        """Round trip of an empty message."""

    def rebase(self) -> None:
        """Restart the clock at 0; rate and round trip stay."""
        self._pings.clear()  # the first ones waited for the connection, too
        self._covariance[0] = self._covariance[:, 0] = 0.0
        self._covariance[0, 0] = self._state[0] ** 2
        self.free_s = self._last_reply_s = 0.0

    def add_ping(self, *, now_s: float, rtt_s: float) -> None:
        """Note the round trip of an empty message."""
        self._pings.append((now_s, rtt_s))
        while len(self._pings) > NUM_PINGS and self._pings[0][0] < now_s - PINGS_S:
            self._pings.popleft()
        least, *more = sorted(rtt_s for _, rtt_s in self._pings)
        gap_s = more[0] - least if more else FIRST_JITTER * least
        self._jitter_s = max(gap_s, LEAST_JITTER_S + LEAST_JITTER * least)
        self.rtt_s = least

    def add(
        self, *, sent_s: float, reply_s: float, server_s: float, wire_bytes: int,
        computed: bool = True,
    ) -> LinkReading:  # fmt: skip
        """Note a finished request.

        Args:
            sent_s: When it was handed to the sender.
            reply_s: When the reply came.
            server_s: Time between receipt and reply, as the server reported it.
            wire_bytes: Payload and framing.
            computed: Whether the server did more than throw it away.
        """
        begin_s = max(sent_s, self.free_s) if sent_s < self._last_reply_s else sent_s
        net_s = max(reply_s - server_s - begin_s, LEAST_UPLOAD_S)
        age_s = max(sent_s - self._pings[-1][0], 0.0) if self._pings else PING_AGE_S
        if not self._pings and not self._requests:
            self.rtt_s = net_s / 2
        self._requests.append((float(wire_bytes), net_s))
        if begin_s == sent_s:  # where it did not wait, a round trip cannot have been longer
            self.rtt_s = min(self.rtt_s, net_s)
        noise_s = self._jitter_s * (1 + min(age_s, 1.0))
        upload_s = self._filter(net_s, wire_bytes, noise_s, computed)
        self.free_s, self._last_reply_s = begin_s + upload_s, reply_s
        if age_s >= PING_AGE_S:
            self._fit()
        app_limited = upload_s < CLEAR * noise_s
        if app_limited:
            upload_s = min(wire_bytes * 8e-6 / self.uplink_mbps, net_s)
        rtt_s = max(net_s - upload_s, 0.0)
        return LinkReading(_mbps(wire_bytes, upload_s), rtt_s, app_limited)

    def _filter(self, net_s: float, wire_bytes: int, noise_s: float, computed: bool) -> float:
        """Move the estimate by what a request tells; return its own time on the uplink."""
        state, covariance = self._state, self._covariance
        parts = np.array([wire_bytes, not computed, computed], float)
        surprise_s = net_s - self.rtt_s - float(parts @ state)
        noise_var = noise_s**2 + (RATE_SCATTER * wire_bytes * state[0]) ** 2
        most_s = SURPRISE * float(noise_var + parts @ covariance @ parts) ** 0.5
        doubted, self._doubted = self._doubted, surprise_s > most_s
        if surprise_s < -most_s or (doubted and self._doubted):
            covariance[0] = covariance[:, 0] = 0.0
            covariance[0, 0] = max(state[0], state[0] + surprise_s / wire_bytes) ** 2
        elif self._doubted:
            surprise_s = most_s
        shares = covariance @ parts
        total_var = noise_var + float(parts @ shares)
        # Nobody can tell how much faster a link is than the noise.
        told = min(state[0], 0.5 * noise_s / wire_bytes)
        least = max(0.1 * state[0], told, 8e-6 / MOST_MBPS)
        state += shares * surprise_s / total_var
        covariance -= np.outer(shares, shares) / total_var
        state[0] = min(max(state[0], least), 8e-6 / LEAST_MBPS)
        state[1:] = np.clip(state[1:], LEAST_HANDLING_S, MOST_HANDLING_S)
        drift = np.array([RATE_DRIFT * state[0], HANDLING_DRIFT_S, HANDLING_DRIFT_S])
        covariance += np.diag(drift**2)
        self.uplink_mbps = float(8e-6 / state[0])
        return self._own(net_s, parts, noise_s)

    def _own(self, net_s: float, parts: NDArray[np.float64], noise_s: float) -> float:
        """A request's own time on the uplink, its rate being as good as unknown before."""
        expected_s = float(parts[0] * self._state[0])
        surprise_s = net_s - self.rtt_s - float(parts @ self._state)
        scale_s = max(expected_s, expected_s + surprise_s)
        own_s = expected_s + surprise_s / (1 + (noise_s / scale_s) ** 2)
        return min(max(own_s, 0.1 * expected_s, LEAST_UPLOAD_S), net_s)

    def _fit(self) -> None:
        """Draw the Theil-Sen line through the window, where the sizes differ enough."""
        size, net_s = np.array(self._requests).T
        first, second = np.triu_indices(len(size), 1)
        gap = size[second] - size[first]
        wide = np.abs(gap) > 0.2 * size.max()
        if wide.sum() < 3:
            return
        slope = float(np.median((net_s[second] - net_s[first])[wide] / gap[wide]))
        intercept_s = float(np.median(net_s - max(slope, 0.0) * size))
        self.rtt_s = min(max(intercept_s, 0.0), float(net_s.min()))
        upload_s = np.maximum(net_s - intercept_s, LEAST_UPLOAD_S)[-RECENT:]
        self.uplink_mbps = _mbps(float(size[-RECENT:].sum()), float(upload_s.sum()))
        self._state[0] = 8e-6 / self.uplink_mbps


def _mbps(num_bytes: float, upload_s: float) -> float:
    return min(max(num_bytes * 8e-6 / upload_s, LEAST_MBPS), MOST_MBPS)
