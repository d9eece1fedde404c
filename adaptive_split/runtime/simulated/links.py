"""The uplinks and servers that a simulator plays back: exact transfer times for many lanes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from adaptive_split.candidates import Floats
from adaptive_split.runtime.simulated.integrals import Integrals, played
from adaptive_split.runtime.simulated.servers import Servers
from adaptive_split.runtime.simulated.step import copy_lanes
from adaptive_split.runtime.simulated.streams import Stream


class Links:
    """Rates and round trips of all lanes, and the servers at their ends."""

    def __init__(self, streams: Sequence[Stream]) -> None:
        self.rate = np.stack([stream.uplink_mbps for stream in streams]) * 1e6
        self.rtt = np.stack([stream.rtt_s + stream.overheads.message_s for stream in streams])
        self._period_s, self.servers = streams[0].period_s, Servers(streams)
        self._bits = Integrals(self.rate, self._period_s)

    def copy_lanes(self, lanes: NDArray[np.int64], other: Links) -> None:
        """Give some lanes the links of another batch, which has as many lanes."""
        copy_lanes(self, other, lanes, ("rate", "rtt"))
        self.servers.copy_lanes(lanes, other.servers)
        self._bits = Integrals(self.rate, self._period_s)

    def sent_at(self, lane: NDArray[np.int64], begin_s: Floats, bits: Floats) -> Floats:
        """When `bits` that begin at `begin_s` have crossed the uplink; `inf` past the end."""
        return self._bits.reached(lane, begin_s, bits)

    def rtt_at(self, lane: NDArray[np.int64], moment_s: Floats) -> Floats:
        """Round trip in force at a moment."""
        return played(self.rtt, lane, moment_s, self._period_s)

    def rate_at(self, lane: NDArray[np.int64], moment_s: Floats) -> Floats:
        """Uplink rate in force at a moment, in bit/s."""
        return played(self.rate, lane, moment_s, self._period_s)

    def wait_at(self, lane: NDArray[np.int64], moment_s: Floats) -> Floats:
        """Time a request arriving at a moment waits at the server, first in, first out."""
        return self.servers.backlog_s(lane, moment_s)

    def reply(
        self, lane: NDArray[np.int64], sent_s: Floats, tail_s: Floats, give_up_s: Floats
    ) -> tuple[Floats, Floats]:
        """Server wait and reply time of payloads that crossed the uplink at `sent_s`.

        Args:
            lane: Of every payload, shape `(R,)`.
            sent_s: When it had crossed.
            tail_s: What its tail takes.
            give_up_s: From then on its reply is of no use.
        """
        half = self.rtt_at(lane, sent_s) / 2
        at_server = sent_s + half
        wait = self.servers.wait_s(lane, at_server, tail_s, give_up_s - half)
        return wait, at_server + wait + tail_s + half
