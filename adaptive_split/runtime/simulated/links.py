"""The uplinks and servers that a simulator plays back: exact transfer times for many lanes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from adaptive_split.candidates import Floats
from adaptive_split.runtime.simulated.step import copy_lanes
from adaptive_split.runtime.simulated.streams import PERIOD_S, WAIT_PERIOD_S, Stream


class Links:
    """Rates, round trips, server waits and server slowdowns of all lanes."""

    def __init__(self, streams: Sequence[Stream]) -> None:
        self.rate = np.stack([stream.uplink_mbps for stream in streams]) * 1e6
        self.rtt = np.stack([stream.rtt_s for stream in streams])
        self.wait = np.stack([stream.server_wait_s for stream in streams])
        self.server_slowdown = np.array([stream.server_slowdown for stream in streams])
        self.slots = self.rate.shape[1]
        self._integrate()

    def copy_lanes(self, lanes: NDArray[np.int64], other: Links) -> None:
        """Give some lanes the links of another batch, which has as many lanes."""
        copy_lanes(self, other, lanes, ("rate", "rtt", "wait", "server_slowdown"))
        self._integrate()

    def _integrate(self) -> None:
        zeros = np.zeros((len(self.rate), 1))
        steps = np.concatenate([zeros, np.cumsum(self.rate * PERIOD_S, 1)], 1)
        # One search over all lanes: lane i's cumulated bits are shifted above lane i - 1's.
        self._shift = np.concatenate([[0.0], np.cumsum(steps[:, -1] + 1.0)[:-1]])
        self._shifted = (steps + self._shift[:, None]).ravel()
        self._total, self._cumulative = steps[:, -1], steps.ravel()

    def bits_until(self, lane: NDArray[np.int64], moment_s: Floats) -> Floats:
        """Bits the uplink can carry from the stream's start to a moment."""
        slot = np.clip((moment_s / PERIOD_S).astype(int), 0, self.slots - 1)
        inside = np.minimum(moment_s - slot * PERIOD_S, PERIOD_S)
        at = lane * self.slots + slot
        return np.asarray(self._cumulative.take(at + lane) + self.rate.ravel().take(at) * inside)

    def sent_at(self, lane: NDArray[np.int64], begin_s: Floats, bits: Floats) -> Floats:
        """When `bits` that begin at `begin_s` have crossed the uplink; `inf` past the end."""
        target = self.bits_until(lane, begin_s) + bits
        beyond = target >= self._total.take(lane)
        position = np.searchsorted(self._shifted, target + self._shift.take(lane), side="left")
        first = lane * self.slots
        slot = np.clip(position - first - lane - 1, 0, self.slots - 1)
        rest = target - self._cumulative.take(first + lane + slot)
        rate = self.rate.ravel().take(first + slot)
        done = slot * PERIOD_S + rest / np.maximum(rate, 1e-9)
        return np.where(beyond, np.inf, np.maximum(done, begin_s))

    def rtt_at(self, lane: NDArray[np.int64], moment_s: Floats) -> Floats:
        """Round trip in force at a moment."""
        return _played(self.rtt, lane, moment_s, PERIOD_S)

    def rate_at(self, lane: NDArray[np.int64], moment_s: Floats) -> Floats:
        """Uplink rate in force at a moment, in bit/s."""
        return _played(self.rate, lane, moment_s, PERIOD_S)

    def wait_at(self, lane: NDArray[np.int64], moment_s: Floats) -> Floats:
        """Time a request arriving at a moment waits at the server."""
        return _played(self.wait, lane, moment_s, WAIT_PERIOD_S)

    def reply(
        self, lane: NDArray[np.int64], sent_s: Floats, tail_s: Floats
    ) -> tuple[Floats, Floats]:
        """Server wait and reply time of payloads that crossed the uplink at `sent_s`."""
        half = self.rtt_at(lane, sent_s) / 2
        at_server = sent_s + half
        wait = self.wait_at(lane, at_server)
        return wait, at_server + wait + tail_s + half


def _played(values: Floats, lane: NDArray[np.int64], moment_s: Floats, period_s: float) -> Floats:
    """What a lane's row, `(L, T)`, holds at a moment; its ends last for ever."""
    slots = values.shape[1]
    slot = np.clip(np.minimum(moment_s / period_s, slots).astype(int), 0, slots - 1)
    return np.asarray(values.ravel().take(lane * slots + slot))
