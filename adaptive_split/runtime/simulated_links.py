"""The uplinks and servers that a simulator plays back: exact transfer times for many lanes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from adaptive_split.planner import Floats
from adaptive_split.runtime.streams import PERIOD_S, WAIT_PERIOD_S, Stream


class Links:
    """Rates, round trips and server waits of all lanes, with exact transfer times."""

    def __init__(self, streams: Sequence[Stream]) -> None:
        self.rate = np.stack([stream.uplink_mbps for stream in streams]) * 1e6
        self.rtt = np.stack([stream.rtt_s for stream in streams])
        self.wait = np.stack([stream.server_wait_s for stream in streams])
        self.slots = self.rate.shape[1]
        self._integrate()

    def replace(self, lane: int, stream: Stream) -> None:
        """Give one lane another stream; call `refresh` once all are replaced."""
        self.rate[lane] = stream.uplink_mbps * 1e6
        self.rtt[lane] = stream.rtt_s
        self.wait[lane] = stream.server_wait_s

    def refresh(self) -> None:
        """Integrate the rates again after lanes were replaced."""
        self._integrate()

    def _integrate(self) -> None:
        zeros = np.zeros((len(self.rate), 1))
        steps = np.concatenate([zeros, np.cumsum(self.rate * PERIOD_S, 1)], 1)
        self.cumulative = steps
        # One search over all lanes: lane i's cumulated bits are shifted above lane i - 1's.
        self.shift = np.concatenate([[0.0], np.cumsum(steps[:, -1] + 1.0)[:-1]])
        self.flat = (steps + self.shift[:, None]).ravel()

    def bits_until(self, lane: NDArray[np.int64], moment_s: Floats) -> Floats:
        """Bits the uplink can carry from the stream's start to a moment."""
        slot = np.clip((moment_s / PERIOD_S).astype(int), 0, self.slots - 1)
        inside = np.minimum(moment_s - slot * PERIOD_S, PERIOD_S)
        return np.asarray(self.cumulative[lane, slot] + self.rate[lane, slot] * inside)

    def sent_at(self, lane: NDArray[np.int64], begin_s: Floats, bits: Floats) -> Floats:
        """When `bits` that begin at `begin_s` have crossed the uplink; `inf` past the end."""
        target = self.bits_until(lane, begin_s) + bits
        beyond = target >= self.cumulative[lane, -1]
        position = np.searchsorted(self.flat, target + self.shift[lane], side="left")
        slot = np.clip(position - lane * (self.slots + 1) - 1, 0, self.slots - 1)
        rest = target - self.cumulative[lane, slot]
        done = slot * PERIOD_S + rest / np.maximum(self.rate[lane, slot], 1e-9)
        return np.where(beyond, np.inf, np.maximum(done, begin_s))

    def rtt_at(self, lane: NDArray[np.int64], moment_s: Floats) -> Floats:
        """Round trip in force at a moment."""
        return self.rtt[lane, self._slot(moment_s, PERIOD_S, self.slots)]

    def rate_at(self, lane: NDArray[np.int64], moment_s: Floats) -> Floats:
        """Uplink rate in force at a moment, in bit/s."""
        return self.rate[lane, self._slot(moment_s, PERIOD_S, self.slots)]

    def wait_at(self, lane: NDArray[np.int64], moment_s: Floats) -> Floats:
        """Time a request arriving at a moment waits at the server."""
        return self.wait[lane, self._slot(moment_s, WAIT_PERIOD_S, self.wait.shape[1])]

    @staticmethod
    def _slot(moment_s: Floats, period_s: float, slots: int) -> NDArray[np.int64]:
        finite = np.where(np.isfinite(moment_s), moment_s, 0.0)
        return np.asarray(np.clip((finite / period_s).astype(int), 0, slots - 1))
