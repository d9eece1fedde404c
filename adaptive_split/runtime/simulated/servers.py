"""The servers that a simulator plays back: what a request waits behind other users' work."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from adaptive_split.candidates import Floats
from adaptive_split.runtime.simulated.integrals import Integrals, played
from adaptive_split.runtime.simulated.step import copy_lanes
from adaptive_split.runtime.simulated.streams import Stream

UNINTERRUPTED = 0.2
"""Share of a tail that its last stage takes: once that has begun, nobody goes before it."""


class Servers:
    """Server waits and slowdowns of all lanes.

    A lane's server is a queue, first in first out, or, where its stream has an `others_start_s`,
    goes by slack as the edge server does: who must start later waits for who must start earlier,
    also between its own stages. Then a request gets the time that the others leave free, until the
    moment from which whoever comes has more slack than it has; after their backlog of that moment
    it gets all.

    Attributes:
        slowdown: Factor on the server profile's times, shape `(L,)`.
    """

    _STATE = ("slowdown", "_wait", "_overhead_s", "_others_start_s")

    def __init__(self, streams: Sequence[Stream]) -> None:
        self.slowdown = np.array([stream.server_slowdown for stream in streams])
        self._period_s = streams[0].wait_period_s
        self._wait = np.stack([stream.server_wait_s for stream in streams])
        self._overhead_s = np.array([stream.overheads.queue_s for stream in streams])
        starts = [stream.others_start_s for stream in streams]
        self._others_start_s = np.array([np.nan if s is None else s for s in starts])
        self._integrate()

    def copy_lanes(self, lanes: NDArray[np.int64], other: Servers) -> None:
        """Give some lanes the servers of another batch, which has as many lanes."""
        copy_lanes(self, other, lanes, self._STATE)
        self._integrate()

    def _integrate(self) -> None:
        by_slack = ~np.isnan(self._others_start_s)
        self._by_slack = bool(by_slack.any())
        if self._by_slack:
            self._free = Integrals((self._wait <= 0).astype(float), self._period_s)

    def wait_s(
        self, lane: NDArray[np.int64], at_server_s: Floats, tail_s: Floats, deadline_s: Floats
    ) -> Floats:
        """Wait of requests, all shapes `(R,)`.

        Args:
            lane: Of every request.
            at_server_s: When it arrives.
            tail_s: What its tail takes.
            deadline_s: When its reply must leave the server.
        """
        wait = self.backlog_s(lane, at_server_s)
        if not self._by_slack:
            return wait
        latest_s = np.maximum(deadline_s - self._others_start_s[lane], 0.0)
        by_slack = np.isfinite(latest_s) & np.isfinite(at_server_s)
        some = lane[by_slack]
        wait[by_slack] = self._overhead_s[some] + self._wait_by_slack(
            some, at_server_s[by_slack], tail_s[by_slack] * (1 - UNINTERRUPTED), latest_s[by_slack]
        )
        return wait

    def backlog_s(self, lane: NDArray[np.int64], moment_s: Floats) -> Floats:
        """What the others have left at a moment, the overhead of a request included."""
        wait = played(self._wait, lane, moment_s, self._period_s)
        return np.asarray(wait + self._overhead_s[lane])

    def _wait_by_slack(
        self, lane: NDArray[np.int64], begin_s: Floats, work_s: Floats, latest_s: Floats
    ) -> Floats:
        """Wait until `work_s` is done behind the others that come until `latest_s`."""
        until_s = np.maximum(latest_s, begin_s)
        meanwhile_s = self._free.until(lane, until_s) - self._free.until(lane, begin_s)
        ends_s = self._free.reached(lane, begin_s, work_s)
        backlog_s = played(self._wait, lane, latest_s, self._period_s)
        resumed_s = np.maximum(latest_s + backlog_s, begin_s) - meanwhile_s
        done = meanwhile_s >= work_s
        return np.maximum(np.where(done, ends_s - work_s, resumed_s) - begin_s, 0.0)
