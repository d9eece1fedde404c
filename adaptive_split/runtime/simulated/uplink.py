"""The device's side of the simulated uplinks: what every lane sent and what it knows of it."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from adaptive_split.candidates import Floats
from adaptive_split.observation import WINDOW
from adaptive_split.runtime.simulated.links import Links
from adaptive_split.runtime.simulated.step import Transfer, Work, copy_lanes

RING = 24
"""Requests remembered per lane: more than `WINDOW`, as the newest have no reply yet."""
PROBE_AFTER_S = 1.0
PROBE_BYTES = 4096.0
"""An idle uplink is measured this often with this much; live probes (`runtime.probes`) also go
beside traffic that tells nothing of the rate."""


class Uplinks:
    """Requests of all lanes, in rings: the handshake, payloads and probes.

    Attributes:
        free_s: When the uplink has sent all it was given, shape `(L,)`.
        believed_free_s: When the device believes that it has.
        total_probe_bytes: Bytes sent only to measure the link.
    """

    _STATE = ("free_s", "believed_free_s", "total_probe_bytes", "_ring_at")

    def __init__(self, links: Links) -> None:
        self.links = links
        lanes = len(links.rate)
        self.lane = np.arange(lanes)
        self.free_s, self.believed_free_s, self.total_probe_bytes = np.zeros((3, lanes))
        self._ring_at = np.zeros(lanes, np.int64)
        # Rows: when sent and given up, bytes, when answered, bit/s, round trip, server wait.
        self._ring = np.full((7, lanes, RING), np.nan)
        self._flat = self._ring.reshape(7, -1)
        self._sent_s, self._reply_s, self._rate = self._ring[0], self._ring[3], self._ring[4]
        self._sent_s[:], self._reply_s[:] = -np.inf, np.inf
        now = np.zeros(lanes)
        _, rtt = self._measure(self.lane, now)
        rate = np.maximum(links.rate_at(self.lane, now), 1e4)
        self._append(self.lane, now, np.inf, PROBE_BYTES, now, rate, rtt, 0.0)

    def copy_lanes(self, lanes: NDArray[np.int64], other: Uplinks) -> None:
        """Put some lanes into the state of another batch, which has as many lanes."""
        copy_lanes(self, other, lanes, self._STATE)
        self._ring[:, lanes] = other._ring

    def send(self, work: Work, transfer: Transfer) -> None:
        """Note the payloads of the lanes that send."""
        known = (self._reply_s <= work.start_s[:, None]) & ~np.isnan(self._rate)
        total, count = np.where(known, self._rate, 0.0).sum(1), known.sum(1)
        believed = np.where(count > 0, total / np.maximum(count, 1), 5e6)
        bits, lane = transfer.wire_bytes * 8, self.lane[work.sent]
        free = np.maximum(work.ready_s, self.believed_free_s) + bits / np.maximum(believed, 1e4)
        self.believed_free_s[lane] = free[lane]
        finite = np.isfinite(transfer.done_s)
        self.free_s[lane] = np.where(finite, transfer.done_s, 1e9)[lane]
        rate = np.where(finite, bits / np.maximum(transfer.done_s - work.begin_s, 1e-6), np.nan)
        self._append(
            lane, work.ready_s[lane], work.give_up_s[lane], transfer.wire_bytes[lane],
            np.where(finite, transfer.reply_s, np.inf)[lane], np.minimum(rate, 1e9)[lane],
            self.links.rtt_at(lane, transfer.done_s[lane]), transfer.wait_s[lane],
        )  # fmt: skip

    def probe(self, now_s: Floats, active: NDArray[np.bool_]) -> None:
        """Send a probe on lanes that have been silent."""
        silent = active & (now_s - self._sent_s.max(1) >= PROBE_AFTER_S) & (self.free_s <= now_s)
        if not silent.any():
            return
        lane, begin = self.lane[silent], now_s[silent]
        done, rtt = self._measure(lane, begin)
        finite = np.isfinite(done)
        rate = np.where(finite, PROBE_BYTES * 8 / np.maximum(done - begin, 1e-6), 1e4)
        reply = np.where(finite, done + rtt, np.inf)
        self._append(lane, begin, np.inf, PROBE_BYTES, reply, np.clip(rate, 1e4, 1e9), rtt, 0.0)
        self.free_s[lane] = np.where(finite, done, 1e9)
        self.total_probe_bytes[lane] += PROBE_BYTES

    def known(self, now_s: Floats) -> dict[str, Floats]:
        """Fill the fields of a `Moment` that tell of requests."""
        now, rows = now_s[:, None], self.lane * RING
        order = (self._ring_at[:, None] - 1 - np.arange(RING)) % RING + rows[:, None]
        sent, reply = self._flat[0].take(order), self._flat[3].take(order)
        used = sent > -np.inf
        seen = used & (reply <= now)
        newest = np.argsort(~seen, axis=1, kind="stable")[:, :WINDOW]
        newest += rows[:, None]
        finished = self._flat[3:].take(order.ravel().take(newest), 1)
        finished = np.where(seen.ravel().take(newest), finished, np.nan)
        slowdown = np.where(np.isnan(finished[0]), np.nan, self.links.servers.slowdown[:, None])
        pending = np.where(used & ~seen & (sent <= now), sent, np.inf)
        first = pending.argmin(1) + rows
        oldest = pending.ravel().take(first)
        waits = oldest < np.inf
        oldest_bytes = self._flat[2].take(order.ravel().take(first))
        busy = np.maximum(self.believed_free_s - now_s, 0.0)
        # A request is late once its give-up moment has passed without a reply, not before.
        recent = self._flat[1].take(order[:, :WINDOW])
        late = used[:, :WINDOW] & (np.minimum(reply[:, :WINDOW], now) > recent)
        return {
            "sample_age_s": now - finished[0], "sample_mbps": finished[1] / 1e6,
            "sample_rtt_s": finished[2], "sample_wait_s": finished[3],
            "sample_slowdown": slowdown, "uplink_busy_s": np.where(waits, busy, 0.0),
            "unanswered_s": np.where(waits, now_s - oldest, 0.0),
            "unanswered_bytes": np.where(waits, oldest_bytes, 0.0),
            "timeouts": late.sum(1).astype(float),
        }  # fmt: skip

    def _measure(self, lane: NDArray[np.int64], begin_s: Floats) -> tuple[Floats, Floats]:
        """When a probe that begins at a moment has crossed, and its round trip."""
        begin = np.maximum(begin_s, self.free_s[lane])
        done = self.links.sent_at(lane, begin, np.full(len(lane), PROBE_BYTES * 8))
        return done, self.links.rtt_at(lane, done)

    def _append(self, lane: NDArray[np.int64], *values: Floats | float) -> None:
        """Put a request of some lanes into the ring, a value per row."""
        at = self._ring_at[lane] % RING
        for row, value in zip(self._ring, values, strict=True):
            row[lane, at] = value
        self._ring_at[lane] += 1
